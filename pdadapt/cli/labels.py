"""`pdadapt label` and `pdadapt labels ...`."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pdadapt.cli.app import app, labels_app
from pdadapt.cli.options import DebugOption, new_progress, open_console, say
from pdadapt.data.lines import check_file


@app.command(epilog="Example: pdadapt label runs/mine --shard 3/16; all sixteen done, pdadapt labels merge runs/mine")
def label(
    run: Annotated[Path, typer.Argument(help="A run folder that `adapt --stop-before-labeling` has left.")],
    shard: Annotated[str, typer.Option(metavar="I/N", help="Which of N parts, 1/N to N/N.")] = "1/1",
    debug: DebugOption = False,
) -> None:
    """Label a part of a run's candidates, into a file of its own: for job arrays. Killed, the same goes on."""
    from pdadapt.labeling.shards import label_shard, parse_shard

    try:
        asked = parse_shard(shard)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from None
    file = label_shard(run, asked, new_progress())
    say(f"Shard {shard} is labeled: {file}. When all are: pdadapt labels merge {shlex.quote(str(run))}")


class LabelFormat(StrEnum):
    jsonl = "jsonl"
    parquet = "parquet"


@labels_app.command("export")
def labels_export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    file_format: Annotated[LabelFormat, typer.Option("--format")] = LabelFormat.jsonl,
    out: Annotated[Path | None, typer.Option(help="Default: RUN/labels.jsonl or RUN/labels.parquet.")] = None,
    debug: DebugOption = False,
) -> None:
    """Write a run's labels with their texts, for other trainers."""
    from pdadapt.labeling.exchange import export_labels
    from pdadapt.runs.folder import label_store

    target = out or run / f"labels.{file_format.value}"
    store = label_store(run)
    count = export_labels(store, target, file_format.value)
    say(f"Wrote {count:,} labels, all that {store} holds, to {target}")


@labels_app.command("import")
def labels_import(
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet rows: query, document[, document_b], score.")],
    store: Annotated[Path, typer.Option(help="The label store to fill (--set label_store=STORE uses it).")],
    name: Annotated[
        str | None,
        typer.Option(help="Use them with --teacher imported:NAME. Default: they stay those of the teacher they name."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Take labels that were made elsewhere into a label store: all of the file, or none of it."""
    from pdadapt.labeling.exchange import import_labels

    count = import_labels(file, store, name)
    teacher = f"--teacher {shlex.quote(f'imported:{name}')}" if name else "the teacher that gave them"
    quoted = shlex.quote(f"label_store={store}")
    say(f"Took {count:,} labels into {store}; use them with {teacher} --set {quoted}")


@labels_app.command("merge")
def labels_merge(
    run: Annotated[Path, typer.Argument(help="The run folder whose shards `pdadapt label` has labeled.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Shards from elsewhere. Default: all that the run folder holds.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Take the labels of shards into the run's label store: in any order, as often as you like."""
    from pdadapt.labeling.shards import merge_shards

    for file in files or []:
        check_file(file)
    from pdadapt.runs.shards import shard_summary

    count, store = merge_shards(run, files or [])
    said = " ".join(filter(None, [f"{store} took in {count:,} labels.", shard_summary(run)]))
    say(f"{said} The same `pdadapt adapt` goes on with them, and asks itself what is missing.")


@labels_app.command("show")
def labels_show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    query: Annotated[str, typer.Option(help="The id of a query.")],
    debug: DebugOption = False,
) -> None:
    """Show what the teachers said about one query: documents, pairs, and where they contradict each other."""
    from pdadapt.labeling.exchange import label_tables

    open_console().print(label_tables(run, query))

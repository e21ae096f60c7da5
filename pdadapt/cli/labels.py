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


@app.command(epilog="Example: pdadapt label runs/mine --shard 3/16")
def label(
    run: Annotated[Path, typer.Argument(help="A run folder of `adapt --stop-before-labeling`.")],
    shard: Annotated[str, typer.Option(metavar="I/N", help="Which of N parts to label, from 1/N to N/N.")] = "1/1",
    debug: DebugOption = False,
) -> None:
    """Label one part of a run's candidates, for example in a job array.

    Each part has its own label file. If the command stops, repeat it: it resumes. After the last part, merge the files
    with `pdadapt labels merge`.
    """
    from pdadapt.labeling.shards import label_shard, parse_shard

    try:
        part = parse_shard(shard)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from None
    file = label_shard(run, part, new_progress())
    say(f"Shard {shard} is labeled: {file}. After the last shard, run pdadapt labels merge {shlex.quote(str(run))}")


class LabelFormat(StrEnum):
    jsonl = "jsonl"
    parquet = "parquet"


@labels_app.command("export", epilog="Example: pdadapt labels export runs/mine --format parquet")
def labels_export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    file_format: Annotated[
        LabelFormat, typer.Option("--format", help="The format of the new file.")
    ] = LabelFormat.jsonl,
    out: Annotated[
        Path | None, typer.Option(help="The new file. Default: RUN/labels.jsonl or RUN/labels.parquet.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Export the labels of a run with their texts, for other trainers."""
    from pdadapt.labeling.exchange import export_labels
    from pdadapt.runs.folder import store_of_run

    target = out or run / f"labels.{file_format.value}"
    store = store_of_run(run)
    count = export_labels(store, target, file_format.value)
    say(f"Wrote {count:,} labels to {target}: all those in {store}")


@labels_app.command("import", epilog="Example: pdadapt labels import bought.jsonl --store labels.sqlite --name bought")
def labels_import(
    file: Annotated[
        Path, typer.Argument(help="A JSONL or Parquet file. Its rows: query, document[, document_b], score.")
    ],
    store: Annotated[Path, typer.Option(help="The label store to write to. Use it with --set label_store=STORE.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="The name of their teacher, for --teacher imported:NAME. Default: each row names its teacher."
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Import a file of labels into a label store. If a row is wrong, nothing is imported."""
    from pdadapt.labeling.exchange import import_labels

    count = import_labels(file, store, name)
    teacher = f"--teacher {shlex.quote(f'imported:{name}')}" if name else "the teacher that gave them"
    setting = shlex.quote(f"label_store={store}")
    say(f"Imported {count:,} labels into {store}. Use them with {teacher} --set {setting}")


@labels_app.command("merge", epilog="Example: pdadapt labels merge runs/mine")
def labels_merge(
    run: Annotated[Path, typer.Argument(help="The run folder whose shards are labeled.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Shards from elsewhere. Default: all those in the run folder.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Copy the labels of shards into the label store of the run. The order does not matter, and repeating is safe."""
    from pdadapt.labeling.shards import merge_shards

    for file in files or []:
        check_file(file)
    from pdadapt.runs.shard_states import shard_summary

    count, store = merge_shards(run, files or [])
    lines = [f"Added {count:,} labels to {store}.", shard_summary(run), "Repeat the `pdadapt adapt` command: it labels"]
    say(" ".join(filter(None, lines)) + " what is missing, and continues.")


@labels_app.command("show", epilog="Example: pdadapt labels show runs/mine --query q1")
def labels_show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    query: Annotated[str, typer.Option(help="The id of the query.")],
    debug: DebugOption = False,
) -> None:
    """Show the labels of a query: its documents, its pairs, and where these contradict each other."""
    from pdadapt.labeling.exchange import label_tables

    open_console().print(label_tables(run, query))

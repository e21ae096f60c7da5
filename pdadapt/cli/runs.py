"""`pdadapt status`, `report`, `export`, `convert`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pdadapt.cli.app import app
from pdadapt.cli.options import DebugOption, new_progress, open_console, say


@app.command(epilog="Example: pdadapt status runs/mine")
def status(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    debug: DebugOption = False,
) -> None:
    """Show the progress and results of a run, including one in progress."""
    from pdadapt.reporting.status import show_status

    open_console().print(show_status(run))


@app.command(epilog="Example: pdadapt report runs/mine")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    debug: DebugOption = False,
) -> None:
    """Rebuild the page of a run, RUN/report.html. This also works on unfinished runs."""
    from pdadapt.reporting.report import write_report

    say(str(write_report(run)))


class ExportFormat(StrEnum):
    stanford = "stanford"
    pylate = "pylate"
    sentence_transformers = "sentence-transformers"
    onnx = "onnx"


@app.command(epilog="Example: pdadapt export runs/mine --format stanford --out colbert-mine")
def export(
    model: Annotated[str, typer.Argument(help="A run folder, a checkpoint folder, a hub id, or package:NAME/PATH.")],
    out: Annotated[
        Path, typer.Option(help="The new folder. With --push-to-hub, an existing folder is uploaded as it is.")
    ],
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="The library that will read it. colbert-ai reads `stanford`.")
    ] = ExportFormat.pylate,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="NAME/REPO",
            help="Also upload it to this repository of the Hugging Face hub. New repositories are private.",
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Export a checkpoint for another library. Exports of a run include a model card."""
    from pdadapt.reporting.export import export_checkpoint, push
    from pdadapt.runtime.progress import quiet_libraries

    quiet_libraries()
    if not (push_to_hub and out.exists()):
        export_checkpoint(model, out, file_format.value)
        say(f"Wrote {out}")
    if push_to_hub:
        say(f"Uploaded to {push(out, push_to_hub)}")


@app.command(epilog="Example: pdadapt convert castorini/duot5-3b-msmarco duot5-3b-msmarco")
def convert(
    model: Annotated[
        str, typer.Argument(help="A hub id or a folder with weights in pickle files (pytorch_model.bin).")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The new folder. Give it to other commands as the model.")
    ],
    debug: DebugOption = False,
) -> None:
    """Convert the pickled weights of a model to safetensors, which cannot contain code."""
    from pdadapt.models.convert import convert_to_safetensors

    convert_to_safetensors(model, out, new_progress())
    say(f"Wrote {out}")

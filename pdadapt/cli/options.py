"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdadapt.cli.commands import refuse_repeated, settings_given
from pdadapt.runtime.printing import printable

if TYPE_CHECKING:
    from rich.console import Console

    from pdadapt.runtime.progress import Progress

CORPUS = typer.Option(
    "--corpus",
    help="A name of `pdadapt datasets`; `demo`; a BEIR folder; a .jsonl, .tsv, .csv (.gz too) or .parquet file; "
    "a folder of .txt and .md files; hf:NAME[:CONFIG][@SPLIT].",
)
CorpusOption = Annotated[str, CORPUS]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=settings_given,
        help="Change a setting, e.g. train.learning_rate=3e-6; may be repeated.",
    ),
]
PassagesOption = Annotated[
    str | None,
    typer.Option(
        metavar="words=N,overlap=M", help="Split documents into passages; a document ranks by its best passage."
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse what is else left out and said: blank documents and queries, judgments of what is not there.",
    ),
]


class Stage(StrEnum):
    student = "student"
    retrieve = "retrieve"
    label = "label"
    train = "train"
    evaluate = "evaluate"


RestartOption = Annotated[
    Stage | None,
    typer.Option(help="In a run of other settings: make this stage and those after it anew, and keep the others."),
]
PlanOption = Annotated[
    bool, typer.Option("--plan", help="Check everything, time a small sample, say what the run will cost; then stop.")
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="A server of the teacher, http://HOST/v1#NAME; may be repeated: questions go to whichever is free.",
    ),
]


def _cluster(address: str | None) -> str | None:
    if address is not None and not re.fullmatch(r"ray(://[^/:]+:[0-9]{1,5})?", address):
        raise typer.BadParameter(f"{address!r} is no cluster: write ray, or ray://HOST:6379.")
    return address


ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ray[://HOST:6379]",
        callback=_cluster,
        help="Encode and label on the Ray cluster that this machine is a node of; of several, that with this head.",
    ),
]
StopOption = Annotated[
    bool,
    typer.Option(
        "--stop-before-labeling", help="End when candidates wait for labels, for `pdadapt label` on other machines."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def teacher_settings(model: str | None, endpoints: list[str] | None) -> dict[str, Any]:
    """The settings that --teacher and --endpoint stand for."""
    if not endpoints:
        return {"teacher.model": model}
    first, *more = endpoints if model is None else [model, *endpoints]
    return {"teacher.model": first, "teacher.endpoints": more}


def overrides_of(settings: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that a command changes: those of --set, and options (None where not given).

    A teacher that is given stands for those of points and pairs that the recipe may name. Raises BadParameter when
    --set and an option give the same one.
    """
    from pdadapt.settings.recipes import parse_override

    overrides = dict(map(parse_override, settings or []))
    given = {key: value for key, value in options.items() if value is not None}
    refuse_repeated(overrides, given)
    overrides |= given
    if "teacher.model" in overrides:
        overrides = {"teacher.point.model": None, "teacher.pair.model": None} | overrides
    return overrides


def open_console() -> Console:
    from pdadapt.runtime.terminal import console

    return console()


def say(text: str) -> None:
    typer.echo(printable(text))


def new_progress() -> Progress:
    from pdadapt.runtime.progress import Progress, quiet_libraries
    from pdadapt.runtime.terminal import console
    from pdadapt.training.distributed import rank

    quiet_libraries()
    return Progress(console(quiet=True) if rank() > 0 else None)


def default_recipe(console: Console) -> str:
    import torch

    if torch.cuda.is_available():
        return "default"
    console.print("No GPU: using recipe `small` (embedded models). Recipe `default` needs one GPU and the hub.")
    return "small"

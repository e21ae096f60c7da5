"""Options that several commands share, and the settings that they stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdadapt.cli.commands import check_settings, refuse_repeated
from pdadapt.runs.stages import StageName
from pdadapt.runtime.printing import printable

if TYPE_CHECKING:
    from rich.console import Console

    from pdadapt.runtime.progress import Progress
    from pdadapt.settings.schema import Recipe

CORPUS = typer.Option(
    "--corpus",
    help="A name from `pdadapt datasets`, `demo`, a BEIR folder, a folder of .txt and .md files, a .jsonl, .tsv, .csv "
    "(also .gz) or .parquet file, or hf:NAME[:CONFIG][@SPLIT].",
)
CorpusOption = Annotated[str, CORPUS]
RecipeOption = Annotated[
    str | None,
    typer.Option(help="Name or file of a recipe.", show_default="`default` with a GPU, otherwise `small`"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=check_settings,
        help="Change a setting, for example train.learning_rate=3e-6. Repeatable.",
    ),
]
PassagesOption = Annotated[
    str | None,
    typer.Option(
        metavar="words=N,overlap=M",
        help="Split documents into passages of N words, with M words in common between neighbors. A document ranks by "
        "its best passage.",
    ),
]
QrelsOption = Annotated[
    Path | None,
    typer.Option(help="Judgments to use instead of the corpus's own, in the format of TREC or BEIR."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse input that is otherwise left out with a notice: blank documents and queries, and judgments of "
        "missing ones.",
    ),
]
StudentOption = Annotated[str | None, typer.Option(help="The retriever to start from (sets student.model).")]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        help="The model that judges documents (sets teacher.model): a hub id, a folder, package:NAME/PATH, "
        "http://HOST/v1#NAME or bm25."
    ),
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="A server of the teacher, http://HOST/v1#NAME. Repeatable: each question goes to a server that is free.",
    ),
]


RestartOption = Annotated[
    StageName | None,
    typer.Option(help="Redo this stage and all later ones after changing settings; keep earlier results."),
]
PlanOption = Annotated[
    bool,
    typer.Option("--plan", help="Check everything, time a small sample, print the estimated cost, and stop."),
]


def _check_cluster(address: str | None) -> str | None:
    if address is not None and not re.fullmatch(r"ray(://[^/:]+:[0-9]{1,5})?", address):
        raise typer.BadParameter(f"{address!r} is not the address of a cluster. Write ray or ray://HOST:6379.")
    return address


ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ray[://HOST:6379]",
        callback=_check_cluster,
        help="Run encoding and labeling on a Ray cluster. `ray` uses the local one; `ray://HOST:6379` picks one by its "
        "head node.",
    ),
]
StopOption = Annotated[
    bool,
    typer.Option(
        "--stop-before-labeling",
        help="Stop when the candidates are ready, to label them with `pdadapt label` on other machines.",
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def teacher_settings(model: str | None, endpoints: list[str] | None) -> dict[str, Any]:
    """The settings that --teacher and --endpoint stand for."""
    if not endpoints:
        return {"teacher.model": model}
    first, *more = endpoints if model is None else [model, *endpoints]
    return {"teacher.model": first, "teacher.endpoints": more}


def changed_settings(settings: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that a command changes: those of --set, and those of other options (None: not given).

    A given teacher replaces the teachers of points and of pairs that the recipe names. Raises BadParameter when --set
    and an option change the same setting.
    """
    from pdadapt.settings.recipes import parse_override

    changed = dict(map(parse_override, settings or []))
    given = {key: value for key, value in options.items() if value is not None}
    refuse_repeated(changed, given)
    changed |= given
    if "teacher.model" in changed:
        changed = {"teacher.point.model": None, "teacher.pair.model": None} | changed
    return changed


def settings_without_recipe(settings: list[str] | None, options: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """The default settings with the changes of a command; and the settings of the student that the command changes.

    A finished model has settings of its own, which only those of the command may replace; but its dtype is always ours.
    """
    from pdadapt.settings.recipes import apply_overrides, parse_recipe

    changed = changed_settings(settings, options)
    tree = apply_overrides({}, changed)
    recipe = parse_recipe(tree, "--set", changed)
    return recipe, recipe.student.model_dump(include={"dtype", *tree.get("student", {})} - {"model"})


def open_console() -> Console:
    """A console on standard output."""
    from pdadapt.runtime.terminal import console

    return console()


def say(text: str) -> None:
    """Print a line on standard output, without rich (so that nothing heavy is imported)."""
    typer.echo(printable(text))


def new_progress() -> Progress:
    """Progress on standard error, which only the first of several processes shows."""
    from pdadapt.runtime.progress import Progress, quiet_libraries
    from pdadapt.runtime.terminal import console
    from pdadapt.training.distributed import rank

    quiet_libraries()
    return Progress(console(quiet=True) if rank() > 0 else None)


def default_recipe(console: Console) -> str:
    """The recipe for this machine."""
    import torch

    if torch.cuda.is_available():
        return "default"
    console.print("No GPU: using recipe `small` (embedded models). Recipe `default` needs a GPU and the hub.")
    return "small"

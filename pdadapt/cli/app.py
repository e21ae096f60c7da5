"""The Typer app and its groups of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from pdadapt import __version__
from pdadapt.cli.commands import Commands
from pdadapt.cli.options import say

app = Commands(
    help="Adapt a ColBERT retriever to your corpus without relevance judgments: an LLM judges documents one by one and "
    "two by two, and the retriever learns from it (PairDistill).",
    epilog="Try: pdadapt adapt --corpus demo --recipe demo",
    no_args_is_help=True,
    add_completion=False,
)
recipes_app = Commands(help="List, show and copy the shipped recipes.", invoke_without_command=True)
labels_app = Commands(help="Export, import and show what teachers said.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(labels_app, name="labels")


def _version(show: bool) -> None:
    if show:
        say(f"pdadapt {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass

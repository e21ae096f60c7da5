"""The Typer app and its groups of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from pdadapt import __version__
from pdadapt.cli.commands import Commands
from pdadapt.cli.options import say

ORDER = (  # of the commands in `pdadapt --help`: as a user meets them
    *("adapt", "train-msmarco", "queries", "train-reranker"),
    *("evaluate", "search", "rerank"),
    *("label", "labels"),
    *("status", "report", "export", "convert"),
    *("datasets", "recipes", "setup-plaid", "setup-colbert"),
)

app = Commands(
    ORDER,
    help="Adapt a ColBERT retriever to your corpus without relevance judgments. An LLM judges documents one by one and "
    "in pairs, and the retriever learns from its answers (PairDistill).",
    epilog="Try: pdadapt adapt --corpus demo --recipe demo",
    no_args_is_help=True,
    add_completion=False,
)
recipes_app = Commands(help="List, show and copy the shipped recipes.", invoke_without_command=True)
labels_app = Commands(help="Export, import, merge and show the labels of a run.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(labels_app, name="labels")


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"pdadapt {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass

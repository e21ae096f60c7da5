"""Run the command line: errors become one line and an exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from pdadapt.cli.app import app, labels_app, recipes_app
from pdadapt.errors import explain
from pdadapt.runtime.printing import printable

if TYPE_CHECKING:
    pass

app.add_typer(recipes_app, name="recipes")


app.add_typer(labels_app, name="labels")


def run() -> None:
    """Do what the command line says. Errors of ours are one line and exit code 1; --debug shows the traceback."""
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.secho(f"Error: {printable(explain(error))}", fg="red", err=True)
        sys.exit(1)

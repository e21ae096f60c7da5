"""Run the command line. An error becomes one line and an exit code."""

from __future__ import annotations

import sys

import typer

from pdadapt.cli import adapt, evaluate, labels, recipes, runs  # noqa: F401  (to declare their commands)
from pdadapt.cli.app import app
from pdadapt.errors import explain
from pdadapt.runtime.printing import printable


def run() -> None:
    """Run the command that the user typed. An error is one line with exit code 1; --debug shows its traceback."""
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.secho(f"Error: {printable(explain(error))}", fg="red", err=True)
        sys.exit(1)

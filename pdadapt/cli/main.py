"""Run the command line: errors become one line and an exit code."""

from __future__ import annotations

import sys

import typer

from pdadapt.cli import adapt, evaluate, labels, recipes, runs  # noqa: F401  (their commands register themselves)
from pdadapt.cli.app import app
from pdadapt.errors import explain
from pdadapt.runtime.printing import printable


def run() -> None:
    """Do what the command line says. Errors of ours are one line and exit code 1; --debug shows the traceback."""
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.secho(f"Error: {printable(explain(error))}", fg="red", err=True)
        sys.exit(1)

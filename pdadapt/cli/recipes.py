"""`pdadapt recipes ...`, `datasets` and the environments of engines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pdadapt.cli.app import app, recipes_app
from pdadapt.cli.options import DebugOption, open_console, say
from pdadapt.runtime.printing import printable


@app.command(epilog="Example: pdadapt datasets")
def datasets(debug: DebugOption = False) -> None:
    """List the corpora that --corpus accepts by name, with their numbers of training and test queries."""
    from pdadapt.data.catalog import PAPER_QUERY_COUNTS, catalog_listings
    from pdadapt.runtime.terminal import WholeTable
    from pdadapt.settings.recipes import recipe_names

    table = WholeTable(
        "name", "documents", "training queries", "test queries", "recipe", box=None, padding=(0, 2, 0, 0)
    )
    recipes = set(recipe_names())
    for found in catalog_listings():
        documents = "licensed" if found.licensed else f"{found.documents:,}"
        tests = ", ".join(f"{split} {number:,}" if number else split for split, number in found.tests.items())
        recipe = found.name if found.name in recipes else ""
        table.add_row(found.name, documents, f"{found.queries:,}" if found.queries else "", tests, recipe)
    open_console().print(table)
    for name, number in PAPER_QUERY_COUNTS.items():
        say(f"{name}: the published figures are on {number:,} test queries. ir_datasets has fewer.")
    say(
        "A corpus is downloaded when you first use it. Licensed corpora are not: --corpus NAME says how to get them. "
        "--corpus also accepts other ids of ir_datasets (https://ir-datasets.com), and your own files."
    )


@app.command(epilog="Example: pdadapt setup-plaid")
def setup_plaid(debug: DebugOption = False) -> None:
    """Build the environment of the engine `plaid`: fast-plaid with its own version of torch (several GB).

    Use it with --set retrieve.engine=plaid.
    """
    _set_up("plaid")


@app.command(epilog="Example: pdadapt setup-colbert")
def setup_colbert(debug: DebugOption = False) -> None:
    """Build the environment of the engine `colbert`: colbert-ai, which the paper used.

    Use it with --set retrieve.engine=colbert.
    """
    _set_up("colbert")


def _set_up(engine: str) -> None:
    from pdadapt.retrieval.engines.environment import set_up

    say(f"Installed in {set_up(engine)}. Use it with --set retrieve.engine={engine}")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    from pdadapt.settings.recipes import recipe_names, recipe_path

    if context.invoked_subcommand is None:
        for name in recipe_names():
            first = recipe_path(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            say(f"{name:24} {first}")


@recipes_app.command("settings", epilog="Example: pdadapt recipes settings")
def recipes_settings(debug: DebugOption = False) -> None:
    """List every setting with its default and its meaning."""
    from pdadapt.runtime.terminal import Name, WholeTable
    from pdadapt.settings.recipes import all_settings

    table = WholeTable(Name("setting"), "default", Name("meaning"))
    for key, default, meaning in all_settings():
        value = "null" if default is None else list(default) if isinstance(default, tuple) else default
        table.add_row(key, str(value), meaning)
    open_console().print(table)


@recipes_app.command("show", epilog="Example: pdadapt recipes show fiqa")
def recipes_show(
    name: Annotated[str, typer.Argument(help="The name of a shipped recipe.")],
    debug: DebugOption = False,
) -> None:
    """Print a recipe."""
    from pdadapt.settings.recipes import read_utf8, recipe_path

    typer.echo(printable(read_utf8(recipe_path(name))), nl=False)


@recipes_app.command("copy", epilog="Example: pdadapt recipes copy small mine.yaml")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="The name of a shipped recipe.")],
    file: Annotated[Path, typer.Argument(help="The new file.")],
    debug: DebugOption = False,
) -> None:
    """Copy a recipe to a new file, to change it there."""
    from pdadapt.errors import RecipeError
    from pdadapt.settings.recipes import read_utf8, recipe_path

    text = read_utf8(recipe_path(name))
    try:
        with open(file, "x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise RecipeError(f"{file} already exists. Give another name.") from None
    except OSError as error:
        raise RecipeError(f"{file} cannot be written ({error.strerror}). Give another name.") from None
    say(f"Wrote {file}. Use it with --recipe {shlex.quote(str(file))}")

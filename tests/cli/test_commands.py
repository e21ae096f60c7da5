"""The commands as a whole: their order, their help, and the options that two of them share."""

import shlex
from typing import Annotated

import pytest
import typer
from test_output import commands
from typer.testing import CliRunner

from pdadapt.cli.app import ORDER
from pdadapt.cli.commands import Commands, same_options
from pdadapt.cli.main import app

COMMANDS = {" ".join(path): command for path, command in commands()}


def test_help_lists_every_command_in_the_order_in_which_a_user_meets_it():
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split("Commands:")[1]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "][: len(ORDER)]
    assert tuple(names) == ORDER
    assert set(ORDER) == set(COMMANDS[""].commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_argument_and_option_has_a_help(name):
    command = COMMANDS[name]
    assert command.help and command.help.splitlines()[0].endswith(".")
    for parameter in command.params:
        assert parameter.help, f"{name}: {parameter.name} has no help"
        if parameter.param_type_name == "option":
            assert parameter.help.endswith((".", ")")), f"{name}: {parameter.name}"


def examples():
    for name, command in COMMANDS.items():
        if command.epilog:
            yield pytest.param(name, command.epilog, id=name or "pdadapt")


@pytest.mark.parametrize(("name", "epilog"), examples())
def test_the_example_of_a_help_parses(name, epilog, tmp_path, monkeypatch):
    """Every option in it exists and takes its value. Nothing runs."""
    monkeypatch.chdir(tmp_path)
    _, example = epilog.split("pdadapt ", 1)
    words = shlex.split(example)
    found = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    assert name in ("", found)
    context = COMMANDS[found].make_context(found, words[len(found.split()) :])
    assert all(context.params[option.name] is not None for option in COMMANDS[found].params if option.required)


def test_every_command_that_does_work_has_an_example():
    assert not [name for name, command in COMMANDS.items() if not command.epilog and name not in ("recipes", "labels")]


def described(command):
    """What an option is, but for its default."""
    return {
        option.name: (
            option.opts,
            option.secondary_opts,
            option.type_descriptor.annotation,
            option.multiple,
            option.help,
        )
        for option in command.params
    }


def test_train_msmarco_is_adapt_with_other_defaults():
    adapt, alias = COMMANDS["adapt"], COMMANDS["train-msmarco"]
    assert described(alias) == described(adapt)
    changed = {
        new.name: (old.default, new.default)
        for old, new in zip(adapt.params, alias.params, strict=True)
        if (old.default, old.required) != (new.default, new.required)
    }
    assert changed == {"corpus": (None, "msmarco"), "recipe": (None, "msmarco")}


def test_train_msmarco_takes_the_corpus_and_the_recipe_msmarco(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "msmarco").mkdir()
    said = CliRunner().invoke(app, ["train-msmarco"])
    assert said.exit_code == 1 and "msmarco has no corpus.jsonl" in str(said.exception)
    said = CliRunner().invoke(app, ["train-msmarco", "--recipe", "nope"])
    assert said.exit_code == 1 and "Recipe 'nope' not found" in str(said.exception)


def test_an_alias_passes_every_option_on():
    letters = Commands()
    seen = []

    @letters.command()
    def first(name: str, size: int = 1, word: Annotated[list[str] | None, typer.Option()] = None) -> None:
        seen.append((name, size, word))

    @letters.command()
    @same_options(first)
    def second(**options: object) -> None:
        first(**options)

    for command in ("first", "second"):
        given = [command, "a", "--size", "3", "--word", "x", "--word", "y"]
        assert CliRunner().invoke(letters, given).exit_code == 0
    assert seen == [("a", 3, ["x", "y"])] * 2
    said = CliRunner().invoke(letters, ["second", "a", "--size", "3", "--size", "4"])
    assert said.exit_code == 2 and "Give it once" in said.output


def test_a_run_folder_may_be_named_like_a_run_file(beir, encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "demo.run" / "iteration-1" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.symlink_to(encoder)
    (tmp_path / "demo.run" / "run.json").write_text("{}", encoding="utf-8")
    command = ["evaluate", "--corpus", str(beir), "--no-bm25", "--measures", "nDCG@10", "--out", "out"]
    for given in (["--model", "demo.run"], ["--model", "bm25", "--against", "demo.run"]):
        said = CliRunner().invoke(app, [*command, *given])
        assert said.exit_code == 0, said.output
        assert "demo.run/iteration-1/checkpoint" in (tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("given", [["--model", "nope.run"], ["--run", "nope.run"], ["--model=m", "--against=nope.run"]])
def test_a_missing_run_file_is_not_looked_for_as_a_model(given, beir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["evaluate", "--corpus", str(beir), *given])
    assert said.exit_code == 1 and "File nope.run not found" in str(said.exception)

"""A repeated option or setting is refused. Otherwise the last one would win silently."""

import json

import pytest
import typer
from test_output import commands
from typer.testing import CliRunner

from pdadapt.cli.main import app


def once_only():
    """(path, command, option) of every option that takes one value, or none."""
    for path, command in commands():
        for option in command.params:
            if option.param_type_name == "option" and not option.multiple and not option.is_eager:
                yield pytest.param(path, option, id=" ".join((*path, option.opts[0])))


def value_of(option):
    if option.is_flag:
        return []
    kind = option.type_descriptor
    return [
        "1" if kind.is_ranged else str(getattr(kind.choices[0], "value", kind.choices[0])) if kind.is_choice else "x"
    ]


@pytest.mark.parametrize(("path", "option"), once_only())
def test_every_command_refuses_a_repeated_option(path, option):
    for name in (*option.opts, *option.secondary_opts):
        given = [option.opts[0], *value_of(option), name, *value_of(option)]
        said = CliRunner().invoke(app, [*path, *given])
        assert said.exit_code == 2, said.output
        assert f"Invalid value for {option.opts[0]}: it is given 2 times. Give it once" in " ".join(said.output.split())


def test_an_option_with_and_without_an_equals_sign_is_repeated():
    said = CliRunner().invoke(app, ["evaluate", "--model=a", "--corpus", "demo", "--model", "a"])
    assert said.exit_code == 2
    assert "Give it once, and give the baseline as --against." in " ".join(said.output.split())
    assert CliRunner().invoke(app, ["--help", "--help"]).exit_code == 0


def test_a_short_and_a_long_form_are_the_same_option():
    from pdadapt.cli.commands import Commands

    letters = Commands()

    @letters.command()
    def only(out: str = typer.Option("", "--out", "-o")) -> None:
        print(out)

    assert CliRunner().invoke(letters, ["-o", "x"]).output == "x\n"
    said = CliRunner().invoke(letters, ["-o", "x", "--out", "x"])
    assert said.exit_code == 2 and "Invalid value for --out: it is given 2 times. Give it once." in said.output


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["seed=1", "seed=1"], "seed is set twice. Set it once."),
        (["seed=1", "train.steps=3", "seed=2"], "seed is set twice."),
        (
            ["teacher.pair={window: 4}", "teacher.pair.window=5"],
            "teacher.pair.window (in teacher.pair) is set twice. Set it once.",
        ),
        (["teacher.pair.window=5", "teacher={}"], "teacher.pair.window (in teacher) is set twice. Set it once."),
    ],
)
@pytest.mark.parametrize("command", ["adapt", "train-msmarco", "queries", "evaluate", "search", "rerank"])
def test_a_repeated_setting_is_refused(command, settings, said):
    needed = {"queries": ["x", "--out", "x"], "search": ["bm25", "x", "--corpus", "x"]}
    needed |= {"evaluate": ["--model", "bm25", "--corpus", "x"], "rerank": ["--corpus", "x", "--run", "x"]}
    given = [part for setting in settings for part in ("--set", setting)]
    found = CliRunner().invoke(app, [command, *needed.get(command, ["--corpus", "x"]), *given])
    assert found.exit_code == 2 and said in " ".join(found.output.split()), found.output


@pytest.mark.parametrize(
    "given",
    [
        ["adapt", "--corpus", "demo", "--recipe", "small", "--student", "x", "--set", "student.model=y"],
        ["adapt", "--corpus", "demo", "--recipe", "small", "--teacher", "x", "--set", "teacher={model: y}"],
        ["adapt", "--corpus", "demo", "--recipe", "small", "--iterations", "2", "--set", "iterations=1"],
        ["evaluate", "--corpus", "demo", "--model", "bm25", "--measures", "AP", "--set", "evaluate.measures=[RR]"],
        ["evaluate", "--corpus", "demo", "--model", "bm25", "--split", "dev", "--set", "evaluate.split=test"],
        ["train-reranker", "--corpus", "demo", "--out", "x", "--model", "x", "--set", "reranker.model=y"],
        ["rerank", "--corpus", "demo", "--run", "x", "--recipe", "small", "--teacher", "x", "--set", "teacher.model=y"],
    ],
)
def test_a_setting_and_its_option_together_are_refused(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, given)
    assert said.exit_code == 2 and "set by --set and by another option" in " ".join(said.output.split()), said.output


def test_the_given_split_is_measured(beir, tmp_path):
    (beir / "qrels" / "other.tsv").write_text("query-id\tcorpus-id\tscore\nq12\td0\t1\n", encoding="utf-8")
    for given in (["--split", "other"], ["--set", "evaluate.split=other"]):
        command = ["evaluate", "--corpus", str(beir), "--model", "bm25", "--out", str(tmp_path / "out"), *given]
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 0, said.output
        assert json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["test_queries"] == 1
    (beir / "qrels" / "other.tsv").unlink()

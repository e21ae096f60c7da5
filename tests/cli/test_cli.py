import os
import signal
import subprocess
import sys
import time

import pytest

from pdadapt.cli.options import changed_settings
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers.kind import model_of

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "140", "OMP_NUM_THREADS": "1"}


def pdadapt(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "pdadapt", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
    )


@pytest.mark.subprocess
def test_help_imports_nothing_heavy():
    script = (
        "import sys, pdadapt.cli.main\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'datasets', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    started = time.monotonic()
    process = pdadapt("--help")
    assert process.returncode == 0 and "adapt" in process.stdout and "evaluate" in process.stdout
    assert time.monotonic() - started < 5  # generous: a torch import alone would tell above


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["adapt", "--corpus", "nowhere", "--recipe", "small"], 1, "Corpus 'nowhere' not found"),
        (["adapt", "--corpus", "demo", "--recipe", "smal"], 1, "did you mean 'small'"),
        (["adapt", "--corpus", "demo", "--recipe", "small", "--set", "train.step=3"], 1, "did you mean train.steps?"),
        (["adapt", "--corpus", "demo", "--recipe", "small", "--set", "steps"], 1, "not of the form key=value"),
        (["adapt", "--corpus", "demo", "--recipe", "small", "--student", "./no"], 1, "neither a folder"),
        (["adapt", "--corpus", "demo", "--recipe", "paper", "--teacher", "x/nope"], 1, "hf download x/nope"),
        (["adapt"], 2, "--corpus"),
        (["adapt", "--corpus", "demo", "--iterations", "0"], 2, "iterations"),
        (
            ["evaluate", "--corpus", "demo", "--model", "m", "--set", "evaluate.measures=[nDGC@10]"],
            1,
            "evaluate.measures",
        ),
        (["recipes", "show", "nope"], 1, "not found"),
    ],
)
def test_an_error_is_one_sentence_with_a_remedy(arguments, code, message, tmp_path):
    process = pdadapt(*arguments, cwd=tmp_path)
    assert process.returncode == code
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    if code == 1:
        assert process.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.subprocess
def test_debug_shows_the_traceback(tmp_path):
    process = pdadapt("adapt", "--corpus", "nowhere", "--recipe", "small", "--debug", cwd=tmp_path)
    assert process.returncode == 1 and "Traceback" in process.stderr


@pytest.mark.subprocess
def test_recipes_are_listed_shown_and_copied(tmp_path):
    assert "climate-fever" in pdadapt("recipes").stdout
    shown = pdadapt("recipes", "show", "paper").stdout
    assert "flan-t5-xl" in shown
    assert pdadapt("recipes", "copy", "paper", tmp_path / "mine.yaml").returncode == 0
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == shown
    again = pdadapt("recipes", "copy", "small", tmp_path / "mine.yaml")
    assert again.returncode == 1 and "already exists" in again.stderr
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == shown


@pytest.mark.subprocess
def test_settings_are_listed():
    shown = pdadapt("recipes", "settings").stdout
    assert "teacher.pair.window" in shown and "Pairs per query" in shown


def test_a_given_teacher_replaces_those_of_the_recipe():
    given = changed_settings(None, {"teacher.model": "x", "teacher.pair.model": "y", "iterations": None})
    recipe = load_recipe("msmarco", given)
    assert (model_of(recipe.teacher, "point").model, model_of(recipe.teacher, "pair").model) == ("x", "y")
    recipe = load_recipe("msmarco", changed_settings(["teacher.point.model=z"], {"teacher.model": "x"}))
    assert (model_of(recipe.teacher, "point").model, model_of(recipe.teacher, "pair").model) == ("z", "x")
    assert changed_settings(["seed=1"], {"teacher.model": None}) == {"seed": 1}


@pytest.mark.subprocess
def test_evaluate_compares_two_models_and_leaves_their_runs(beir, encoder, stanford, tmp_path):
    process = pdadapt(
        "evaluate", "--corpus", beir, "--model", stanford, "--against", encoder, "--out", tmp_path / "out",
        "--set", "evaluate.resamples=100",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert (
        "bm25" in process.stdout
        and "against" in process.stdout
        and "model" in process.stdout
        and "Success@5" in process.stdout
    )
    runs = sorted((tmp_path / "out").glob("*.run"))
    assert runs[0].name == "bm25.run" and len(runs) == 3
    assert len(runs[0].read_text(encoding="utf-8").split("\n")[0].split()) == 6
    assert (tmp_path / "out" / "metrics.json").exists()
    assert not (tmp_path / "out" / "index").exists()


@pytest.mark.subprocess
def test_evaluate_without_judgments_says_what_is_missing(beir, encoder, tmp_path):
    process = pdadapt("evaluate", "--corpus", beir, "--model", encoder, "--split", "dev", "--out", tmp_path / "out")
    assert process.returncode == 1 and "qrels/dev.tsv" in process.stderr


def test_a_checkpoint_keeps_its_lengths_unless_others_are_given(beir, stanford, tmp_path):
    from pdadapt.students.colbert import get_lengths, load_colbert
    from pdadapt.students.pylate import save_colbert

    save_colbert(load_colbert(str(stanford), query_length=64, document_length=200), tmp_path / "model")
    assert get_lengths(load_colbert(str(tmp_path / "model"))) == (64, 200)
    assert get_lengths(load_colbert(str(tmp_path / "model"), document_length=20)) == (64, 20)


@pytest.mark.subprocess
def test_ctrl_c_exits_with_130_and_says_how_to_resume(tiny_recipe, beir, tmp_path):
    command = [
        sys.executable,
        "-m",
        "pdadapt",
        "adapt",
        "--corpus",
        beir,
        "--recipe",
        tiny_recipe,
        "--out",
        tmp_path / "r",
    ]
    process = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    )
    while not (tmp_path / "r" / "run.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.rstrip().endswith("Run the same command to continue.") and "Traceback" not in errors


@pytest.mark.subprocess
def test_ctrl_c_during_imports_prints_one_sentence():
    asking = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from pdadapt.__main__ import main

main()
"""
    process = subprocess.run([sys.executable, "-c", asking, "--version"], capture_output=True, text=True)
    assert process.returncode == 130 and process.stdout == ""
    assert process.stderr == "Stopped. Finished work is kept. Run the same command to continue.\n"


@pytest.mark.subprocess
def test_ctrl_c_at_exit_changes_nothing():
    leaving = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    process = subprocess.run(
        [sys.executable, "-c", leaving + "from pdadapt.__main__ import main; main()", "--version"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0 and process.stderr == "" and process.stdout.startswith("pdadapt ")

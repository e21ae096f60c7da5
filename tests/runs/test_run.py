import json
import os
import re
import socket
import subprocess
import sys

import pytest

from pdadapt.data.run_file import TrecRunFile, read_run, write_run
from pdadapt.errors import RunError
from pdadapt.runs.folder import RunFolder, last_checkpoint
from pdadapt.runtime.files import atomic_folder, write_atomic
from pdadapt.settings.schema import Recipe


def test_a_ranking_survives_the_trec_file(tmp_path):
    ranking = {"q1": [("d2", 1.5), ("d1", 0.25)], "q2": [("d1", -3.0)]}
    write_run(tmp_path / "x.run", ranking.items(), "tag")
    assert (tmp_path / "x.run").read_text(encoding="utf-8").splitlines()[0] == "q1 Q0 d2 1 1.500000 tag"
    assert read_run(tmp_path / "x.run") == ranking
    lazy = TrecRunFile(tmp_path / "x.run")
    assert dict(lazy) == ranking and lazy["q1"] == ranking["q1"] and lazy.sizes == {"q1": 2, "q2": 1}


def test_the_same_run_goes_on_and_more_iterations_may_be_asked(tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.locked():
        run.claim(Recipe(), {"corpus": "a"})
        run.claim(Recipe(), {"corpus": "a"})
        run.claim(Recipe(iterations=2), {"corpus": "a"})
        run.claim(Recipe(), {"corpus": "a"})  # the second has not begun
        run.claim(Recipe(iterations=2), {"corpus": "a"})
        run.iteration(2).mkdir()
        with pytest.raises(RunError, match="iterations was 2, now 1"):
            run.claim(Recipe(), {"corpus": "a"})


def test_a_run_killed_as_it_began_and_newer_packages_go_on(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / "recipe.yaml.part").write_text("see", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("{}", encoding="utf-8")
    with run.locked():
        run.claim(Recipe(), {"corpus": "a", "versions": {"torch": "1"}})
        run.claim(Recipe(), {"corpus": "a", "versions": {"torch": "2"}})


def begun(path, *files):
    """A run whose stages have left these."""
    run = RunFolder(path)
    run.claim(Recipe(), {"corpus": "a", "teachers": ["t"]})
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name, encoding="utf-8")
    return run


WHOLE = (
    "labels.sqlite",
    "student/model",
    "iteration-0/test.run",
    "iteration-0/bm25.run",
    "iteration-1/candidates.run",
    "iteration-1/lists.jsonl",
    "iteration-1/labels.json",
    "iteration-1/train.jsonl",
    "iteration-1/checkpoint/model",
    "iteration-1/test.run",
    "iteration-2/candidates.run",
    "metrics.json",
)


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_other_settings_or_another_corpus_are_refused_and_nothing_changes(tmp_path):
    run = begun(tmp_path, *WHOLE)
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"seed was 42, now 7 \(stage student\); corpus was .*--restart-from student"):
        run.claim(Recipe(seed=7), {"corpus": "b", "teachers": ["t"]})
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "stage", "kept"),
    [
        ({"evaluate": {"k": 5}}, "evaluate", [name for name in WHOLE if "test.run" not in name][:-1]),
        ({"train": {"learning_rate": 1}}, "train", WHOLE[:7]),
        ({"train": {"n_way": 9}}, "label", WHOLE[:5]),
        ({"train": {"list": "pairs"}}, "label", WHOLE[:5]),
        ({"teacher": {"pair": {"window": 5}}}, "label", WHOLE[:5]),
        ({"retrieve": {"k": 5}}, "retrieve", WHOLE[:2]),
        ({"retrieve": {"sources": ["bm25"]}}, "retrieve", WHOLE[:2]),
        ({"student": {"projection": 5}}, "student", WHOLE[:1]),
    ],
)
def test_a_changed_setting_names_its_stage_which_can_be_made_anew_with_those_after_it(tmp_path, change, stage, kept):
    run, origin = begun(tmp_path, *WHOLE), {"corpus": "a", "teachers": ["t"]}
    changed = Recipe.model_validate(change)
    with pytest.raises(RunError, match=f"--restart-from {stage}, or choose another --out"):
        run.claim(changed, origin)
    if stage != "evaluate":
        with pytest.raises(RunError, match=f"--restart-from {stage}"):
            run.claim(changed, origin, "evaluate")  # would keep what was made with the old setting
    assert set(WHOLE) <= set(contents(tmp_path))
    assert f"Redone from stage {stage}" in run.claim(changed, origin, stage)
    assert set(contents(tmp_path)) == {*kept, "recipe.yaml", "run.json"}
    before = contents(tmp_path)
    assert "nothing is redone" in run.claim(changed, origin, stage), "the same command again goes on"
    assert contents(tmp_path) == before


def test_settings_that_no_stage_has_read_may_change_and_that_is_said(tmp_path):
    run, origin = begun(tmp_path, *WHOLE[:7]), {"corpus": "a", "teachers": ["t"]}
    changed = Recipe.model_validate({"train": {"learning_rate": 1}, "evaluate": {"measures": ["AP"]}})
    with pytest.raises(RunError, match=r"evaluate\.measures"):
        run.claim(changed, origin)  # the base is ranked already
    (tmp_path / "iteration-0" / "test.run").unlink()
    assert "train.learning_rate was 1e-05, now 1.0" in run.claim(changed, origin)
    assert set(contents(tmp_path)) >= set(WHOLE[3:7])


def test_a_run_of_another_version_or_a_damaged_one_is_refused_and_kept(tmp_path):
    run = begun(tmp_path, *WHOLE)
    recipe = run.recipe_file.read_text(encoding="utf-8")
    run.recipe_file.write_text(recipe.replace("  steps:", "  rounds: 1\n  steps:", 1), encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"begun by pdadapt another version.*train\.rounds.*choose another --out"):
        run.claim(Recipe(), {"corpus": "a", "teachers": ["t"]})
    assert contents(tmp_path) == before
    run.recipe_file.write_text(recipe, encoding="utf-8")
    run.run_file.write_text('{"corp', encoding="utf-8")
    with pytest.raises(RunError, match="damaged run"):
        run.claim(Recipe(), {"corpus": "a", "teachers": ["t"]})


def test_the_teacher_may_change_until_it_has_labeled_a_list(tmp_path):
    run = begun(tmp_path, *WHOLE[:5])
    other = Recipe.model_validate({"teacher": {"model": "another", "pair": {"order": "random"}}})
    run.claim(other, {"corpus": "a", "teachers": ["b"]})
    assert json.loads(run.run_file.read_text(encoding="utf-8"))["teachers"] == ["b"]
    (run.iteration(1) / "lists.jsonl").touch()
    with pytest.raises(RunError, match=r"teacher\.model was 'another'.*teachers was"):
        run.claim(Recipe(), {"corpus": "a", "teachers": ["t"]})
    run.claim(other, {"corpus": "a", "teachers": ["b"]})


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious", encoding="utf-8")
    run = RunFolder(tmp_path)
    with run.locked(), pytest.raises(RunError, match="holds no run"):
        run.claim(Recipe(), {})
    assert (tmp_path / "thesis.tex").read_text(encoding="utf-8") == "precious"


@pytest.mark.subprocess
def test_a_folder_in_use_is_locked_and_a_dead_process_leaves_no_lock(tmp_path):
    script = f"""
import sys, time
from pathlib import Path
from pdadapt.runs.folder import RunFolder
with RunFolder(Path({str(tmp_path)!r})).locked():
    print("in", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    host = re.escape(socket.gethostname())
    with pytest.raises(RunError, match=f"process {process.pid} on {host}"), RunFolder(tmp_path).locked():
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with RunFolder(tmp_path).locked():
        pass


def test_files_and_folders_appear_whole_or_not_at_all(tmp_path):
    write_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder") as folder:
        (folder / "half").write_text("x", encoding="utf-8")
        raise RuntimeError
    assert not (tmp_path / "folder").exists()
    with atomic_folder(tmp_path / "folder") as folder:
        assert not (folder / "half").exists()
        (folder / "whole").write_text("x", encoding="utf-8")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["whole"]


def test_a_run_folder_as_a_model_means_its_last_checkpoint(tmp_path):
    assert last_checkpoint("google/x") == "google/x"
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="no checkpoint yet"):
        last_checkpoint(str(tmp_path))
    for number in (1, 2, 10):
        (tmp_path / f"iteration-{number}" / "checkpoint").mkdir(parents=True)
    assert last_checkpoint(str(tmp_path)).endswith("iteration-10/checkpoint")


def test_settings_of_memory_may_change_when_a_run_goes_on(tmp_path):
    run = RunFolder(tmp_path)
    with run.locked():
        run.claim(Recipe(), {})
        run.claim(Recipe.model_validate({"train": {"chunk_tokens": 512}, "teacher": {"batch_tokens": 512}}), {})
        (tmp_path / "metrics.json").touch()
        with pytest.raises(RunError, match=r"label_store=.*labels\.sqlite"):
            run.claim(Recipe.model_validate({"train": {"learning_rate": 1}}), {})


def test_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written to"), RunFolder(tmp_path / "file").locked():
        pass


def test_files_of_a_folder_are_readable_as_the_umask_says(tmp_path):
    with atomic_folder(tmp_path / "out") as out:
        (out / "model").touch(mode=0o600)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "out" / "model").stat().st_mode & 0o777 == 0o666 & ~mask

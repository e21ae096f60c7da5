"""The loop end to end, with tiny real models, as the command line runs it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_files import schema
from sentence_transformers import SentenceTransformer

from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import read_run
from pdadapt.errors import DataError, RunError
from pdadapt.labeling import ask
from pdadapt.labeling.store import LabelStore
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers.causal import CausalTeacher
from pdadapt.teachers.label_key import teacher_keys
from pdadapt.training import pairdistill_loss


def command(tiny_recipe, beir, out, *more):
    arguments = ["adapt", "--corpus", str(beir), "--recipe", str(tiny_recipe), "--out", str(out), *more]
    return [sys.executable, "-m", "pdadapt", *arguments]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def run_command(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


def results(out: Path) -> dict[str, bytes]:
    """Everything a run is for: what must be the same bytes however often it was stopped."""
    names = ["lists.jsonl", "candidates.run", "test.run", "train.jsonl", "checkpoint/model.safetensors"]
    files = [file for name in names for file in sorted(out.glob(f"iteration-*/{name}"))]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def finished(tiny_recipe, beir, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run_command(tiny_recipe, beir, out)


@pytest.mark.subprocess
def test_one_command_leaves_a_run_folder_that_can_be_read(finished, beir):
    out, process = finished
    assert process.returncode == 0, process.stderr
    assert "base" in process.stdout and "adapted" in process.stdout and "nDCG@10" in process.stdout
    assert "6 test queries, 20 documents" in process.stdout
    for stage in ("index", "label points", "label pairs", "train"):
        assert stage in process.stderr
    candidates = read_run(out / "iteration-1" / "candidates.run")
    assert len(candidates) == 12 and all(len(ranked) == 8 for ranked in candidates.values())
    lists = [json.loads(line) for line in (out / "iteration-1" / "lists.jsonl").read_text().splitlines()]
    assert all(len(entry["doc_ids"]) == 6 and len(entry["pairs"]) == 4 for entry in lists)
    with sqlite3.connect(out / "labels.sqlite") as db:
        assert db.execute("SELECT count(*) FROM points").fetchone()[0] >= 80
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["measures"]) == {"nDCG@10", "RR@10", "R@100", "Success@5"}
    assert metrics["labels"][0]["pairs"] == 48
    assert "llama" in (out / "recipe.yaml").read_text(encoding="utf-8")
    assert f"Report: {out / 'report.html'}" in process.stdout
    assert "nDCG@10" in (out / "report.html").read_text(encoding="utf-8") and not (out / "progress.json").exists()
    assert not list(out.rglob("*.part")) and not list(out.rglob("index"))
    assert Path(metrics["checkpoint"]).is_dir()


@pytest.mark.subprocess
def test_metrics_json_has_the_keys_and_types_that_others_read(finished, golden):
    out, _ = finished
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    golden("schemas.txt").check("metrics.json", schema(metrics, maps=["$.measures", "$.most_changed"]))
    golden("schemas.txt").check_names(["metrics.json"])


@pytest.mark.subprocess
def test_the_same_command_again_says_it_is_finished(finished, tiny_recipe, beir):
    out, _ = finished
    before = results(out)
    process = run_command(tiny_recipe, beir, out)
    assert process.returncode == 0 and "already finished" in process.stdout and "nDCG@10" in process.stdout
    assert results(out) == before


@pytest.mark.subprocess
def test_the_same_command_elsewhere_gives_the_same_bytes(finished, tiny_recipe, beir, tmp_path):
    process = run_command(tiny_recipe, beir, tmp_path / "other")
    assert process.returncode == 0, process.stderr
    assert results(tmp_path / "other") == results(finished[0])


@pytest.mark.subprocess
@pytest.mark.parametrize("moment", ["labels.sqlite", "iteration-1/lists.jsonl", "iteration-1/trainer/checkpoint-2"])
def test_killed_with_sigkill_it_continues_to_the_same_bytes(finished, tiny_recipe, beir, tmp_path, moment):
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(tiny_recipe, beir, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 120
    while not (out / moment).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "metrics.json").exists(), "killed too late to prove anything"
    again = run_command(tiny_recipe, beir, out)
    assert again.returncode == 0, again.stderr
    assert results(out) == results(finished[0])


@pytest.mark.subprocess
def test_a_second_iteration_continues_from_the_first_and_asks_only_what_is_new(finished, tiny_recipe, beir):
    out, _ = finished
    first = results(out)
    process = run_command(tiny_recipe, beir, out, "--iterations", "2")
    assert process.returncode == 0, process.stderr
    assert "iteration 1" in process.stdout and "iteration 2" in process.stdout
    after = results(out)
    assert {name: after[name] for name in first} == first
    assert after["iteration-2/checkpoint/model.safetensors"] != first["iteration-1/checkpoint/model.safetensors"]
    figures = json.loads((out / "iteration-2" / "labels.json").read_text(encoding="utf-8"))
    assert figures["points_asked"] < figures["points"]


@pytest.mark.slow
def test_a_shared_label_store_leaves_nothing_to_ask(tiny_recipe, beir, tmp_path):
    recipe = load_recipe(str(tiny_recipe), {"label_store": str(tmp_path / "shared.sqlite")})
    dataset = load_dataset(str(beir))
    adapt(recipe, dataset, tmp_path / "one", Progress())
    metrics = adapt(recipe, dataset, tmp_path / "two", Progress())
    assert metrics.labels[0].points_asked == metrics.labels[0].pair_prompts_asked == 0


@pytest.mark.slow
def test_a_t5_teacher_and_a_stanford_student_run_the_same_loop(tiny_recipe, beir, tmp_path, t5, stanford):
    recipe = load_recipe(str(tiny_recipe), {"teacher.model": str(t5), "student.model": str(stanford), "train.steps": 2})
    metrics = adapt(recipe, load_dataset(str(beir)), tmp_path / "run", Progress())
    assert metrics.labels[0].pair_prompts_asked > 0


@pytest.mark.slow
def test_a_dense_student_runs_the_same_loop(tiny_recipe, beir, tmp_path, encoder):
    overrides = {"student.kind": "dense", "student.model": str(encoder), "train.steps": 2}
    metrics = adapt(load_recipe(str(tiny_recipe), overrides), load_dataset(str(beir)), tmp_path / "run", Progress())
    assert len(metrics.measures["nDCG@10"].means) == 2
    assert SentenceTransformer(str(tmp_path / "run/iteration-1/checkpoint")).similarity_fn_name == "dot"


@pytest.mark.subprocess
def test_without_judgments_there_is_a_checkpoint_and_no_table(tiny_recipe, beir, tmp_path):
    (tmp_path / "q.txt").write_text("spoke tension\npad squeal\nchain cable\n", encoding="utf-8")
    process = subprocess.run(
        command(tiny_recipe, beir / "corpus.jsonl", tmp_path / "run", "--queries", str(tmp_path / "q.txt")),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.returncode == 0, process.stderr
    assert "no measures were computed" in process.stdout
    assert (tmp_path / "run" / "iteration-1" / "checkpoint" / "model.safetensors").exists()


def test_problems_are_found_before_any_work(tiny_recipe, beir, tmp_path):
    dataset = load_dataset(str(beir))
    same = Corpus([Document(f"d{number}", "", "true the rim") for number in range(3)])
    with pytest.raises(DataError, match="All documents of corpus"):
        adapt(load_recipe(str(tiny_recipe)), replace(dataset, corpus=same), tmp_path / "run", Progress())
    assert not (tmp_path / "run").exists()


@pytest.mark.subprocess
def test_adapt_with_other_settings_leaves_the_run_unchanged(finished, tiny_recipe, beir):
    out, _ = finished
    before = results(out)
    with pytest.raises(RunError, match=r"train\.learning_rate was 0\.001, now 0\.1"):
        adapt(load_recipe(str(tiny_recipe), {"train.learning_rate": 0.1}), load_dataset(str(beir)), out, Progress())
    assert results(out) == before


@pytest.mark.slow
def test_when_memory_runs_out_training_goes_on_from_its_last_state_with_smaller_chunks(
    tiny_recipe, beir, tmp_path, monkeypatch
):
    settings = {"student.dtype": "float32", "train.dropout": 0, "train.document_length": 64, "train.chunk_tokens": 1024}
    recipe = load_recipe(str(tiny_recipe), settings)
    adapt(recipe, load_dataset(str(beir)), tmp_path / "roomy", Progress())
    encode, steps = pairdistill_loss.PairDistillLoss.encode_documents, []

    def full(self, features):
        steps.append(self.settings.chunk_tokens)
        if len(steps) > 4 and self.settings.chunk_tokens > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, features)

    monkeypatch.setattr(pairdistill_loss.PairDistillLoss, "encode_documents", full)
    adapt(recipe, load_dataset(str(beir)), tmp_path / "tight", Progress())
    assert sorted(set(steps), reverse=True) == [1024, 512, 256]
    assert steps.count(256) == 10 * 4, "it went on after the two steps that there was memory for, in parts of a query"
    assert json.loads((tmp_path / "tight" / "memory.json").read_text(encoding="utf-8"))["train"] == 256
    roomy, tight = (read_run(tmp_path / name / "iteration-1" / "test.run") for name in ("roomy", "tight"))
    for query_id, ranked in roomy.items():  # the gradient is the same up to rounding, which AdamW makes larger
        assert dict(tight[query_id]) == pytest.approx(dict(ranked), abs=0.02)


@pytest.mark.subprocess
def test_a_changed_setting_makes_its_stage_anew_and_asks_no_label_twice(tiny_recipe, beir, tmp_path):
    out = tmp_path / "run"
    whole = run_command(tiny_recipe, beir, out)
    assert whole.returncode == 0 and "made anew" not in whole.stderr
    before = results(out)
    rate = ["--set", "train.learning_rate=5.0e-3"]
    refused = run_command(tiny_recipe, beir, out, *rate)
    assert refused.returncode == 1 and "--restart-from train" in refused.stderr and results(out) == before
    again = run_command(tiny_recipe, beir, out, *rate, "--restart-from", "train")
    assert again.returncode == 0 and "Redone from stage train" in again.stderr, again.stderr
    assert "label" not in again.stderr.replace("Labels", "")
    after = results(out)
    same = {name for name in before if before[name] == after[name]}
    assert same == {"iteration-0/test.run", "iteration-1/lists.jsonl", "iteration-1/candidates.run"}
    once_more = run_command(tiny_recipe, beir, out, *rate, "--restart-from", "train")
    assert "already finished" in once_more.stdout and results(out) == after


def stopped_at_pairs(recipe, beir, out, monkeypatch):
    """A run that was stopped when half of its pairs were labeled."""
    real = CausalTeacher.score_pairs

    def half(self, chunks):
        for number, batch in enumerate(real(self, chunks)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CausalTeacher, "score_pairs", half)
        adapt(recipe, load_dataset(str(beir)), out, Progress())
    return count(out, "pairs")


def count(out, table):
    with sqlite3.connect(out / "labels.sqlite") as database:
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.mark.slow
def test_a_prompt_that_changed_while_pairs_were_labeled_is_named_and_its_pairs_are_asked_anew(
    tiny_recipe, beir, tmp_path, monkeypatch
):
    prompt, out = tmp_path / "pairs.txt", tmp_path / "run"
    prompt.write_text("{query} A: {document_a} B: {document_b}", encoding="utf-8")
    recipe = load_recipe(str(tiny_recipe), {"teacher.pair.prompt": str(prompt), "train.steps": 1})
    assert 0 < stopped_at_pairs(recipe, beir, out, monkeypatch) < 96
    points = count(out, "points")
    prompt.write_text("{query} first: {document_a} second: {document_b}", encoding="utf-8")
    with pytest.raises(RunError, match=r"the prompt for pairs changed \(stage label\).*--restart-from label"):
        adapt(recipe, load_dataset(str(beir)), out, Progress())
    metrics = adapt(recipe, load_dataset(str(beir)), out, Progress(), restart_from="label")
    assert metrics.labels[0].pairs == 48 and metrics.labels[0].pairs_unanswered == 0
    assert count(out, "points") == points, "points are not asked again"
    prompt.write_text("{query} one: {document_a} two: {document_b}", encoding="utf-8")
    with pytest.raises(RunError, match=r"the prompt for pairs changed \(stage label\)"):
        adapt(recipe, load_dataset(str(beir)), out, Progress())  # of a run that has ended, too


@pytest.mark.slow
def test_a_label_store_that_was_replaced_is_asked_again(tiny_recipe, beir, tmp_path, monkeypatch):
    out = tmp_path / "run"
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 1})
    stopped_at_pairs(recipe, beir, out, monkeypatch)
    (out / "labels.sqlite").unlink()
    with LabelStore(out / "labels.sqlite", "points", teacher_keys(recipe)["point"]) as store:
        store.add([(("a query", "of another run"), 1.0)])
    metrics = adapt(recipe, load_dataset(str(beir)), out, Progress())
    labels = metrics.labels[0]
    assert labels.points_unanswered == labels.pairs_unanswered == 0 and labels.pairs == 48


@pytest.mark.slow
def test_labels_that_the_store_lost_are_not_taken_for_unanswered(tiny_recipe, beir, tmp_path, monkeypatch):
    out = tmp_path / "run"
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 1})
    monkeypatch.setattr(ask, "TARGET_CHUNKS", 4)
    monkeypatch.setattr(ask, "MIN_CHUNK_QUESTIONS", 1)
    stopped_at_pairs(recipe, beir, out, monkeypatch)
    with sqlite3.connect(out / "labels.sqlite") as database:  # as a backup would be
        database.execute("DELETE FROM points WHERE score > (SELECT avg(score) FROM points)")
    with pytest.raises(RunError, match=r"labels\.sqlite lacks \d+ labels .*Repeat the same command"):
        adapt(recipe, load_dataset(str(beir)), out, Progress())
    assert not (out / "iteration-1" / "lists.jsonl").exists()
    labels = adapt(recipe, load_dataset(str(beir)), out, Progress()).labels[0]
    assert labels.points_unanswered == labels.pairs_unanswered == 0 and labels.pairs == 48


@pytest.mark.slow
def test_a_run_keeps_its_teachers_precision_on_a_machine_that_would_choose_another(
    tiny_recipe, beir, tmp_path, monkeypatch, capsys
):
    out, recipe = tmp_path / "run", load_recipe(str(tiny_recipe), {"train.steps": 1, "teacher.dtype": "auto"})
    with monkeypatch.context() as patch:
        patch.setattr(
            "pdadapt.preflight.dtype_name", lambda name: "float32" if name == "auto" else name
        )  # where `auto` means that
        asked = stopped_at_pairs(recipe, beir, out, patch)
    monkeypatch.setattr("pdadapt.preflight.dtype_name", lambda name: "bfloat16" if name == "auto" else name)
    capsys.readouterr()
    metrics = adapt(recipe, load_dataset(str(beir)), out, Progress())
    assert "compute in float32" in (said := " ".join(capsys.readouterr().err.split()))
    assert "add --set teacher.dtype=bfloat16 --restart-from label" in said
    assert metrics.labels[0].pairs_unanswered == 0 and asked > 0
    with sqlite3.connect(out / "labels.sqlite") as database:
        keys = [json.loads(key)["dtype"] for (key,) in database.execute("SELECT key FROM teachers")]
    assert set(keys) == {"float32"}

"""Labeling in shards: many processes, one run."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError, RunError
from pdadapt.labeling import ask, questions, store
from pdadapt.labeling.exchange import read_label_rows
from pdadapt.labeling.shards import LabelShard, label_shard, merge_shards, parse_shard
from pdadapt.labeling.store import LabelStore, merge_labels, open_frozen
from pdadapt.pipeline import adapt
from pdadapt.runtime.locks import locked
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers.load import Teachers


@pytest.fixture
def few(monkeypatch):
    """Small chunks, so that there are shards to make."""
    monkeypatch.setattr(ask, "QUESTIONS_PER_CHUNK", 12)
    monkeypatch.setattr(questions, "CHUNK_FACTOR_BY_DOCUMENT", 1)


def begin(recipe, beir, out):
    assert adapt(recipe, load_dataset(str(beir)), out, Progress(), stop_before_labeling=True) is None
    assert (out / "iteration-1" / "candidates.run").exists() and not (out / "iteration-1" / "lists.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["causal", "active", "around pairs", "likelihood", "bi_encoder"])
def test_shards_merged_in_any_order_are_the_labels_of_one_process(tiny_recipe, beir, encoder, tmp_path, few, kind):
    changes = {"train.steps": 1}
    if kind in ("active", "around pairs"):
        changes |= {"teacher.pair.strategy": "active", "teacher.pair.rounds": 3}
    if kind == "around pairs":
        changes |= {"train.list": "pairs", "train.n_way": 3}
    if kind == "likelihood":
        changes |= {"teacher.point.scoring": "query_likelihood", "teacher.point.prompt": "query-likelihood"}
    if kind == "bi_encoder":
        changes |= {"teacher.point.model": str(encoder), "teacher.point.kind": "bi_encoder"}
    recipe = load_recipe(str(tiny_recipe), changes)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    adapt(recipe, load_dataset(str(beir)), whole, Progress())
    begin(recipe, beir, parts)
    rounds = 2 if kind in ("likelihood", "bi_encoder") else 1  # of points by document pairs want those of all shards
    for _ in range(rounds):
        files = [label_shard(parts, LabelShard(number, 3), Progress()) for number in (2, 3, 1)]
        counts = [len(list(read_label_rows(file))) for file in files]
        assert all(counts) and max(counts) < sum(counts)
        for order in (files, files[::-1], files[:1], []):
            merge_shards(parts, order)
    asked = sorted(row["score"] for row in read_label_rows(parts / "labels.sqlite"))
    adapt(recipe, load_dataset(str(beir)), parts, Progress())
    expected = list(read_label_rows(whole / "labels.sqlite"))
    assert asked == sorted(row["score"] for row in expected), "adapt has nothing left to ask"
    assert list(read_label_rows(parts / "labels.sqlite")) == expected
    for name in ("lists.jsonl", "checkpoint/model.safetensors"):
        assert (parts / "iteration-1" / name).read_bytes() == (whole / "iteration-1" / name).read_bytes()


@pytest.mark.slow
def test_a_shard_asks_nothing_that_is_known_and_goes_on_where_it_was(tiny_recipe, beir, tmp_path, few, monkeypatch):
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 1})
    adapt(recipe, load_dataset(str(beir)), tmp_path / "whole", Progress())
    begin(recipe, beir, tmp_path / "run")
    shutil.copy(tmp_path / "whole" / "labels.sqlite", tmp_path / "run" / "labels.sqlite")
    file = label_shard(tmp_path / "run", LabelShard(1, 2), Progress())
    assert list(read_label_rows(file)) == []
    (tmp_path / "run" / "labels.sqlite").unlink()
    file.unlink()
    file.with_suffix(".jsonl").unlink()
    label_shard(tmp_path / "run", LabelShard(1, 2), Progress())
    before = list(read_label_rows(file))
    assert before
    monkeypatch.setattr(Teachers, "__call__", lambda *_: pytest.fail("nothing is left to ask"))
    label_shard(tmp_path / "run", LabelShard(1, 2), Progress())
    assert list(read_label_rows(file)) == before


@pytest.mark.slow
def test_merging_never_changes_a_label_that_is_there(tmp_path):
    """A run may have chosen its pairs by it."""
    stores, key = [], '{"task": "point"}'
    for name, score in (("a", 1.0), ("b", -2.0), ("c", 0.5)):
        stores.append(tmp_path / name)
        with LabelStore(tmp_path / name, "points", key) as store:
            store.add([(("q", "d"), score), (("q", name), score)])
    for number, order in enumerate((stores, stores[::-1], stores * 2)):
        target = tmp_path / f"target-{number}"
        counts = [merge_labels(store, target, {"points": key, "pairs": '{"task": "pair"}'}) for store in order]
        assert counts == [2, 1, 1, 0, 0, 0][: len(order)]
        with LabelStore(target, "points", key) as merged:
            first = [1.0, -2.0, 0.5][stores.index(order[0])]
            assert [merged.get(("q", name)) for name in "dabc"] == [first, 1.0, -2.0, 0.5]


def test_labels_of_another_precision_are_refused_since_they_would_never_serve(tmp_path):
    shard, target = tmp_path / "shard.sqlite", tmp_path / "labels.sqlite"
    key = '{"dtype": "bfloat16", "task": "point"}'
    with LabelStore(shard, "points", key, "a teacher") as store:
        store.store_texts("query", [("q1", "q")])
        store.store_texts("document", [("d1", "d")])
        store.add([(("q", "d"), 1.5)])
    shard.chmod(0o400)
    with pytest.raises(DataError, match="dtype 'bfloat16', not 'float32'"):
        merge_labels(shard, target, {"points": '{"dtype": "float32", "task": "point"}'})
    assert merge_labels(shard, target, {"points": key}) == 1
    (row,) = read_label_rows(target)
    assert row["model"] == "a teacher"
    assert (row["query_id"], row["doc_id"], row["score"]) == ("q1", "d1", 1.5)


def test_merge_copies_everything_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TEXTS_PER_TRANSACTION", 3)
    shard, target, keys = tmp_path / "shard.sqlite", tmp_path / "l.sqlite", {"points": '"p"', "pairs": '"q"'}
    rows = [((f"q{i % 5}", f"d{i}"), float(i)) for i in range(40)]
    with LabelStore(shard, "points", '"p"') as points, LabelStore(shard, "pairs", '"q"') as pairs:
        points.store_texts("document", ((f"id{i}", f"d{i}") for i in range(40)))
        points.add(rows)
        pairs.add([((query, document, "other"), score) for (query, document), score in rows])
    with LabelStore(target, "points", '"p"') as before:  # whose texts have other ids
        before.add([(("x", "y"), 0.5), *rows[::2]])
    assert merge_labels(shard, target, keys) == 20 + 40
    assert merge_labels(shard, target, keys) == 0
    with LabelStore(target, "points", '"p"') as points, LabelStore(target, "pairs", '"q"') as pairs:
        assert [points.get(texts) for texts, _ in rows] == [score for _, score in rows]
        assert [pairs.get((*texts, "other")) for texts, _ in rows] == [score for _, score in rows]
    assert {row["doc_id"] for row in read_label_rows(target) if row["document"] != "y"} == {f"id{i}" for i in range(40)}


def test_merge_keeps_the_name_of_the_teacher(tmp_path):
    shard, target, key = tmp_path / "shard.sqlite", tmp_path / "labels.sqlite", '{"task": "point"}'
    with LabelStore(shard, "points", key, "a teacher") as store:
        store.add([(("q", "d"), 1.5)])
    merge_labels(shard, target, {"points": key})
    assert [row["model"] for row in read_label_rows(target)] == ["a teacher"]


@pytest.mark.subprocess
def test_merge_reads_the_write_ahead_log_of_a_killed_shard(tmp_path):
    """A process that is killed leaves its last labels in the log beside the file."""
    store = tmp_path / "labels.sqlite"
    leave = f"""
import os
from pathlib import Path
from pdadapt.labeling.store import LabelStore

store = LabelStore(Path({str(store)!r}), "points", "key")
store.add([(("q", "d"), 1.5)])
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", leave], check=False)
    assert store.with_name("labels.sqlite-wal").exists()
    with contextlib.closing(open_frozen(store, "points", "key")) as labels:
        assert labels.get(("q", "d")) == 1.5
    (tmp_path / "empty").touch()
    assert open_frozen(tmp_path / "empty", "points", "key") is None


@pytest.mark.slow
def test_a_file_of_something_else_in_a_shards_place_is_refused_and_kept(tiny_recipe, beir, tmp_path, few):
    run = tmp_path / "run"
    begin(load_recipe(str(tiny_recipe)), beir, run)
    file = run / "iteration-1" / "shards" / "1-of-2.sqlite"
    file.parent.mkdir()
    with LabelStore(file, "points", '{"task": "point", "prompt": "another"}') as store:
        store.add([(("q", "d"), 1.0)])
    before = file.read_bytes()
    for attempt in (lambda: label_shard(run, LabelShard(1, 2), Progress()), lambda: merge_shards(run)):
        with pytest.raises(DataError, match=r"prompt 'another', not .*Remove the file and label the shard again"):
            attempt()
    assert file.read_bytes() == before
    file.write_bytes(b"nothing of the kind" * 99)
    for attempt in (lambda: label_shard(run, LabelShard(1, 2), Progress()), lambda: merge_shards(run)):
        with pytest.raises(DataError, match=r"is not a label store .*label the shard again"):
            attempt()


@pytest.mark.slow
def test_a_restart_takes_no_labels_away_that_are_in_shards_alone(tiny_recipe, beir, tmp_path, few):
    run = tmp_path / "run"
    begin(load_recipe(str(tiny_recipe)), beir, run)
    file = label_shard(run, LabelShard(1, 1), Progress())
    other = load_recipe(str(tiny_recipe), {"retrieve.k": 3})
    with pytest.raises(RunError, match=r"has shards whose labels would be lost \(1-of-1\).*labels merge"):
        adapt(other, load_dataset(str(beir)), run, Progress(), restart_from="retrieve")
    assert file.exists()
    merge_shards(run, [Path(os.path.relpath(file))])
    adapt(other, load_dataset(str(beir)), run, Progress(), restart_from="retrieve", stop_before_labeling=True)
    assert not file.exists()


def test_label_shard_says_when_it_has_no_chunk(tiny_recipe, beir, tmp_path, capsys):
    begin(load_recipe(str(tiny_recipe)), beir, tmp_path / "run")
    label_shard(tmp_path / "run", LabelShard(2, 2), Progress())
    assert "nothing for this shard: 12 queries make 1 chunks" in capsys.readouterr().err


@pytest.mark.slow
def test_a_journal_whose_store_is_gone_says_nothing(tiny_recipe, beir, tmp_path, few):
    begin(load_recipe(str(tiny_recipe)), beir, tmp_path / "run")
    file = label_shard(tmp_path / "run", LabelShard(1, 2), Progress())
    expected = list(read_label_rows(file))
    file.unlink()
    label_shard(tmp_path / "run", LabelShard(1, 2), Progress())
    assert list(read_label_rows(file)) == expected != []


@pytest.mark.slow
def test_status_says_which_shards_are_being_labeled(tiny_recipe, beir, tmp_path, few):
    run = tmp_path / "run"
    begin(load_recipe(str(tiny_recipe)), beir, run)
    label_shard(run, LabelShard(2, 2), Progress())
    said = CliRunner().invoke(app, ["status", str(run)]).output
    assert "Stopped" in said and "Candidates are waiting for labels" in said
    with locked(run, shared=True), locked(run / "iteration-1" / "shards" / "1-of-2.lock"):
        said = CliRunner().invoke(app, ["status", str(run)]).output
    said = " ".join(said.split())
    assert f"Shards of 2: 1 being labeled (1: process {os.getpid()} on" in said and "1 labeled, not merged." in said
    merge_shards(run)
    said = " ".join(CliRunner().invoke(app, ["status", str(run)]).output.split())
    assert "Shards of 2: 1 not begun (1); 1 labeled." in said


def test_labels_of_another_prompt_are_refused_and_nothing_is_taken(tiny_recipe, beir, tmp_path):
    recipe = load_recipe(str(tiny_recipe))
    begin(recipe, beir, tmp_path / "run")
    with LabelStore(tmp_path / "foreign.sqlite", "points", '{"prompt": "another"}') as store:
        store.add([(("q", "d"), 1.0)])
    with pytest.raises(DataError, match=r"foreign\.sqlite holds labels of another teacher or prompt .*another"):
        merge_shards(tmp_path / "run", [tmp_path / "foreign.sqlite"])
    with sqlite3.connect(tmp_path / "run" / "labels.sqlite") as database:
        assert database.execute("SELECT count(*) FROM points").fetchone() == (0,)


def test_under_a_launcher_nobody_waits_for_labels_that_do_not_come(tiny_recipe, beir, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="--stop-before-labeling works in one process only"):
        begin(load_recipe(str(tiny_recipe)), beir, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_label_shard_and_merge_refuse_runs_without_work(tiny_recipe, beir, tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        label_shard(tmp_path, LabelShard(1, 1), Progress())
    copied = tmp_path / "data"
    shutil.copytree(beir, copied)
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 1})
    begin(recipe, copied, tmp_path / "run")
    with pytest.raises(RunError, match=r"has no shards\. Make them with"):
        merge_shards(tmp_path / "run")
    adapt(recipe, load_dataset(str(copied)), tmp_path / "run", Progress())
    with pytest.raises(RunError, match=r"No candidates .* wait for labels"):
        label_shard(tmp_path / "run", LabelShard(1, 1), Progress())
    begin(recipe, copied, tmp_path / "other")
    with open(copied / "queries.jsonl", "a", encoding="utf-8") as queries:
        queries.write('{"_id": "q99", "text": "another"}\n')
    with pytest.raises(RunError, match=r"Since .*other was begun: the queries changed\. Restore"):
        label_shard(tmp_path / "other", LabelShard(1, 1), Progress())


@pytest.mark.slow
def test_a_shard_is_not_labeled_or_merged_with_another_prompt_than_the_run_was_begun_with(tiny_recipe, beir, tmp_path):
    prompt, run = tmp_path / "pair.txt", tmp_path / "run"
    prompt.write_text("{query} {document_a} {document_b}", encoding="utf-8")
    begin(load_recipe(str(tiny_recipe), {"teacher.pair.prompt": str(prompt)}), beir, run)
    label_shard(run, LabelShard(1, 2), Progress())
    prompt.write_text("{query} A: {document_a} B: {document_b}", encoding="utf-8")
    for attempt in (lambda: label_shard(run, LabelShard(2, 2), Progress()), lambda: merge_shards(run)):
        with pytest.raises(RunError, match=r"was begun: the prompt for pairs changed\. Restore"):
            attempt()
    assert not (run / "labels.sqlite").exists()


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/2/3", "-1/2", "1/0"])
def test_parse_shard_takes_a_number_and_a_count(text):
    assert parse_shard("3/16") == LabelShard(3, 16)
    with pytest.raises(ValueError, match="write I/N"):
        parse_shard(text)


@pytest.mark.slow
def test_label_and_merge_commands_finish_a_run(tiny_recipe, beir, tmp_path):
    def run(*command):
        result = CliRunner().invoke(app, [str(part) for part in command])
        assert result.exit_code == 0, result.output
        return result.output.replace("\n", " ")

    out = tmp_path / "run"
    adapt_command = ["adapt", "--corpus", beir, "--recipe", tiny_recipe, "--out", out, "--set", "train.steps=1"]
    said = run(*adapt_command, "--stop-before-labeling")
    assert f"pdadapt label {out} --shard 1/16" in said and f"pdadapt labels merge {out}" in said
    for shard in ("1/2", "2/2"):
        assert f"pdadapt labels merge {out}" in run("label", out, "--shard", shard)
    assert "Added 192 labels to" in (said := run("labels", "merge", out)) and "Shards of 2: 2 labeled." in said
    assert "Checkpoint" in run(*adapt_command)
    result = CliRunner().invoke(app, ["label", str(out), "--shard", "3/2"])
    assert result.exit_code == 2 and "is not a shard" in result.output

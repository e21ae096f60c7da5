"""Agreement with the teacher on queries held out, and what follows from it."""

import json
import math
import statistics
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import read_run
from pdadapt.evaluation.agreement import (
    AGREEMENT_MEASURES,
    agreement,
    by_teacher_alone,
    labeled_or_derived_pairs,
    says_enough,
    score_lists,
)
from pdadapt.evaluation.held_out import draw_held_out
from pdadapt.labeling.training_list import TrainingList, read_lists
from pdadapt.pipeline import adapt
from pdadapt.preflight import start_context
from pdadapt.runs.folder import RunFolder, last_checkpoint
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import load_colbert
from pdadapt.training.trainer import train


def test_the_share_held_out_is_drawn_by_the_seed_and_never_more_than_500():
    queries = [f"q{i}" for i in range(400)]
    assert len(draw_held_out(queries, 0.1, 1)) == 40
    assert draw_held_out(queries, 0.04, 1) == set()  # sixteen say too little, and teach something
    assert draw_held_out(queries, 0.1, 1) == draw_held_out(queries[::-1], 0.1, 1) != draw_held_out(queries, 0.1, 2)
    assert draw_held_out(queries, 0.0, 1) == set()
    assert len(draw_held_out([f"q{i}" for i in range(50_000)], 0.1, 1)) == 500


def test_agreement_is_one_where_the_teacher_says_what_the_student_does(stanford, beir):
    dataset = load_dataset(str(beir))
    model = load_colbert(str(stanford))
    query_id = next(iter(dataset.queries))
    doc_ids = [document.doc_id for document in dataset.corpus.documents][:6]
    documents = model.encode_document([dataset.corpus[doc_id].contents for doc_id in doc_ids])
    own = model.similarity(model.encode_query([dataset.queries[query_id]]), documents)[0].tolist()

    def measured(points, labels=()):
        entry = TrainingList(query_id, doc_ids, points, list(labels))
        found = agreement([entry], score_lists(model, [entry], dataset.corpus, dataset.queries, 8), 1.0)
        return [found[name].get(query_id) for name in AGREEMENT_MEASURES]

    assert measured(own) == pytest.approx([1.0, 1.0, 1.0])
    opposite = measured([-score for score in own])
    assert opposite[:2] == pytest.approx([0.0, -1.0]) and opposite[2] < 1
    best, worst = own.index(max(own)), own.index(min(own))
    # the pairs that were judged count, each with the teacher's confidence, |2 P - 1|
    judged = measured(own, [(best, worst, 3.0), (worst, best, 1.0)])
    sure, unsure = math.tanh(1.5), math.tanh(0.5)
    assert judged[0] == pytest.approx(sure / (sure + unsure))
    assert measured([1e4 * score for score in own])[0] == measured([-1e4 / score for score in own])[0] == 1.0
    assert measured([1.0] * 6) == [None] * 3, "a teacher that cannot tell documents apart says nothing"
    assert measured([None] * 6) == [None] * 3
    for points, labels in (
        (own, []),
        ([1.0] * 6, []),
        ([None] * 6, []),
        (own, [(0, 1, 0.0)]),
        ([1.0] * 6, [(0, 1, 2.0)]),
    ):
        entry = TrainingList(query_id, doc_ids, points, labels)
        assert says_enough(entry, 1.0) == (None not in measured(points, labels))


def test_without_judged_pairs_the_points_order_them():
    entry = TrainingList("q", ["a", "b", "c"], [2.0, None, -1.0], [])
    assert list(labeled_or_derived_pairs(entry, 2.0)) == [(0, 2, 1.5)]


@pytest.mark.slow
def test_training_brings_agreement(stanford, beir, tmp_path):
    dataset = load_dataset(str(beir))
    lists = [
        TrainingList(query_id, [f"d{(start + 3 * i) % 20}" for i in range(6)], [3.0, 2.0, 1.0, 0.0, -1.0, -2.0], [])
        for start, query_id in enumerate(dataset.queries)
    ]
    model = load_colbert(str(stanford))
    found = [agreement(lists, score_lists(model, lists, dataset.corpus, dataset.queries, 8), 1.0)]
    settings = TrainSettings(steps=30, batch_size=4, n_way=6, learning_rate=1e-3, lambda_pair=0, dropout=0)
    train(model, lists, dataset.corpus, dataset.queries, settings, 1, tmp_path, Progress())
    found.append(agreement(lists, score_lists(model, lists, dataset.corpus, dataset.queries, 8), 1.0))
    for name in AGREEMENT_MEASURES:
        before, after = (sum(values[name].values()) / len(lists) for values in found)
        assert after > before + 0.1, name


@pytest.mark.slow
def test_without_judgments_the_report_shows_the_queries_held_out(tiny_recipe, beir, tmp_path, monkeypatch):
    monkeypatch.setattr("pdadapt.evaluation.held_out.MIN_HELD_OUT", 1)
    dataset = replace(load_dataset(str(beir)), test_queries={}, qrels={})
    settings = {"train.held_out": 0.5, "train.learning_rate": 0.1, "train.steps": 8, "iterations": 1}
    metrics = adapt(load_recipe(str(tiny_recipe), settings), dataset, tmp_path / "run", Progress())
    with open(tmp_path / "run" / "iteration-1" / "held-out.jsonl", encoding="utf-8") as lines:
        rows = {row["query_id"]: row for row in map(json.loads, lines)}
    assert len(rows) == len(dataset.queries) // 2
    agreed = {
        name: [row["students"][name]["agreement"]["pair accuracy"] for row in rows.values()]
        for name in ("base", "iteration-1")
    }
    means = [statistics.fmean(value for value in values if value is not None) for values in agreed.values()]
    assert metrics.agreement[0]["pair accuracy"].means == pytest.approx(means)

    changed = metrics.most_changed.gained + metrics.most_changed.lost
    assert {query.query_id for query in changed} == {
        query_id for query_id, *values in zip(rows, *agreed.values(), strict=True) if values[0] != values[1]
    }
    for query in changed:
        row = rows[query.query_id]
        assert query.query == dataset.queries[query.query_id]
        for name, value, documents in zip(agreed, (query.before, query.after), query.documents, strict=True):
            student = row["students"][name]
            assert value == student["agreement"]["pair accuracy"]
            by_doc = dict(zip(row["doc_ids"], zip(student["scores"], row["points"], strict=True), strict=True))
            assert [by_doc[shown.doc_id][0] for shown in documents] == sorted(student["scores"], reverse=True)[:3]
            assert all(by_doc[shown.doc_id][1] == shown.point for shown in documents)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"Gain in pair accuracy of each of {len(rows)} held-out queries" in page
    assert "Held-out queries: pair accuracy with the teacher" in page and page.count("point ") >= 3 * len(changed)


@pytest.mark.slow
def test_iterations_end_when_agreement_does_not_rise_and_the_better_student_is_kept(
    tiny_recipe, beir, tmp_path, monkeypatch
):
    monkeypatch.setattr("pdadapt.evaluation.held_out.MIN_HELD_OUT", 1)
    dataset = load_dataset(str(beir))
    still = {"train.held_out": 0.25, "train.learning_rate": 1e-30, "train.weight_decay": 0, "train.steps": 1}
    out = tmp_path / "run"
    metrics = adapt(load_recipe(str(tiny_recipe), still | {"iterations": 3}), dataset, out, Progress())
    assert (metrics.iteration, len(metrics.labels), len(metrics.agreement)) == (0, 1, 1)
    before, after = metrics.agreement[0]["pair accuracy"].means
    assert before == after
    assert metrics.checkpoint == last_checkpoint(str(out)) == str(out / "student")
    assert len(metrics.measures["nDCG@10"].means) == 2 and not (out / "iteration-2").exists()
    # what is held out is labeled all the same
    assert len(read_lists(out / "iteration-1" / "lists.jsonl")) == len(read_run(out / "iteration-1/candidates.run"))

    sets = [part for key, value in still.items() for part in ("--set", f"{key}={value}")]
    command = ["adapt", "--corpus", str(beir), "--recipe", str(tiny_recipe), "--out", str(out), "--iterations", "3"]
    said = CliRunner().invoke(app, [*command, *sets])
    assert said.exit_code == 0, said.output
    assert "Iteration 1 did not increase the agreement, so the base student is the result." in said.output
    assert "pair accuracy" in said.output and "already finished" in said.output

    # a run whose agreement rose goes on; the verdict is of the iteration that is kept
    rose = json.loads((out / "iteration-1" / "agreement.json").read_text(encoding="utf-8"))
    rose["pair accuracy"]["means"] = [0.5, 0.6]
    rose["pair accuracy"]["comparisons"][0] |= {"change": 0.1, "p": 0.01, "p_holm": 0.01}
    (out / "iteration-1" / "agreement.json").write_text(json.dumps(rose), encoding="utf-8")
    metrics = adapt(load_recipe(str(tiny_recipe), still | {"iterations": 3}), dataset, out, Progress())
    assert (metrics.iteration, len(metrics.labels)) == (1, 2)
    assert "0.500 → 0.600 (p = 0.010)" in metrics.verdict.sentence
    assert last_checkpoint(str(out)) == str(out / "iteration-1" / "checkpoint")


@pytest.mark.slow
def test_the_teacher_alone_judges_where_the_labels_hold_the_students_scores_too(tiny_recipe, beir, tmp_path):
    settings = {"train.held_out": 0.5, "teacher.pair.per_query": 3, "teacher.pair.scoring": "derived", "train.steps": 1}
    dataset = load_dataset(str(beir))
    plain = load_recipe(str(tiny_recipe), settings)
    adapt(plain, dataset, tmp_path / "plain", Progress())
    run, lists = RunFolder(tmp_path / "plain"), read_lists(tmp_path / "plain" / "iteration-1" / "lists.jsonl")
    assert by_teacher_alone(start_context(plain, dataset, run, Progress()), lists) == list(lists)
    mixed = load_recipe(str(tiny_recipe), settings | {"teacher.point.student_weight": 1.0})
    said = {(e.query_id, doc): point for e in lists for doc, point in zip(e.doc_ids, e.points, strict=True)}
    blurred = [entry._replace(points=[0.0] * len(entry.points)) for entry in lists]
    for entry in by_teacher_alone(start_context(mixed, dataset, run, Progress()), blurred):
        assert entry.points == [said[entry.query_id, doc_id] for doc_id in entry.doc_ids] and entry.pairs == []

"""Tables and summaries in a terminal: whole ones in tests/golden/tables.txt, and single rules."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from pdadapt.evaluation.results import ChangedRanking, Comparison, MeasureResult, Metrics
from pdadapt.labeling.figures import LabelFigures
from pdadapt.planning.costs import Cost, Shape
from pdadapt.planning.plan import Plan
from pdadapt.planning.table import plan_table
from pdadapt.reporting.tables import (
    agreement_summary,
    changed_queries,
    comparison_table,
    label_summary,
    queries_table,
    short_names,
)
from pdadapt.runtime.progress import Progress
from pdadapt.runtime.terminal import console, plain

GOLDEN = "tables.txt"


def comparison(system, change, interval, p):
    """Of a system with the first one."""
    return Comparison(0, system, change, interval, p, p, 700, 300, 200, p_holm=2 * p, p_t_holm=3 * p)


def measured(*means):
    """Metrics of so many systems on a test set."""
    comparisons = (comparison(1, 0.1, (0.05, 0.15), 0.0001), comparison(2, -0.0125, None, 0.2))[: len(means) - 1]
    return Metrics(
        corpus="scifact",
        documents=5183,
        test_queries=1200,
        models=("model",) * len(means),
        measures={
            "nDCG@10": MeasureResult(means, comparisons),
            "R@100": MeasureResult(tuple(mean + 0.25 for mean in means), comparisons),
        },
        most_changed=(
            ChangedRanking("q1", "how to true a wheel", (0.25, 1.0), (("d7", "d12"), ("d1",))),
            ChangedRanking("q2", "", (0.5, 0.125), (("d3",), ("d4", "d5"))),
        ),
    )


PLAN = Plan(
    shape=Shape(documents=12345, queries=6789, test_queries=432),
    costs=[
        Cost("index", 24690, "documents", 4321.0, 3456789),
        Cost("label pairs", 432100, "prompts", 98765.0, 87654321),
        Cost("train", 1234, "steps", 654.3),
        Cost("load models", 8, "models", 9.5),
    ],
    memory={"student": 4_321_000_000, "teacher": 12_345_000_000},
    memory_all=64_000_000_000,
    disk={"index": 7.8e9, "labels": 12.5e6, "lists": 250e3},
    disk_free=91_000_000_000,
    labeled={"point": 1357, "pair": 0},
    cheaper={"--set teacher.pair.order=random": 54321.0, "a teacher of half the parameters (--teacher)": 40000.0},
    paper={"FiQA": 45_678.0, "MS MARCO": 987_654.0},
    sample_kept=(9, 16),
)
WRITTEN = {
    "kinds": {
        "question": {"written": 12345, "kept": 6543, "duplicate": 802, "not found again": 5000},
        "keywords": {"written": 2345, "kept": 1234, "copied": 1111},
    },
    "documents": {"looked_at": 1000, "fit": 900, "left_out": {"too short": 90, "same text": 10}},
    "examples": {"kept": ["how to true a wheel", "brake pads that squeal"]},
    "kept": 7777,
    "wanted": 9999,
}
FEW_LABELS = LabelFigures(points_asked=0, pair_prompts_asked=0, points=1600, points_unanswered=0, pairs=0)
LABELS = LabelFigures(
    points=1600,
    points_asked=1234,
    pair_prompts_asked=0,
    pairs=50,
    pairs_derived=50,
    flip_rate=0.9,
    position_bias=1.25,
    disagreement=0.31,
    triples=2345,
    cycles=67,
    points_unanswered=12,
    pairs_unanswered=3,
)
AGREEMENT = {
    "pair accuracy": MeasureResult((0.5, 0.75), (comparison(1, 0.25, None, 0.031),)),
    "Kendall's tau": MeasureResult(
        (0.125, 0.25, 0.375), (comparison(1, 0.125, None, 0.5), comparison(2, 0.25, None, 0.0001))
    ),
}
PRINTED = {
    "comparison of one system": comparison_table(measured(0.5), ["colbertv2.0"]),
    "comparison of two systems": comparison_table(measured(0.5, 0.6), ["base", "adapted"]),
    "comparison of three systems": comparison_table(
        measured(0.5, 0.6, 0.4875), ["bm25", "iteration 1", "a-checkpoint-with-a-long-name/iteration-2"]
    ),
    "comparison of runs without a corpus": comparison_table(
        replace(measured(0.5, 0.6), documents=0), ["a.run", "b.run"]
    ),
    "queries that changed most": changed_queries(measured(0.5, 0.6), ["base", "adapted"]),
    "plan": plan_table(PLAN),
    "written queries": queries_table(WRITTEN),
    "labels, few": plain(label_summary(FEW_LABELS)),
    "labels, with all that can be said": plain(label_summary(LABELS)),
    "agreement": plain(agreement_summary(AGREEMENT)),
    "agreement that nothing is known of": plain(agreement_summary({})),
}


@pytest.mark.parametrize("name", PRINTED)
def test_tables_fit_a_terminal_of_80_columns(name, golden):
    terminal = console(width=80, file=io.StringIO())
    terminal.print(PRINTED[name])
    golden(GOLDEN).check(name, terminal.file.getvalue())  # type: ignore[attr-defined]


def test_golden_tables_are_all_printed(golden):
    golden(GOLDEN).check_names(PRINTED)


def test_the_table_shows_each_system_the_change_and_p():
    figures = [(1, 0.1, (0.05, 0.15), 0.0001, 0.0002), (2, 0.05, None, 0.2, 0.2)]
    comparisons = tuple(
        Comparison(0, i, change, interval, p, 0.02, 700, 300, 200, p_holm, p_t_holm=0.03)
        for i, change, interval, p, p_holm in figures
    )
    measures = {"nDCG@10": MeasureResult((0.5, 0.6, 0.55), comparisons)}
    metrics = Metrics("c", 5000, 1200, ("a", "b", "c"), measures, ())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison_table(metrics, ["base", "iteration 1", "iteration 2"]))
    text = console.export_text()
    for part in ("1,200 test queries", "0.5000", "0.6000", "+0.1000 ± 0.0500", "<0.001", "+0.0500", "0.200", "0.030"):
        assert part in text


def test_names_are_as_short_as_tells_them_apart():
    assert short_names(["bm25", "runs/a/run.trec", "x/colbertv2.0"]) == ["bm25", "run.trec", "colbertv2.0"]
    assert short_names(["runs/a/run.trec", "runs/b/run.trec"]) == ["a/run.trec", "b/run.trec"]
    assert short_names(["same", "same"]) == ["same", "same"]


def test_the_label_summary_tells_how_far_pairs_can_be_trusted():
    figures = FEW_LABELS
    assert label_summary(figures) == "1,600 points (0 not in the store before), 0 pairs."
    figures = replace(figures, pairs=50, disagreement=0.31, flip_rate=0.9, position_bias=1.25)
    assert label_summary(figures) == (
        "1,600 points (0 not in the store before), 50 pairs; the answer flips with the order in 90% of them; "
        "position bias +1.25 log-odds; 31% contradict the points."
    )
    in_random_order = replace(figures, flip_rate=None)
    assert "50 pairs; position bias +1.25 log-odds; 31%" in label_summary(in_random_order)
    figures = replace(figures, points_unanswered=12, pairs_unanswered=0)
    assert label_summary(figures).endswith("; no answer to 12 points.")


def test_without_a_terminal_long_work_says_every_minute_how_far_it_is(monkeypatch):
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr("pdadapt.runtime.progress.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    console = Console(width=200, file=io.StringIO())
    with Progress(console).task("label points", 10, "prompts") as advance:
        for _ in range(10):
            advance(1)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "label points: 2 of 10 prompts, about 5.3 min left"
    assert 3 < len(lines) < 8 and lines[-1].startswith("label points: 10 prompts in")


def test_progress_rate_ignores_work_of_an_earlier_run(monkeypatch):
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr("pdadapt.runtime.progress.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    console = Console(width=200, file=io.StringIO())
    with Progress(console).task("train", 10, "steps") as advance:
        advance(6, earlier=True)
        for _ in range(4):
            advance(1)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "train: 7 of 10 steps, about 4.0 min left"
    assert lines[-1] == "train: 4 steps in 240.0 s (60.0 s each), 6 before"

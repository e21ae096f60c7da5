import io
from types import SimpleNamespace

from rich.console import Console

from pdadapt.reporting.tables import comparison_table, label_summary, short_names
from pdadapt.runtime.progress import Progress


def test_the_table_shows_each_system_the_change_and_p():
    figures = [(1, 0.1, [0.05, 0.15], 0.0001, 0.0002), (2, 0.05, None, 0.2, 0.2)]
    comparisons = [
        {"base": 0, "system": i, "change": change, "interval": interval, "p": p, "p_holm": q, "p_t_holm": 0.03}
        | {"wins": 700, "ties": 300, "losses": 200}
        for i, change, interval, p, q in figures
    ]
    metrics = {
        "corpus": "c",
        "test_queries": 1200,
        "documents": 5000,
        "measures": {"nDCG@10": {"means": [0.5, 0.6, 0.55], "comparisons": comparisons}},
    }
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
    figures = {"points": 1600, "points_asked": 0, "pairs": 0, "pair_prompts_asked": 0}
    assert label_summary(figures) == "1,600 points (0 not in the store before), 0 pairs."
    figures |= {"pairs": 50, "disagreement": 0.31, "flip_rate": 0.9, "position_bias": 1.25}
    assert label_summary(figures) == (
        "1,600 points (0 not in the store before), 50 pairs; the answer flips with the order in 90% of them; "
        "position bias +1.25 log-odds; 31% disagree with the points."
    )
    in_random_order = {name: value for name, value in figures.items() if name != "flip_rate"}
    assert "50 pairs; position bias +1.25 log-odds; 31%" in label_summary(in_random_order)
    figures |= {"points_unanswered": 12, "pairs_unanswered": 0}
    assert label_summary(figures).endswith("; no answer to 12 points.")


def test_without_a_terminal_long_work_says_every_minute_how_far_it_is(monkeypatch):
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr("pdadapt.runtime.progress.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    console = Console(width=200, file=io.StringIO())
    with Progress(console).task("label points", 10, "prompts") as advance:
        for _ in range(10):
            advance(1)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "label points: 2 of 10 prompts, about 5.3 min left"
    assert 3 < len(lines) < 8 and lines[-1].startswith("label points: 10 prompts in")


def test_what_an_earlier_run_did_says_nothing_of_the_rate(monkeypatch):
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr("pdadapt.runtime.progress.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    console = Console(width=200, file=io.StringIO())
    with Progress(console).task("train", 10, "steps") as advance:
        advance(6, earlier=True)
        for _ in range(4):
            advance(1)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "train: 7 of 10 steps, about 4.0 min left"
    assert lines[-1] == "train: 4 steps in 240.0 s (60.0 s each), 6 before"

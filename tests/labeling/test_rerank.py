import sqlite3
from itertools import pairwise, permutations

import numpy as np
import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import in_trec_order, read_run, write_run
from pdadapt.errors import DataError
from pdadapt.labeling.rerank import falling_scores, mean_wins, rerank, win_matrix
from pdadapt.runtime.progress import Progress


class Judge:
    """Knows each document's worth, and prefers what stands first."""

    def __init__(self, worth):
        self.worth = worth

    def score_points(self, chunks):
        yield from ([(point, self.worth[point.document]) for point in chunk.asked] for chunk in chunks)

    def score_pairs(self, chunks):
        for chunk in chunks:
            yield [(p, self.worth[p.document_a] - self.worth[p.document_b] + 2.0) for p in chunk.asked]


@pytest.mark.parametrize("task", ["point", "pair"])
def test_the_first_documents_come_in_the_teachers_order_and_the_rest_stay(beir, tmp_path, task):
    dataset = load_dataset(str(beir))
    ranking = {"q0": [(f"d{i}", 20.0 - i) for i in range(12)]}
    worth = {dataset.corpus[f"d{i}"].contents: float((i * 5) % 7) for i in range(12)}
    found = rerank(
        ranking,
        dataset.corpus,
        dataset.queries,
        task,
        7,
        tmp_path / "l.sqlite",
        "key",
        lambda task: Judge(worth),
        Progress(),
    )[0]["q0"]
    best = sorted(range(7), key=lambda i: -((i * 5) % 7))
    assert [doc_id for doc_id, _ in found] == [f"d{i}" for i in best] + [f"d{i}" for i in range(7, 12)]
    scores = [score for _, score in found]
    assert all(a > b for a, b in pairwise(scores))


def test_wins_average_both_orders_and_a_missing_answer_is_undecided():
    answers = [2.0, None, 1.0, None, -3.0, None]  # (0,1) (0,2) (1,0) (1,2) (2,0) (2,1)
    assert list(permutations(range(3), 2))[4] == (2, 0)
    wins = win_matrix(answers, 3)
    assert wins[0, 1] == pytest.approx(1 / (1 + np.exp(-0.5))) and wins[1, 0] == pytest.approx(1 - wins[0, 1])
    assert wins[0, 2] == pytest.approx(1 / (1 + np.exp(-3.0))) and wins[1, 2] == wins[2, 1] == 0.5
    assert mean_wins(wins)[0] == pytest.approx((wins[0, 1] + wins[0, 2]) / 2)
    assert mean_wins(np.array([[0.5]])) == [0.5]


def test_scores_fall_strictly_so_that_every_evaluator_reads_the_same_order():
    found = falling_scores([("a", 3.0), ("b", 3.0), ("c", float("-inf"))], ["d"])
    assert [doc_id for doc_id, _ in found] == ["a", "b", "c", "d"]
    assert all(x > y for (_, x), (_, y) in pairwise(found))


def test_rerank_by_pairs_reports_flip_rate_and_position_bias(beir, tmp_path):
    dataset = load_dataset(str(beir))
    worth = {document.contents: float(i) for i, document in enumerate(dataset.corpus)}
    figures = rerank(
        {"q0": [("d0", 3.0), ("d1", 2.0), ("d2", 1.0)]},
        dataset.corpus,
        dataset.queries,
        "pair",
        3,
        tmp_path / "l.sqlite",
        "key",
        lambda task: Judge(worth),
        Progress(),
    )[1]
    assert figures["position_bias"] == 2.0  # what Judge adds to whatever stands first
    assert figures["flip_rate"] == pytest.approx(2 / 3)  # of d0, d1 and d1, d2, whose worths are 1 apart


@pytest.mark.slow
def test_rerank_command_writes_a_run_and_measures_it(beir, tiny_recipe, tmp_path):
    write_run(
        tmp_path / "base.run", {f"q{n}": [(f"d{i}", 9.0 - i) for i in range(6)] for n in (12, 13)}.items(), "base"
    )
    command = ["rerank", "--corpus", str(beir), "--run", str(tmp_path / "base.run"), "--recipe", str(tiny_recipe)]
    everything = [*command, "--by", "points", "--top", "4"]
    result = CliRunner().invoke(app, [*everything, "--out", str(tmp_path / "base.run")])
    assert result.exit_code == 2 and "--out" in result.output
    result = CliRunner().invoke(app, [*everything, "--split", "dev", "--out", str(tmp_path / "dev.run")])
    assert "has no judgments for split 'dev'" in str(result.exception)
    (tmp_path / "unjudged").mkdir()
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / "unjudged" / name).write_bytes((beir / name).read_bytes())
    unjudged = [str(tmp_path / "unjudged") if each == str(beir) else each for each in everything]
    result = CliRunner().invoke(app, [*unjudged, "--split", "dev", "--out", str(tmp_path / "dev.run")])
    assert "no judgments for split 'dev'" in str(result.exception)
    result = CliRunner().invoke(app, [*unjudged, "--out", str(tmp_path / "dev.run")])
    assert result.exit_code == 0 and "no measures were computed" in result.output
    for by in ("points", "pairs"):  # also where `adapt` would ask about no pairs, as in recipe `small`
        result = CliRunner().invoke(app, [*command, "--by", by, "--top", "4", "--set", "teacher.pair.per_query=0"])
        assert result.exit_code == 0, result.output
        assert "reranked" in result.output and "nDCG@10" in result.output
        written = read_run(tmp_path / f"base-{by}.run")
        assert {len(ranked) for ranked in written.values()} == {6}
        assert [d for d, _ in written["q12"]][4:] == ["d4", "d5"]
        assert ("position bias" in result.output) == (by == "pairs")
    more = ["--by", "pairs", "--top", "4", "--out", str(tmp_path / "again.run")]
    result = CliRunner().invoke(app, [*command, *more])  # labels are kept beside the run
    assert result.exit_code == 0 and "rerank: 24 prompts were there already" in result.output, result.output


@pytest.mark.slow
def test_rerank_prefers_queries_of_a_file_and_refuses_a_teacher_without_labels(beir, tiny_recipe, tmp_path):
    write_run(tmp_path / "base.run", {"q12": [("d0", 2.0), ("d1", 1.0)]}.items(), "base")
    (tmp_path / "queries.tsv").write_text("q12\tanother wording\n", encoding="utf-8")
    command = ["rerank", "--corpus", str(beir), "--run", str(tmp_path / "base.run"), "--recipe", str(tiny_recipe)]
    result = CliRunner().invoke(app, [*command, "--queries", str(tmp_path / "queries.tsv")])
    assert result.exit_code == 0, result.output
    with sqlite3.connect(tmp_path / "base.labels.sqlite") as store:
        assert store.execute(
            "SELECT t.text FROM texts t JOIN names n ON t.id = n.text WHERE kind = 'query'"
        ).fetchall() == [("another wording",)]
    result = CliRunner().invoke(app, [*command, "--teacher", "imported:nobody", "--out", str(tmp_path / "none.run")])
    assert isinstance(result.exception, DataError) and "holds no point labels of imported:nobody" in str(
        result.exception
    )
    assert not (tmp_path / "none.run").exists()


def test_a_measure_that_cannot_be_computed_is_refused_before_the_teacher_is_asked(beir, tiny_recipe, tmp_path):
    write_run(tmp_path / "base.run", {"q12": [("d0", 2.0), ("d1", 1.0)]}.items(), "base")
    command = ["rerank", "--corpus", str(beir), "--run", str(tmp_path / "base.run"), "--recipe", str(tiny_recipe)]
    result = CliRunner().invoke(app, [*command, "--set", "evaluate.measures=[SDCG@10]"])
    assert "cannot be computed" in str(result.exception)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base.run"]


def test_scores_fall_in_single_precision_too():
    found = falling_scores([(f"d{i}", 300.0) for i in range(50)], ["x"])
    scores = np.array([score for _, score in found], dtype=np.float32)
    assert (np.diff(scores) < 0).all() and [doc_id for doc_id, _ in found] == [
        doc_id for doc_id, _ in in_trec_order(found)
    ]


def test_a_run_of_another_corpus_is_an_error(beir, tmp_path):
    dataset = load_dataset(str(beir))
    for ranking, problem in (({"zebra": [("d0", 1.0)]}, "query 'zebra'"), ({"q0": [("d99", 1.0)]}, "document 'd99'")):
        with pytest.raises(DataError, match=problem):
            rerank(ranking, dataset.corpus, dataset.queries, "point", 5, tmp_path / "l", "k", None, Progress())
    with pytest.raises(DataError, match="holds no rankings"):
        rerank({}, dataset.corpus, dataset.queries, "point", 5, tmp_path / "l", "k", None, Progress())
    (tmp_path / "x.run").write_text("q Q0 d 1 high tag\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.run:1: the score .high. is not a finite number"):
        read_run(tmp_path / "x.run")

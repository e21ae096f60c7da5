"""Candidates of several sources: the fusion by hand, and what a run makes of the student's and BM25's rankings."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import TrecRunFile
from pdadapt.errors import DataError
from pdadapt.pipeline import adapt
from pdadapt.retrieval.engines.bm25 import BM25
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.retrieval.fusion import fuse
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.students.load import load_student


def ranked(doc_ids):
    """Documents in this order, with scores that fusion should not look at."""
    return [(doc_id, -7.0 * rank) for rank, doc_id in enumerate(doc_ids)]


@pytest.mark.parametrize(
    ("rankings", "k", "fused"),
    [
        (["ab"], 5, [("a", 1 / 61), ("b", 1 / 62)]),
        (["ab", ""], 5, [("a", 1 / 61), ("b", 1 / 62)]),
        (["", "ab"], 1, [("a", 1 / 61)]),
        ([], 3, []),
        # b is second in both and so before the two that are first in one
        (["abc", "dbe"], 9, [("b", 2 / 62), ("a", 1 / 61), ("d", 1 / 61), ("c", 1 / 63), ("e", 1 / 63)]),
        # a and c: first in one and third in the other; the earlier ranking decides
        (["abc", "cba"], 9, [("a", 1 / 61 + 1 / 63), ("c", 1 / 61 + 1 / 63), ("b", 2 / 62)]),
        (["cba", "abc"], 2, [("c", 1 / 61 + 1 / 63), ("a", 1 / 61 + 1 / 63)]),
    ],
)
def test_reciprocal_rank_fusion_by_hand(rankings, k, fused):
    found = fuse([ranked(doc_ids) for doc_ids in rankings], k)
    assert [doc_id for doc_id, _ in found] == [doc_id for doc_id, _ in fused]
    assert [score for _, score in found] == pytest.approx([score for _, score in fused])


@pytest.fixture
def dataset(beir):
    """The tiny corpus, with two queries more: one that is a document, and one of whose words it holds none."""
    dataset = load_dataset(str(beir))
    return replace(dataset, queries={**dataset.queries, "d3": dataset.corpus["d3"].text, "other": "zebra"})


def candidates(tiny_recipe, dataset, out, sources, restart_from=None):
    recipe = load_recipe(str(tiny_recipe), {"retrieve.sources": sources})
    adapt(recipe, dataset, out, Progress(), restart_from, stop_before_labeling=True)
    return TrecRunFile(out / "iteration-1" / "candidates.run")


def bm25_of(dataset, folder, k=8):
    index_corpus(BM25(), dataset.corpus, folder, Progress())
    return retrieve(BM25(), dataset.corpus, dataset.queries, folder, k, Progress())


def assert_fused(found, expected):
    assert found.keys() == expected.keys()
    for query_id, best in expected.items():
        assert [doc_id for doc_id, _ in found[query_id]] == [doc_id for doc_id, _ in best]
        assert [score for _, score in found[query_id]] == pytest.approx([score for _, score in best], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sources", [["student", "bm25"], ["bm25", "student"]])
def test_candidates_are_the_fusion_of_what_student_and_bm25_rank(tiny_recipe, dataset, tmp_path, sources):
    own = candidates(tiny_recipe, dataset, tmp_path / "student", ["student"])
    rankings = {"student": own, "bm25": bm25_of(dataset, tmp_path / "index")}
    found = candidates(tiny_recipe, dataset, tmp_path / "run", sources)
    assert_fused(found, {query: fuse([rankings[source][query] for source in sources], 8) for query in own})
    assert any({doc for doc, _ in found[query]} - {doc for doc, _ in own[query]} for query in own)
    assert [doc for doc, _ in found["other"]] == [doc for doc, _ in own["other"]]
    assert "d3" not in dict(found["d3"]) and len(found["d3"]) == 8
    base = [tmp_path / name / "iteration-0" / "test.run" for name in ("student", "run")]
    assert base[0].read_bytes() == base[1].read_bytes(), "the test queries are the student's alone"


@pytest.mark.slow
def test_bm25_alone_needs_no_search_by_a_model_and_leaves_out_what_it_does_not_find(tiny_recipe, dataset, tmp_path):
    settings = {"retrieve.sources": ["bm25"], "train.steps": 1}
    said, out = io.StringIO(), tmp_path / "run"
    untested = replace(dataset, test_queries={}, qrels={})
    adapt(load_recipe(str(tiny_recipe), settings), untested, out, Progress(Console(file=said)))
    expected = {query: fuse([best], 8) for query, best in bm25_of(dataset, tmp_path / "index").items() if best}
    assert_fused(TrecRunFile(out / "iteration-1" / "candidates.run"), expected)
    assert "BM25 finds no document for 1 of 14 queries" in said.getvalue() and "other" not in expected
    lists = [json.loads(line) for line in (out / "iteration-1" / "lists.jsonl").read_text().splitlines()]
    assert [entry["query_id"] for entry in lists] == list(expected)
    assert {"BM25: index", "BM25: search"} == {task for task in tasks(out) if task.endswith(("index", "search"))}


def test_bm25_alone_that_finds_nothing_is_refused_and_its_advice_works(tiny_recipe, dataset, tmp_path):
    strange = replace(dataset, queries={"other": "zebra", "another": "the of"})
    with pytest.raises(DataError, match=r"no document for any query.*=\[student\] --restart-from retrieve"):
        candidates(tiny_recipe, strange, tmp_path, ["bm25"])
    found = candidates(tiny_recipe, strange, tmp_path, ["student"], "retrieve")
    assert found.keys() == {"other", "another"} and not (tmp_path / "iteration-0" / "bm25.run").exists()


def tasks(out):
    rows = map(json.loads, (out / "timings.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["task"].partition(": ")[2] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("sources", [["student", "bm25"], ["bm25"]])
def test_retrieval_stopped_after_bm25_resumes_to_the_same_bytes(tiny_recipe, dataset, tmp_path, sources):
    candidates(tiny_recipe, dataset, tmp_path, sources)
    file, ranking = tmp_path / "iteration-1" / "candidates.run", tmp_path / "iteration-0" / "bm25.run"
    assert not list(tmp_path.rglob("*index*"))
    whole, made = file.read_bytes(), ranking.stat()
    file.unlink()
    (tmp_path / "iteration-0" / "bm25.index").mkdir()  # killed before it was removed
    candidates(tiny_recipe, dataset, tmp_path, sources)
    assert file.read_bytes() == whole
    assert (ranking.stat().st_ino, ranking.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns), "not made again"
    assert not list(tmp_path.rglob("*index*"))
    bm25 = ranking.read_bytes()
    file.unlink()
    ranking.unlink()
    candidates(tiny_recipe, dataset, tmp_path, sources)
    assert (file.read_bytes(), ranking.read_bytes()) == (whole, bm25)


@pytest.mark.slow
def test_every_iteration_fuses_its_student_with_the_one_ranking_of_bm25(tiny_recipe, dataset, tmp_path):
    out, settings = tmp_path / "run", {"retrieve.sources": ["student", "bm25"], "train.steps": 1, "iterations": 2}
    recipe = load_recipe(str(tiny_recipe), settings)
    adapt(recipe, dataset, out, Progress())
    assert tasks(out).count("BM25: index") == tasks(out).count("BM25: search") == 1
    bm25 = TrecRunFile(out / "iteration-0" / "bm25.run")
    for iteration, checkpoint in ((1, out / "student"), (2, out / "iteration-1" / "checkpoint")):
        engine = Exact(load_student(str(checkpoint), recipe.student), 64)
        index = tmp_path / f"index-{iteration}"
        index_corpus(engine, dataset.corpus, index, Progress())
        own = retrieve(engine, dataset.corpus, dataset.queries, index, 8, Progress())
        expected = {query: fuse([best, bm25.get(query, [])], 8) for query, best in own.items()}
        assert_fused(TrecRunFile(out / f"iteration-{iteration}" / "candidates.run"), expected)

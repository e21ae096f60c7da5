"""BM25 as a teacher gives BM25's own scores."""

import pytest

from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError, ModelError, RecipeError
from pdadapt.evaluation.reranking import rerank_file
from pdadapt.labeling.guard import COMPARED_SCORES, ScoreGuard
from pdadapt.pipeline import adapt
from pdadapt.retrieval.engines.bm25 import BM25
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.settings.schema import PointSettings, TeacherSettings
from pdadapt.teachers.base import Point, scores_in_order
from pdadapt.teachers.bm25 import BM25Teacher
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers

SETTINGS = TeacherSettings(model="bm25")


@pytest.mark.parametrize("query", ["rim spoke", "spoke spoke, the rims", "nothing of it", "the", ""])
def test_scores_are_those_of_the_search_engine(beir, tmp_path, query):
    corpus = load_dataset(str(beir)).corpus
    engine = BM25()
    engine.index(corpus.documents, tmp_path, lambda *_, **__: None)
    [(places, scores)] = engine.search([query], tmp_path, len(corpus), len(corpus), lambda _: None)
    wanted = dict(zip(places, scores, strict=True))
    points = [Point(query, document.contents) for document in corpus]
    found = scores_in_order(Teachers(SETTINGS, corpus=corpus)("point").score_points, points)
    assert found == pytest.approx([wanted.get(place, 0.0) for place in range(len(corpus))])


def test_a_document_of_another_corpus_has_no_score_and_a_corpus_without_words_is_refused():
    teacher = BM25Teacher(Corpus([Document("d", "", "true the rim"), Document("same", "", "true the rim")]))
    assert scores_in_order(teacher.score_points, [Point("hub", "true the rim")]) == [0.0]
    assert scores_in_order(teacher.score_points, [Point("rim", "true the spoke")]) == [None]
    with pytest.raises(DataError, match="only stop words"):
        BM25Teacher(Corpus([Document("d", "", "the")]))


def test_bm25_needs_the_corpus_and_judges_points_only(beir):
    for ask in (Teachers(SETTINGS), lambda task: teacher_key(SETTINGS, task)):
        with pytest.raises(ModelError, match=r"without the corpus\. Run `pdadapt adapt`"):
            ask("point")
    with pytest.raises(RecipeError, match=r"Teacher 'bm25' \(bm25\) can judge single documents, but not pairs"):
        teacher_key(SETTINGS, "pair")


def test_labels_belong_to_a_corpus(beir, tmp_path):
    corpus = load_dataset(str(beir)).corpus
    larger = Corpus([*corpus, Document("new", "", "rim rim rim")])
    assert teacher_key(SETTINGS, "point", corpus) != teacher_key(SETTINGS, "point", larger)
    alone = TeacherSettings(model="x", point=PointSettings(model="bm25"))
    assert teacher_key(alone, "point", corpus) == teacher_key(SETTINGS, "point", corpus)


def test_rerank_by_bm25_gives_its_order(beir, tmp_path):
    dataset = load_dataset(str(beir))
    (tmp_path / "run").write_text("".join(f"q12 Q0 d{i} {i + 1} {-i} x\n" for i in range(20)), encoding="utf-8")
    recipe = load_recipe("bm25", {})
    rerank_file(tmp_path / "run", tmp_path / "new", dataset, recipe, "point", 20, Progress())
    engine = BM25()
    engine.index(dataset.corpus.documents, tmp_path, lambda *_, **__: None)
    [(places, _)] = engine.search([dataset.test_queries["q12"]], tmp_path, 20, 20, lambda _: None)
    found = [line.split()[2] for line in (tmp_path / "new").read_text(encoding="utf-8").splitlines()]
    assert found[: len(places)] == [f"d{place}" for place in places]


def test_queries_that_share_no_word_with_their_documents_do_not_stop_a_labeling():
    guard = ScoreGuard(new=True)
    for number in range(COMPARED_SCORES + 2):
        guard.watch([(Point("zzz", f"d{number}"), 0.0)])
    with pytest.raises(ModelError, match="the same score"):
        guard.watch([(Point("rim", f"d{number}"), 1.0) for number in range(COMPARED_SCORES + 2)])


@pytest.mark.slow
def test_a_run_trains_on_the_labels_of_bm25(tiny_recipe, beir, tmp_path):
    changes = {"teacher.model": "bm25", "teacher.pair.per_query": 0, "train.steps": 2, "train.layers": 0}
    recipe = load_recipe(str(tiny_recipe), changes | {"teacher.point.student_weight": 1.0})
    dataset = load_dataset(str(beir))
    result = adapt(recipe, dataset, tmp_path / "run", Progress())
    assert (result.labels[0].points, result.labels[0].points_unanswered) == (12 * 8, 0)

"""BM25 as a teacher gives BM25's own scores."""

import pytest

from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError, ModelError, RecipeError
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


def test_bm25_needs_the_corpus_and_judges_points_only_and_shares_no_store():
    with pytest.raises(ModelError, match="needs the corpus"):
        Teachers(SETTINGS)("point")
    with pytest.raises(RecipeError, match="bm25 'bm25' can judge single documents, but not pairs"):
        teacher_key(SETTINGS, "pair")
    with pytest.raises(RecipeError, match=r"BM25's scores hold for one corpus only\. Leave label_store out"):
        load_recipe("demo", {"teacher.point.model": "bm25", "label_store": "labels.sqlite"})
    alone = TeacherSettings(model="x", point=PointSettings(model="bm25"))
    assert teacher_key(alone, "point") == teacher_key(SETTINGS, "point")


@pytest.mark.slow
def test_a_run_learns_from_bm25(tiny_recipe, beir, tmp_path):
    changes = {"teacher.model": "bm25", "teacher.pair.per_query": 0, "train.steps": 2, "train.layers": 0}
    recipe = load_recipe(str(tiny_recipe), changes | {"teacher.point.student_weight": 1.0})
    dataset = load_dataset(str(beir))
    result = adapt(recipe, dataset, tmp_path / "run", Progress())
    assert result.labels[0].points == 12 * 8

"""A labeling whose scores cannot be right stops early."""

import pytest

from pdadapt.errors import ModelError
from pdadapt.labeling.ask import Questions, ask_missing
from pdadapt.labeling.guard import COMPARED_SCORES, FIRST_PROMPTS, ScoreGuard
from pdadapt.labeling.store import LabelStore
from pdadapt.runtime.progress import Progress
from pdadapt.teachers.base import Pair, Point

POINTS = [Point(f"query {n % 10}", f"document {n}") for n in range(200)]


class Teacher:
    """Answers in batches of 16, and counts its answers."""

    def __init__(self, score):
        self.score = score
        self.answers = 0

    def score_points(self, chunks):
        for chunk in chunks:
            for start in range(0, len(chunk.asked), 16):
                batch = chunk.asked[start : start + 16]
                self.answers += len(batch)
                yield [(question, self.score(question)) for question in batch]


def ask(teacher, tmp_path):
    with LabelStore(tmp_path / "labels.sqlite", "points", "key") as store:
        questions = Questions([(["all"], len(POINTS))], lambda ids: POINTS)
        return ask_missing(questions, store, lambda: teacher.score_points, Progress(), "label points")


def test_a_teacher_that_scores_all_documents_alike_is_stopped_early(tmp_path):
    teacher = Teacher(lambda point: float(point.query[-1]))  # it reads the query alone
    with pytest.raises(ModelError, match="the same score to all documents of a query"):
        ask(teacher, tmp_path)
    assert teacher.answers < len(POINTS)


def test_equal_scores_of_one_query_do_not_stop_a_teacher_that_tells_others_apart(tmp_path):
    teacher = Teacher(lambda point: 1.0 if point.query == "query 3" else float(point.document.split()[1]))
    ask(teacher, tmp_path)
    assert teacher.answers == len(POINTS)


def test_a_new_teacher_without_answers_is_stopped_early_and_a_known_one_is_not(tmp_path):
    silent = Teacher(lambda point: None)
    with pytest.raises(ModelError, match=f"no answer to any of {FIRST_PROMPTS} points"):
        ask(silent, tmp_path)
    assert silent.answers == FIRST_PROMPTS
    with LabelStore(tmp_path / "labels.sqlite", "points", "key") as store:
        store.add([(Point("other", "other"), 1.0)])
    ask(silent, tmp_path)  # these may be documents that a server refuses


def test_a_teacher_known_to_the_fallback_store_is_not_new(tmp_path):
    with LabelStore(tmp_path / "run.sqlite", "points", "key") as store:
        assert store.is_empty
        store.add([(Point("other", "other"), 1.0)])
    with LabelStore(tmp_path / "shard.sqlite", "points", "key", fallback=tmp_path / "run.sqlite") as shard:
        assert not shard.is_empty
    with LabelStore(tmp_path / "shard.sqlite", "pairs", "key", fallback=tmp_path / "run.sqlite") as shard:
        assert shard.is_empty


def test_guard_compares_pairs_too():
    guard = ScoreGuard(new=True)
    batch = [(Pair("query", f"a{n}", f"b{n}"), 0.5) for n in range(COMPARED_SCORES)]
    guard.watch(batch)
    with pytest.raises(ModelError, match="the same score"):
        guard.watch([(Pair("query", "a", "b"), 0.5)])

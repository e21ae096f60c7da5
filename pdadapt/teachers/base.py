"""What a teacher is asked and what it answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, cast

Task = Literal["point", "pair"]
QUESTIONS_PER_CHUNK = 2_048  # approximately


class Point(NamedTuple):
    """Is this document relevant to the query?"""

    query: str
    document: str


class Pair(NamedTuple):
    """Is document a more relevant to the query than document b?"""

    query: str
    document_a: str
    document_b: str


Question = tuple[str, ...]  # a Point or a Pair
Scores = list[tuple[Any, float | None]]  # (question, score); the score is None if the teacher gave no answer


class Chunk(NamedTuple):
    """Questions from which a teacher composes its batches.

    The teacher orders a chunk itself, so the batches do not depend on who asks. A stage that was stopped continues with
    the batches that it would have asked next.
    """

    asked: Sequence[Any]  # distinct questions that need a score
    questions: Sequence[Any]  # these and the questions answered earlier: a teacher may encode all their texts at once


class PointTeacher(Protocol):
    """Judges single documents."""

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the scores of `Point` questions batch by batch. A higher score means more relevant.

        The order within a chunk is whatever is fastest.
        """


class PairTeacher(Protocol):
    """Judges pairs of documents."""

    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield, batch by batch, the log-odds that document a is more relevant than document b.

        The order within a chunk is whatever is fastest.
        """


Teacher = PointTeacher | PairTeacher


class TeacherLoader(Protocol):
    """Loads the teacher of a task when it is first needed."""

    def __call__(self, task: Task) -> Teacher:
        """Return a PointTeacher for `point`, a PairTeacher for `pair`. Raises ModelError if it cannot be loaded."""

    def free(self) -> None:
        """Release the memory of the loaded teacher."""


Score = Callable[[Iterable[Chunk]], Iterator[Scores]]  # a teacher's score_points or score_pairs


def score_of(teacher: Teacher, task: Task) -> Score:
    """Return the teacher's method for the task."""
    return cast(PointTeacher, teacher).score_points if task == "point" else cast(PairTeacher, teacher).score_pairs


def scores_in_order(score: Score, questions: Sequence[Question]) -> list[float | None]:
    """Return the scores of the questions, in their order. Equal questions are asked once."""
    distinct = list(dict.fromkeys(questions))
    chunks = [distinct[start : start + QUESTIONS_PER_CHUNK] for start in range(0, len(distinct), QUESTIONS_PER_CHUNK)]
    batches = score(Chunk(chunk, chunk) for chunk in chunks)
    scores = dict(itertools.chain.from_iterable(batches))
    return [scores[question] for question in questions]

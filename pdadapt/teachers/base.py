"""What a teacher is asked and what it answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

Task = Literal["point", "pair"]
CHUNK = 2_048  # questions, about, in a chunk


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
Scores = list[tuple[Any, float | None]]  # (question, its score); None: the teacher gave no answer


class Chunk(NamedTuple):
    """Questions that a teacher composes its batches from, in an order of its own, so that these are the same whoever
    asks them, and a stage that was stopped goes on with the batches that it would have come to.
    """

    asked: Sequence[Any]  # no two alike
    whole: Sequence[Any]  # with those that were answered before, for texts that are encoded once for all


class PointTeacher(Protocol):
    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield scores batch by batch, in whatever order is quickest within a chunk; higher is more relevant."""


class PairTeacher(Protocol):
    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield log-odds that a is the more relevant document, likewise."""


Score = Callable[[Iterable[Chunk]], Iterator[Scores]]  # score_points or score_pairs of a teacher


def score_of(teacher: Any, task: Task) -> Score:
    """The teacher's method for points or for pairs."""
    found: Score = teacher.score_points if task == "point" else teacher.score_pairs
    return found


def answers(score: Score, questions: Sequence[Question]) -> list[float | None]:
    """The scores of these questions, in their order."""
    distinct = list(dict.fromkeys(questions))
    chunks = [distinct[start : start + CHUNK] for start in range(0, len(distinct), CHUNK)]
    batches = score(Chunk(chunk, chunk) for chunk in chunks)
    found = dict(itertools.chain.from_iterable(batches))
    return [found[question] for question in questions]

"""Teachers judge documents one by one (points) and two by two (pairs)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

Scores = list[tuple[int, float | None]]  # (index of the question asked, its score); None: the teacher gave no answer
Task = Literal["point", "pair"]


class Point(NamedTuple):
    """Is this document relevant to the query?"""

    query: str
    document: str


class Pair(NamedTuple):
    """Is document a more relevant to the query than document b?"""

    query: str
    document_a: str
    document_b: str


class PointTeacher(Protocol):
    def score_points(self, points: Sequence[Point], among: Sequence[Point] = ()) -> Iterator[Scores]:
        """Yield scores batch by batch, in whatever order is quickest; higher is more relevant.

        among: all questions of the stage, of which some may be answered; who needs it composes its batches so that a
        stage that was stopped goes on with the batches that it would have come to.
        """


class PairTeacher(Protocol):
    def score_pairs(self, pairs: Sequence[Pair], among: Sequence[Pair] = ()) -> Iterator[Scores]:
        """Yield log-odds that a is the more relevant document, likewise."""

"""Which pairs of documents to ask about (pure, seeded).

A document goes by its position in a list ordered by the point labels; a pair is (i, j), i < j.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Iterator, Sequence

from pdadapt.labeling.bradley_terry import Fit, most_informative
from pdadapt.settings.schema import PairSettings

Positions = list[tuple[int, int]]


def choose_pairs(
    settings: PairSettings,
    points: Sequence[float | None],
    scores: Sequence[float | None],
    seed: str,
    refit: Callable[[Positions], Fit],
) -> Iterator[Positions]:
    """The pairs of each round, ascending, settings.per_query in all, or as many as there are; but for `active` there is
    one round.

    points, scores: the teacher's and the student's, of every document. refit: Bradley-Terry strengths by the answers to
    pairs of earlier rounds, called when these have been asked.
    """
    if settings.strategy == "active":
        asked: Positions = []
        for number in range(settings.rounds_asked):
            size = pairs_of_round(settings, len(points), number)
            chosen = most_informative(refit(asked), size, asked) if size else []
            asked += chosen
            yield sorted(chosen)
    else:
        yield sorted(_choose(settings, points, scores, random.Random(seed)))


def _choose(
    settings: PairSettings, points: Sequence[float | None], scores: Sequence[float | None], rng: random.Random
) -> Positions:
    size, most = len(points), settings.per_query
    if settings.strategy == "adjacent":
        return [(i, i + 1) for i in range(size - 1)][:most]
    if settings.strategy == "cycles":
        return list(itertools.islice(_cycles(size, rng), min(most, size * (size - 1) // 2)))
    window = settings.window if settings.strategy == "window" else size
    every = [(i, j) for i in range(size) for j in range(i + 1, min(i + window, size))]
    if len(every) <= most:
        return every
    if settings.strategy == "uncertain":  # both say it is close, or one says the opposite of the other
        said = [
            (point or 0.0) + (score or 0.0)
            for point, score in zip(standardise(points), standardise(scores), strict=True)
        ]
        return sorted(rng.sample(every, len(every)), key=lambda pair: abs(said[pair[0]] - said[pair[1]]))[:most]
    return rng.sample(every, most)


def _cycles(size: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """The pairs of one random Hamiltonian cycle after the other, those that are new."""
    seen = set()
    while True:
        order = rng.sample(range(size), size)
        for a, b in zip(order, [*order[1:], order[0]], strict=True):
            pair = min(a, b), max(a, b)
            if a != b and pair not in seen:
                seen.add(pair)
                yield pair


def pairs_of_round(settings: PairSettings, size: int, number: int) -> int:
    """How many pairs of a list of so many documents are chosen in a round (0, 1, ...)."""
    whole, rounds = count_pairs(settings, size), settings.rounds_asked
    return whole * (number + 1) // rounds - whole * number // rounds


def count_pairs(settings: PairSettings, size: int) -> int:
    """How many pairs of a list of so many documents are chosen in all."""
    if settings.strategy == "adjacent":
        return min(settings.per_query, max(0, size - 1))
    farthest = min(settings.window, size) if settings.strategy == "window" else size
    return min(settings.per_query, sum(size - distance for distance in range(1, farthest)))


def standardise(values: Sequence[float | None]) -> list[float | None]:
    """Zero mean and unit deviation of the values there are; all zeros when they are equal."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    center, deviation = statistics.fmean(known), statistics.pstdev(known)
    return [None if value is None else (value - center) / deviation if deviation else 0.0 for value in values]

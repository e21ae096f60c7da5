"""Choose the pairs of documents to ask about. All functions are pure and seeded.

A document is identified by its position in a list that is ordered by the point labels. A pair is (i, j) with i < j.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Iterator, Sequence

from pdadapt.labeling.bradley_terry import StrengthFit, most_informative
from pdadapt.settings.schema import PairSettings

Positions = list[tuple[int, int]]


def choose_pairs(
    settings: PairSettings,
    points: Sequence[float | None],
    scores: Sequence[float | None],
    seed: str,
    refit: Callable[[Positions], StrengthFit],
) -> Iterator[Positions]:
    """Yield the pairs of each round in ascending order: settings.per_query pairs in all, or every pair if there are
    fewer.

    Only the strategy `active` has more than one round. points, scores: the teacher's point label and the student's
    score of each document. refit: returns the Bradley-Terry strengths given the answers to the pairs of earlier rounds;
    it is called after those pairs were asked.
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
    size, limit = len(points), settings.per_query
    if settings.strategy == "adjacent":
        return [(i, i + 1) for i in range(size - 1)][:limit]
    if settings.strategy == "cycles":
        return list(itertools.islice(_cycles(size, rng), min(limit, size * (size - 1) // 2)))
    window = settings.window if settings.strategy == "window" else size
    eligible = [(i, j) for i in range(size) for j in range(i + 1, min(i + window, size))]
    if len(eligible) <= limit:
        return eligible
    if settings.strategy == "uncertain":  # teacher and student both see a small difference, or they disagree
        sums = [
            (point or 0.0) + (score or 0.0)
            for point, score in zip(standardise(points), standardise(scores), strict=True)
        ]
        return sorted(rng.sample(eligible, len(eligible)), key=lambda pair: abs(sums[pair[0]] - sums[pair[1]]))[:limit]
    return rng.sample(eligible, limit)


def _cycles(size: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the pairs of random Hamiltonian cycles, one cycle after the other, without repeated pairs."""
    seen = set()
    while True:
        order = rng.sample(range(size), size)
        for a, b in zip(order, [*order[1:], order[0]], strict=True):
            pair = min(a, b), max(a, b)
            if a != b and pair not in seen:
                seen.add(pair)
                yield pair


def pairs_of_round(settings: PairSettings, size: int, number: int) -> int:
    """Return how many pairs a round (0, 1, ...) asks about for a list of `size` documents."""
    pairs, rounds = count_pairs(settings, size), settings.rounds_asked
    return pairs * (number + 1) // rounds - pairs * number // rounds


def count_pairs(settings: PairSettings, size: int) -> int:
    """Return how many pairs all rounds ask about for a list of `size` documents."""
    if settings.strategy == "adjacent":
        return min(settings.per_query, max(0, size - 1))
    farthest = min(settings.window, size) if settings.strategy == "window" else size
    return min(settings.per_query, sum(size - distance for distance in range(1, farthest)))


def standardise(values: Sequence[float | None]) -> list[float | None]:
    """Scale the known values to zero mean and unit deviation. If they are all equal, they become zeros."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    center, deviation = statistics.fmean(known), statistics.pstdev(known)
    return [None if value is None else (value - center) / deviation if deviation else 0.0 for value in values]

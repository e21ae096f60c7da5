"""Which pairs of documents to ask about (pure, seeded)."""

from __future__ import annotations

import random


def sample_pairs(length: int, window: int, most: int, seed: str) -> list[tuple[int, int]]:
    """Positions (i, j), i < j and j - i < window, in a list of `length` documents ordered by their point labels.

    At most `most` of them, drawn without replacement by `seed`, in ascending order (PairDistill section 3.2: delta is
    the window, m is `most`). All of them when there are no more.
    """
    pairs = [(i, j) for i in range(length) for j in range(i + 1, min(i + window, length))]
    if len(pairs) <= most:
        return pairs
    return sorted(random.Random(seed).sample(pairs, most))


def count_pairs(length: int, window: int, most: int) -> int:
    """How many `sample_pairs` gives."""
    return min(most, sum(length - distance for distance in range(1, min(window, length))))

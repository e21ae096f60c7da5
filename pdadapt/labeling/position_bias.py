"""In which order the two documents of a pair are shown, and what the order changes."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence


def asked_orders(order: str, i: int, j: int, doc_ids: Sequence[str], seed: str) -> list[tuple[int, int]]:
    """In which orders the teacher is shown documents i and j of a list, of which i ranks higher.

    A random order is that of the two documents, whatever their ranks, so that another iteration asks the same.
    """
    if order == "both":
        return [(i, j), (j, i)]
    if order == "random":
        first, second = sorted((i, j), key=lambda position: doc_ids[position])
        swapped = random.Random(f"{seed}/{doc_ids[first]}/{doc_ids[second]}").random() < 0.5
        return [(second, first) if swapped else (first, second)]
    return [(i, j)]


class Orders:
    """How far the order of the documents decides: PairDistill, appendix A.2.

    `position_bias` is the mean of the log-odds for what stands first; `flip_rate` the share of pairs, asked in both
    orders, where either order prefers what stands first, or what second.
    """

    def __init__(self) -> None:
        self.pairs = self.both = self.flipped = 0
        self.bias = 0.0

    def add(self, answers: Sequence[float]) -> None:
        """Of a pair, the log-odds for what stood first, in one order or in both."""
        self.pairs += 1
        self.bias += statistics.fmean(answers)
        if len(answers) == 2:
            self.both += 1
            self.flipped += answers[0] * answers[1] > 0

    def figures(self) -> dict[str, float]:
        found = {"position_bias": self.bias / self.pairs} if self.pairs else {}
        return found | ({"flip_rate": self.flipped / self.both} if self.both else {})

"""The order in which the two documents of a pair are shown, and how much this order changes the answer."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence


def presentation_orders(order: str, i: int, j: int, doc_ids: Sequence[str], seed: str) -> list[tuple[int, int]]:
    """Return the orders in which the teacher is shown documents i and j of a list, where i ranks higher.

    A random order depends on the two document ids and the seed, not on the ranks, so another iteration asks the same
    question.
    """
    if order == "both":
        return [(i, j), (j, i)]
    if order == "random":
        first, second = sorted((i, j), key=lambda position: doc_ids[position])
        swapped = random.Random(f"{seed}/{doc_ids[first]}/{doc_ids[second]}").random() < 0.5
        return [(second, first) if swapped else (first, second)]
    return [(i, j)]


class PositionBias:
    """How much the order of two documents decides the answer (PairDistill, appendix A.2).

    `position_bias` is the mean log-odds for the document shown first. `flip_rate` is the share of pairs whose answer
    flips with the order: both answers prefer the first position, or both the second. It counts only pairs that were
    asked in both orders.
    """

    def __init__(self) -> None:
        self.pairs = self.in_both_orders = self.flipped = 0
        self.bias_sum = 0.0

    def add(self, answers: Sequence[float]) -> None:
        """Count one pair. answers: the log-odds for the document shown first, in one order or in both."""
        self.pairs += 1
        self.bias_sum += statistics.fmean(answers)
        if len(answers) == 2:
            self.in_both_orders += 1
            self.flipped += answers[0] * answers[1] > 0

    def figures(self) -> dict[str, float]:
        """Return the two figures. A figure is left out if no pair counts for it."""
        bias = {"position_bias": self.bias_sum / self.pairs} if self.pairs else {}
        return bias | ({"flip_rate": self.flipped / self.in_both_orders} if self.in_both_orders else {})

"""Batches by tokens: as many texts at once as a budget holds, fewer when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Budget:
    """Tokens scored at once; halved when memory runs out, so that the largest that worked is kept."""

    def __init__(self, tokens: int):
        self.tokens = tokens

    def batches(
        self, costs: Sequence[int], score: Callable[[range], Result], padded: bool = False
    ) -> Iterator[tuple[range, Result]]:
        """Score items in their order, as many at once as fit, one at least.

        costs: tokens of each item; padded: they are padded to the first of a batch, so they come longest first.
        score: which items -> their scores. Raises torch.OutOfMemoryError when a single item does not fit.
        """
        start = 0
        while start < len(costs):
            batch = self._take(costs, start, padded)
            try:
                scores = score(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                scores = None
            if scores is None:  # out of the handler, which holds what the failed batch has allocated
                self.tokens = max(1, min(self.tokens, sum(costs[i] for i in batch)) // 2)
                torch.cuda.empty_cache()
                continue
            yield batch, scores
            start = batch.stop

    def _take(self, costs: Sequence[int], start: int, padded: bool) -> range:
        total, stop = 0, start
        while stop < len(costs):
            total += costs[start] if padded else costs[stop]
            if stop > start and total > self.tokens:
                break
            stop += 1
        return range(start, stop)


def cut(features: dict[str, Any], rows: Sequence[int], length: int) -> dict[str, Any]:
    """These rows of right-padded features, `length` tokens each."""
    return {key: value[list(rows), :length] if isinstance(value, Tensor) else value for key, value in features.items()}

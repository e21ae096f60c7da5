"""Batches by tokens: as many texts at once as a budget holds. When memory runs out, the budget shrinks for good."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from pdadapt.errors import is_out_of_memory
from pdadapt.models.device import release_memory
from pdadapt.runtime.files import read_settings, write_atomic

Result = TypeVar("Result")
MEMORY_ERRORS = (MemoryError, RuntimeError)  # some of these say that memory ran out: see errors.is_out_of_memory


class BatchLimits:
    """The sizes that fit into memory, by name. A file keeps them for later processes."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self.file: Path | None = None

    def keep_in(self, file: Path | None) -> None:
        """Read the sizes from this file, if it exists, and write every change to it."""
        self.file = file
        self.found = read_settings(file) if file and file.exists() else {}

    def get(self, name: str, wanted: int) -> int:
        return min(wanted, self.found.get(name, wanted))

    def lower(self, name: str, size: int) -> None:
        """Memory ran out: try `size` next. Frees what the failed try left."""
        self.found[name] = size
        if self.file:
            write_atomic(self.file, json.dumps(self.found, indent=2) + "\n")
        release_memory()


batch_limits = BatchLimits()  # one per process, because a process has one run


class TokenBudget:
    """The number of tokens that are scored at once. It is halved when memory runs out."""

    def __init__(self, name: str, tokens: int):
        """name: budgets of the same name share the sizes that were found."""
        self.name = name
        self.tokens = batch_limits.get(name, tokens)

    def batches(
        self,
        costs: Sequence[int],
        score: Callable[[range], Result],
        padded: bool = False,
        first: Sequence[int] | None = None,
    ) -> Iterator[tuple[range, Result]]:
        """Score items in their order. Yields (range of items, their scores) for each batch of one item or more.

        costs: tokens of each item; first: tokens of an item at the start of a batch, where it shares no prefix with
        the item before it; padded: items are padded to the first of a batch, so the longest come first; score: maps a
        range of items to their scores. A resume at the start of a batch gives the same later batches.
        Raises torch.OutOfMemoryError when a single item does not fit.
        """
        start = 0
        while start < len(costs):
            batch = self._take(costs, first or costs, start, padded)
            try:
                scores = score(batch)
            except MEMORY_ERRORS as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                scores = None
            if scores is None:  # outside the handler, which keeps the memory of the failed batch
                self.tokens = max(1, min(self.tokens, self._spent(costs, first or costs, batch, padded)) // 2)
                batch_limits.lower(self.name, self.tokens)
                continue
            yield batch, scores
            start = batch.stop

    def _take(self, costs: Sequence[int], first: Sequence[int], start: int, padded: bool) -> range:
        total, stop = first[start], start + 1
        while stop < len(costs):
            total += costs[start] if padded else costs[stop]
            if total > self.tokens:
                break
            stop += 1
        return range(start, stop)

    def _spent(self, costs: Sequence[int], first: Sequence[int], batch: range, padded: bool) -> int:
        if padded:
            return costs[batch.start] * len(batch)
        return first[batch.start] + sum(costs[i] for i in batch[1:])


def slice_features(features: dict[str, Any], rows: Sequence[int], length: int) -> dict[str, Any]:
    """These rows of right-padded features, `length` tokens each."""
    return {key: value[list(rows), :length] if isinstance(value, Tensor) else value for key, value in features.items()}

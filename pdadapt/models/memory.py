"""Batches by tokens: as many texts at once as a budget holds, fewer when memory runs out, which the run remembers."""

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
MEMORY_ERRORS = (MemoryError, RuntimeError)  # what running out of memory raises, if errors.is_out_of_memory


class BatchLimits:
    """The sizes that memory allowed, by what they are of; with a file, for as long as that is there."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self.file: Path | None = None

    def remember(self, file: Path | None) -> None:
        """Begin with what this file says, if it is there, and keep in it what is found out."""
        self.file = file
        self.found = read_settings(file) if file and file.exists() else {}

    def get(self, name: str, wanted: int) -> int:
        return min(wanted, self.found.get(name, wanted))

    def lower(self, name: str, size: int) -> None:
        """Memory ran out: `size` is what to try next. Frees what the failed try has left."""
        self.found[name] = size
        if self.file:
            write_atomic(self.file, json.dumps(self.found, indent=2) + "\n")
        release_memory()


batch_limits = BatchLimits()  # of this process, which has one run


class TokenBudget:
    """Tokens scored at once; halved when memory runs out, so that the largest that worked is kept."""

    def __init__(self, name: str, tokens: int):
        """name: what for; budgets of one name share what is found out."""
        self.name = name
        self.tokens = batch_limits.get(name, tokens)

    def batches(
        self,
        costs: Sequence[int],
        score: Callable[[range], Result],
        padded: bool = False,
        first: Sequence[int] | None = None,
    ) -> Iterator[tuple[range, Result]]:
        """Score items in their order, as many at once as fit, one at least.

        costs: tokens of each item; first: of one that begins a batch, if that is more (it shares nothing with the one
        before it); padded: they are padded to the first of a batch, so they come longest first. Begun anew at the
        start of a batch, the batches that follow are the same.
        score: which items -> their scores. Raises torch.OutOfMemoryError when a single item does not fit.
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
            if scores is None:  # out of the handler, which holds what the failed batch has allocated
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

"""Which systems are measured together, and which of them are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pdadapt.retrieval.engines.load import BASELINE
from pdadapt.runs.folder import last_checkpoint


class Systems(NamedTuple):
    """Models and run files that are measured together. The last one is compared with each of its baselines."""

    given: list[str]  # as the user names them
    names: list[str]  # the same, with a checkpoint in place of each run folder
    compared_pairs: list[tuple[int, int]]  # the comparisons: two places in `names` each


def choose_systems(measured: str, baselines: Sequence[str] = (), bm25: bool = False) -> Systems:
    """bm25: put BM25 before the others. It is compared only when there are no other baselines.

    Raises RunError when a run folder holds no checkpoint.
    """
    asked = [*baselines, measured]
    given = [BASELINE, *asked] if bm25 and BASELINE not in asked else asked
    first, last = len(given) - len(asked) if baselines else 0, len(given) - 1
    return Systems(given, list(map(last_checkpoint, given)), [(place, last) for place in range(first, last)])

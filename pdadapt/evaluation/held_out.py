"""Which queries are held out of training, and which of them judge it."""

from __future__ import annotations

import random
from collections.abc import Collection

from pdadapt.settings.schema import Recipe

LEAST, MOST = 20, 500  # queries: fewer say nothing, so they had better teach; more see no difference worth having


def held_out(query_ids: Collection[str], share: float, seed: int) -> set[str]:
    """Those kept out of training: so large a share, at most MOST, none if they are not LEAST; drawn by the seed."""
    return set(random.Random(seed).sample(sorted(query_ids), count_held_out(len(query_ids), share)))


def count_held_out(queries: int, share: float) -> int:
    """How many that is."""
    count = min(MOST, round(share * queries))
    return count if count >= LEAST else 0


def judging(kept_out: set[str], recipe: Recipe) -> set[str]:
    """Those of the queries held out by which a training is judged: half, where the others chose its best state."""
    return set(sorted(kept_out)[::2]) if recipe.train.checked else kept_out


DECISIVE = "pair accuracy"  # the measure of agreement by which all is decided

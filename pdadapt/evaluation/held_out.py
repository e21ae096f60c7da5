"""Which queries are held out of training, which of them judge it, and how far students agree with the teacher there."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pdadapt.runs.context import RunContext

MIN_HELD_OUT = 20  # fewer queries say nothing about a student, so they are better used for training
MAX_HELD_OUT = 500  # more queries only detect differences too small to matter
DECISIVE_MEASURE = "pair accuracy"  # the measure of agreement that decides between students


def draw_held_out(query_ids: Collection[str], share: float, seed: int) -> set[str]:
    """The queries that are kept out of training, drawn by the seed. See count_held_out."""
    return set(random.Random(seed).sample(sorted(query_ids), count_held_out(len(query_ids), share)))


def count_held_out(queries: int, share: float) -> int:
    """The number of queries held out: this share, at most MAX_HELD_OUT; none if it is less than MIN_HELD_OUT."""
    count = min(MAX_HELD_OUT, round(share * queries))
    return count if count >= MIN_HELD_OUT else 0


def judging(context: RunContext) -> set[str]:
    """The held-out queries that judge a training: half of them, if the other half chooses its best state."""
    return set(sorted(context.held_out)[::2]) if context.recipe.train.keeps_best else set(context.held_out)


def still_rises(checks: Sequence[Mapping[str, float]]) -> bool:
    """Whether the agreement at the last check of a training is the best, so that more steps or queries may help.

    checks: the rows of checks.jsonl. The first is that of the student before training.
    """
    values = [check["value"] for check in checks]
    return len(values) > 2 and values[-1] > max(values[:-1])


def keeps_base(checks: Sequence[Mapping[str, float]]) -> bool:
    """Whether no check of a training was better than the first one, of the student before training."""
    values = [check["value"] for check in checks]
    return len(values) > 1 and max(values[1:]) <= values[0]


def agreed_values(rows: Iterable[Mapping[str, Any]], student: str, measure: str) -> dict[str, float]:
    """A student's agreement with the teacher, by query id, from the rows of held-out.jsonl.

    Lists without a value are left out: the teacher said too little about them.
    """
    values = {row["query_id"]: row["students"][student]["agreement"][measure] for row in rows}
    return {query_id: value for query_id, value in values.items() if value is not None}

"""Means over seeds, and their intervals. A query's value is the mean of its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pdadapt.evaluation.measures import PerQuery
from pdadapt.evaluation.significance import compare_two

RESAMPLES = 10_000


def mean_of(of_seeds: Sequence[PerQuery]) -> PerQuery:
    """The value of each query, averaged over the seeds."""
    return {query_id: statistics.fmean(values[query_id] for values in of_seeds) for query_id in of_seeds[0]}


def mean_and_sd(of_seeds: Sequence[PerQuery]) -> tuple[str, str]:
    """The mean over the queries and seeds, and the standard deviation of the seeds' means (0 for one seed)."""
    means = [statistics.fmean(values.values()) for values in of_seeds]
    return f"{statistics.fmean(means):.4f}", f"{statistics.stdev(means) if len(means) > 1 else 0:.4f}"


def against(base: Sequence[PerQuery], other: Sequence[PerQuery]) -> tuple[str, str, str]:
    """The change of the mean over the queries, half of its 95% interval, and p of the paired test."""
    change = compare_two(mean_of(base), mean_of(other), RESAMPLES, 0)
    return f"{change.change:+.4f}", f"{change.margin or 0.0:.4f}", f"{change.p:.3f}"

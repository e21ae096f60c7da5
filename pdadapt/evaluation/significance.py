"""Do two systems differ by more than chance? Paired tests, corrected for several comparisons (Holm)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import permutation_test, ttest_1samp

from pdadapt.data.answers import Answers
from pdadapt.data.run_file import Ranking
from pdadapt.data.trec import Qrels
from pdadapt.evaluation.measures import PerQuery, aggregate, per_query
from pdadapt.settings.schema import EvaluateSettings

SAME = 1e-9  # differences that differ by less are equal


def paired_test(base: PerQuery, other: PerQuery, resamples: int, seed: int) -> float:
    """Two-sided p-value of the paired randomisation test (Smucker et al. 2007) on the mean difference.

    Swaps the two systems' values per query at random, `resamples` times (all ways when there are fewer).
    """
    difference = np.array([other[query_id] - base[query_id] for query_id in base])
    difference = difference[difference != 0]
    if len(difference) < 2:
        return 1.0
    result = permutation_test(
        (difference,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        batch=1_000,
        rng=seed,
    )
    return float(result.pvalue)


def compare_two(base: PerQuery, other: PerQuery, resamples: int, seed: int) -> dict[str, Any]:
    """How the second system differs from the first, query by query.

    change: of the mean, with its 95 % interval (of Student's t; null where there is none); p: of the paired
    randomisation test; p_t: of the paired t-test; wins, ties, losses: queries.
    """
    difference = np.array([other[query_id] - base[query_id] for query_id in base])
    interval, p_t = None, 0.0 if len(difference) > 1 and difference.any() else 1.0
    if len(difference) > 1 and np.ptp(difference) > SAME:
        found = ttest_1samp(difference, 0.0)
        interval, p_t = [float(end) for end in found.confidence_interval(0.95)], float(found.pvalue)
    return {
        "change": float(difference.mean()),
        "interval": interval,
        "p": paired_test(base, other, resamples, seed),
        "p_t": p_t,
        "wins": int((difference > 0).sum()),
        "ties": int((difference == 0).sum()),
        "losses": int((difference < 0).sum()),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests at once, corrected so that the chance of any false finding is kept (Holm 1979)."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = highest
    return corrected


def compare(
    rankings: Sequence[Ranking],
    qrels: Qrels,
    settings: EvaluateSettings,
    seed: int,
    pairs: Sequence[tuple[int, int]] | None = None,
    answers: Answers | None = None,
) -> dict[str, Any]:
    """For each measure the mean of every ranking, and comparisons of pairs of them: each with the first, or `pairs`."""
    values = [per_query(ranking, qrels, settings.measures, answers) for ranking in rankings]
    return compare_values(values, settings, seed, pairs)


def compare_values(
    systems: Sequence[Mapping[str, PerQuery]],
    settings: EvaluateSettings,
    seed: int,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """The same, of the values of every system: measure -> query_id -> value.

    A comparison is what compare_two says, with `base` and `system`, their places, and `p_holm` and `p_t_holm`, its p
    and p_t corrected for how many comparisons there are.
    """
    pairs = [(0, i) for i in range(1, len(systems))] if pairs is None else pairs
    found = {}
    for name in systems[0]:
        comparisons = [
            {"base": i, "system": j, **compare_two(systems[i][name], systems[j][name], settings.resamples, seed)}
            for i, j in pairs
        ]
        for p in ("p", "p_t"):
            corrected = holm([comparison[p] for comparison in comparisons])
            comparisons = [one | {f"{p}_holm": value} for one, value in zip(comparisons, corrected, strict=True)]
        found[name] = {
            "means": [aggregate(name, system[name]) for system in systems],
            "comparisons": comparisons,
        }
    return found

"""Do two systems differ by more than chance? Paired tests, corrected for the number of comparisons (Holm)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import permutation_test, ttest_1samp

from pdadapt.data.answers import AnswerMatcher
from pdadapt.data.run_file import Ranking
from pdadapt.data.trec import Qrels
from pdadapt.evaluation.measures import PerQuery, per_query, value_of_system
from pdadapt.evaluation.results import Comparison, MeasureResult, Measures
from pdadapt.settings.schema import EvaluateSettings

ROUNDING = 1e-9  # differences that vary by less than this are equal


def paired_test(base: PerQuery, other: PerQuery, resamples: int, seed: int) -> float:
    """Two-sided p-value of the paired randomisation test (Smucker et al. 2007) on the mean difference.

    Swaps the two systems' values per query at random, `resamples` times. If fewer ways to swap exist, tries them all.
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


def compare_two(base: PerQuery, other: PerQuery, resamples: int, seed: int) -> Comparison:
    """Compare system 1 with base 0, query by query. The p-values are those of a single comparison."""
    difference = np.array([other[query_id] - base[query_id] for query_id in base])
    interval, p_t = None, 0.0 if len(difference) > 1 and difference.any() else 1.0
    if len(difference) > 1 and np.ptp(difference) > ROUNDING:
        test = ttest_1samp(difference, 0.0)
        low, high = test.confidence_interval(0.95)
        interval, p_t = (float(low), float(high)), float(test.pvalue)
    p = paired_test(base, other, resamples, seed)
    return Comparison(
        base=0,
        system=1,
        change=float(difference.mean()),
        interval=interval,
        p=p,
        p_t=p_t,
        wins=int((difference > 0).sum()),
        ties=int((difference == 0).sum()),
        losses=int((difference < 0).sum()),
        p_holm=p,
        p_t_holm=p_t,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of several tests so that the chance of any false finding is kept (Holm 1979)."""
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
    answers: AnswerMatcher | None = None,
) -> Measures:
    """Measure every ranking and compare pairs of them. See compare_values."""
    values = [per_query(ranking, qrels, settings.measures, answers) for ranking in rankings]
    return compare_values(values, settings, seed, pairs)


def compare_values(
    systems: Sequence[Mapping[str, PerQuery]],
    settings: EvaluateSettings,
    seed: int,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Measures:
    """The mean of every system for each measure, and comparisons of pairs of systems.

    systems: the values of each system, by measure and query id. pairs: positions of a base and a system; None compares
    every system with the first.
    """
    pairs = [(0, i) for i in range(1, len(systems))] if pairs is None else pairs
    measures = {}
    for name in systems[0]:
        every = [compare_two(systems[i][name], systems[j][name], settings.resamples, seed) for i, j in pairs]
        corrected = zip(holm([one.p for one in every]), holm([one.p_t for one in every]), strict=True)
        measures[name] = MeasureResult(
            means=tuple(value_of_system(name, system[name]) for system in systems),
            comparisons=tuple(
                replace(one, base=i, system=j, p_holm=p, p_t_holm=p_t)
                for one, (i, j), (p, p_t) in zip(every, pairs, corrected, strict=True)
            ),
        )
    return measures

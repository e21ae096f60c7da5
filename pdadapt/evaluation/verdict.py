"""Did the adaptation help? One sentence from the results of a run, with or without relevance judgments."""

from __future__ import annotations

from collections.abc import Sequence

from pdadapt.evaluation.held_out import DECISIVE_MEASURE
from pdadapt.evaluation.results import MeasureResult, Measures, Verdict
from pdadapt.runtime.format import p_value

ALPHA = 0.05  # significance level of the paired tests
HELPED, NO_DIFFERENCE, HARMED, UNKNOWN = "helped", "no difference", "harmed", "unknown"


def verdict(
    iteration: int, agreement: Sequence[Measures], general: Sequence[Measures], measures: Measures, test_queries: int
) -> Verdict:
    """The verdict on the student of an iteration, as compared with the base.

    agreement, general: of each iteration. measures: of the base and the student of each iteration, empty without
    judgments.

    The outcome is that of the student's agreement with its teacher on held-out queries. Where no query is held out, the
    measures decide. A student of a bad teacher also comes to agree with it: where the general set fell significantly,
    the outcome is `harmed`, unless the measures say that the adaptation helped (docs/log). Without judgments the
    sentence says that the outcome rests on the teacher.
    """
    agreed = agreement[iteration - 1].get(DECISIVE_MEASURE) if agreement else None
    parts, outcomes = [], []
    if agreed:
        outcomes.append(outcome(agreed))
        count = agreed.against_base().queries
        parts.append(f"{DECISIVE_MEASURE} with the teacher on {count:,} held-out queries {values_with_p(agreed)}")
    if measures:
        name, result = next(iter(measures.items()))
        outcomes.append(outcome(result, iteration))
        parts.append(f"{name} on {test_queries:,} judged test queries {values_with_p(result, iteration)}")
    decided = outcomes[0] if outcomes else UNKNOWN
    forgot = False
    if general:
        name, result = next(iter(general[iteration - 1].items()))
        forgot = outcome(result) == HARMED
        if forgot and not (measures and outcomes[-1] == HELPED):
            decided = HARMED
        part = f"{name} on the general set {values_with_p(result)}"
        parts.insert(0 if forgot else len(parts), part + (", so the student forgot something" if forgot else ""))
    if not outcomes:
        parts.insert(0, "no queries were held out and there are no judgments")
    rests_on_teacher = agreed and not measures and not forgot and decided != NO_DIFFERENCE
    reserved = ", if the teacher judges well" if rests_on_teacher else ""
    return Verdict(decided, f"{decided.capitalize()}{reserved}: {'; '.join(parts)}.")


def outcome(result: MeasureResult, system: int | None = None) -> str:
    """Whether a system, or the last one, differs significantly from the base."""
    comparison = result.against_base(system)
    if comparison.p_holm >= ALPHA:
        return NO_DIFFERENCE
    return HELPED if comparison.change > 0 else HARMED


def values_with_p(result: MeasureResult, system: int | None = None) -> str:
    """The values of the base and a system, or the last one, with the p-value."""
    comparison = result.against_base(system)
    before, after = result.before_and_after(comparison)
    return f"{before:.3f} → {after:.3f} ({p_equals(comparison.p_holm)})"


def p_equals(p: float) -> str:
    text = p_value(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"

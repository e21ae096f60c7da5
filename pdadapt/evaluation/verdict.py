"""Did it help? One sentence, from what a run has measured: with judgments, or without any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pdadapt.evaluation.held_out import DECISIVE
from pdadapt.runtime.format import p_value

ALPHA = 0.05  # of the paired tests
HELPED, SAME, HARMED, UNKNOWN = "helped", "no difference", "harmed", "unknown"


def verdict(metrics: Mapping[str, Any]) -> dict[str, str]:
    """`outcome` (helped, no difference, harmed or unknown) and `sentence`, of what metrics.json holds.

    It is about the iteration kept for use, or the last where the base is kept. The outcome is that of the student's
    agreement with its teacher on the queries held out; but who learns from a bad teacher comes to agree with it too, so
    where the general set fell significantly it is harmed, unless judgments say that it helped (docs/LOG.md). The true
    measures stand beside it where there are judgments, and decide where nothing was held out; without any the sentence
    says that all rests on the teacher.
    """
    shown = metrics["iteration"] or len(metrics["labels"])
    agreement = metrics["agreement"][shown - 1].get(DECISIVE) if metrics["agreement"] else None
    measures, general = metrics["measures"], metrics["general"]
    parts, outcomes = [], []
    if agreement:
        outcomes.append(outcome(agreement))
        asked = against_base(agreement, None)
        count = sum(asked.get(kind, 0) for kind in ("wins", "ties", "losses"))
        parts.append(f"on {count:,} queries held out its {DECISIVE} with the teacher went {change(agreement)}")
    if measures:
        name, found = next(iter(measures.items()))
        outcomes.append(outcome(found, shown))
        parts.append(f"{name} on {metrics['test_queries']:,} judged test queries went {change(found, shown)}")
    found = outcomes[0] if outcomes else UNKNOWN
    forgot = False
    if general:
        name, values = next(iter(general[shown - 1].items()))
        forgot = outcome(values) == HARMED
        if forgot and not (measures and outcomes[-1] == HELPED):
            found = HARMED
        said = f"{name} on the general set went {change(values)}"
        parts.insert(0 if forgot else len(parts), said + (", so something was forgotten" if forgot else ""))
    if not outcomes:
        parts.insert(0, "no query was held out and there are no judgments")
    reserved = ", if the teacher judges well" if agreement and not measures and not forgot and found != SAME else ""
    return {"outcome": found, "sentence": f"{found.capitalize()}{reserved}: {'; '.join(parts)}."}


def outcome(found: Mapping[str, Any], system: int | None = None) -> str:
    """Of a system, or the last one, against the base."""
    comparison = against_base(found, system)
    if comparison.get("p_holm", comparison["p"]) >= ALPHA:
        return SAME
    return HELPED if comparison["change"] > 0 else HARMED


def change(found: Mapping[str, Any], system: int | None = None) -> str:
    comparison = against_base(found, system)
    before, after = found["means"][comparison["base"]], found["means"][comparison["system"]]
    return f"{before:.3f} → {after:.3f} (p {p_value(comparison.get('p_holm', comparison['p']))})"


def against_base(found: Mapping[str, Any], system: int | None) -> Mapping[str, Any]:
    every: Sequence[Mapping[str, Any]] = found["comparisons"]
    return every[-1] if system is None else next(one for one in every if one["system"] == system)

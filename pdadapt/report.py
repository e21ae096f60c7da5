"""What a person reads after a run: the table of base against adapted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table


def comparison_table(metrics: dict[str, Any], systems: Sequence[str]) -> Group:
    """A title, and one row a measure: each system's mean, the change against the first, and the p-value."""
    title = f"{metrics['corpus']}: {metrics['test_queries']:,} test queries, {metrics['documents']:,} documents"
    table = Table()
    table.add_column("measure")
    for number, system in enumerate(systems):
        table.add_column(system, justify="right")
        if number:
            table.add_column("change", justify="right")
            table.add_column("p", justify="right")
    for name, values in metrics["measures"].items():
        base, *others = values["means"]
        row = [name, f"{base:.4f}"]
        for value, p in zip(others, values["p_values"], strict=True):
            row += [f"{value:.4f}", f"{value - base:+.4f}", f"{p:.3f}" if p >= 0.001 else "<0.001"]
        table.add_row(*row)
    return Group(title, table)


def label_summary(figures: Mapping[str, float]) -> str:
    """One sentence on what the teacher said: how much was asked, and how far its pairs can be trusted."""
    points, new = figures["points"], figures["points_asked"]
    text = f"{points:,} points ({new:,} not in the store before), {figures['pairs']:,} pairs"
    if figures.get("pairs_derived"):
        text += " (derived from the points, none asked)"
    text += order_summary(figures)
    if "disagreement" in figures:
        text += f"; {figures['disagreement']:.0%} disagree with the points"
    unanswered = {name: figures.get(f"{name}_unanswered", 0) for name in ("points", "pairs")}
    if any(unanswered.values()):
        text += "; no answer to " + " and ".join(f"{count:,} {name}" for name, count in unanswered.items() if count)
    return text + "."


def order_summary(figures: Mapping[str, float]) -> str:
    """How far the order of two documents decides what the teacher says of them."""
    text = ""
    if "flip_rate" in figures:
        text += f"; the answer flips with the order in {figures['flip_rate']:.0%} of them"
    if "position_bias" in figures:
        text += f"; position bias {figures['position_bias']:+.2f} log-odds"
    return text


def agreement_summary(figures: Mapping[str, Any]) -> str:
    """One sentence on whether the student came to agree with the teacher on the queries held out."""
    parts = []
    for name, values in figures.items():
        (before, after), (p,) = values["means"], values["p_values"]
        parts.append(f"{name} {before:.3f} -> {after:.3f} (p {f'{p:.3f}' if p >= 0.001 else '<0.001'})")
    return "; ".join(parts) if parts else "no query held out says enough"

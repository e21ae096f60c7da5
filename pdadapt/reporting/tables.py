"""What a person reads in a terminal after a run: systems compared, and what the labels are like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Column, Table

from pdadapt.runtime.format import p_value
from pdadapt.runtime.terminal import Name, WholeTable, plain

TESTS = {"p": "p_holm", "p (t)": "p_t_holm"}  # the randomisation test's, the t-test's
ONE_TEST = ("p",)


def comparison_table(metrics: Mapping[str, Any], systems: Sequence[str]) -> Group:
    """A title; one row a measure with each system's value; and for every comparison the change with its 95 % interval,
    the p-value, and how many queries rose, stayed and fell.

    Of a single comparison these stand in the same row, of several also the t-test's p-value.
    """
    title = f"{metrics['corpus']}: {metrics['test_queries']:,} test queries"
    title += f", {metrics['documents']:,} documents" if metrics["documents"] else ""
    single = max((len(found["comparisons"]) for found in metrics["measures"].values()), default=0) == 1
    table = WholeTable(
        "measure",
        *(Column(plain(system), justify="right") for system in systems),
        *(_change_columns(ONE_TEST) if single else ()),
    )
    for name, found in metrics["measures"].items():
        cells = [f"{value:.4f}" for value in found["means"]]
        table.add_row(name, *cells, *(_change(found["comparisons"][0], ONE_TEST) if single else ()))
    if single or len(systems) == 1:
        return Group(plain(title), table)
    changes = WholeTable("measure", Name("comparison"), *_change_columns(TESTS))
    for name, found in metrics["measures"].items():
        for row, one in enumerate(found["comparisons"]):
            pair = f"{systems[one['system']]} - {systems[one['base']]}"
            changes.add_row("" if row else name, plain(pair), *_change(one, TESTS))
    return Group(plain(title), table, changes, "p's: corrected for so many comparisons (Holm)")


def _change_columns(tests: Iterable[str]) -> list[Column]:
    return [Column(name, justify="right") for name in ("change ± 95 %", *tests, "+/=/-")]


def _change(comparison: Mapping[str, Any], tests: Iterable[str]) -> list[str]:
    low, high = comparison["interval"] or (0.0, 0.0)
    interval = f" ± {(high - low) / 2:.4f}" if comparison["interval"] else ""
    queries = "/".join(str(comparison[kind]) for kind in ("wins", "ties", "losses"))
    p_values = (p_value(comparison[TESTS[test]]) for test in tests)
    return [f"{comparison['change']:+.4f}{interval}", *p_values, queries]


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of each path, as many as tell them all apart."""
    parts = [name.split("/") for name in names]
    for kept in range(1, max(map(len, parts), default=0) + 1):
        found = ["/".join(part[-kept:]) for part in parts]
        if len(set(found)) == len(set(names)):
            return found
    return list(names)


def changed_queries(metrics: Mapping[str, Any], systems: Sequence[str]) -> Table:
    """The queries that differ most in the first comparison, with their best documents by either system."""
    measure, found = next(iter(metrics["measures"].items()))
    first = found["comparisons"][0]
    best = [Name(plain(f"best by {systems[first[which]]}")) for which in ("base", "system")]
    table = WholeTable(Name("query"), Column(measure, justify="right"), *best, title="Queries that changed most")
    for one in metrics["most_changed"]:
        before, after = one[measure]
        text = plain(one["query"] or one["query_id"])
        text.truncate(60, overflow="ellipsis")
        table.add_row(text, f"{before:.2f} → {after:.2f}", *(plain(", ".join(top)) for top in one["top"]))
    return table


def queries_table(report: Mapping[str, Any]) -> Group:
    """How many queries of each kind an LLM has written, what became of them, and some that are kept."""
    kinds: Mapping[str, Mapping[str, int]] = report["kinds"]
    every: Counter[str] = sum(map(Counter, kinds.values()), Counter())
    table = WholeTable("queries", *(Column(kind, justify="right") for kind in [*kinds, "all"]))
    for end in dict.fromkeys(["written", "kept", *sorted(every)]):
        table.add_row(end, *(f"{counts.get(end, 0):,}" for counts in [*kinds.values(), every]))
    documents = report["documents"]
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in documents["left_out"].items())
    lines = [
        f"Of {documents['looked_at']:,} documents that were looked at {documents['fit']:,} were fit to write about"
        + (f" ({left_out})." if left_out else "."),
        "Kept, for example: " + " / ".join(report["examples"]["kept"]),
    ]
    if report["kept"] < report["wanted"]:
        lines.append(
            f"{report['kept']:,} of {report['wanted']:,} wanted are kept: every kind was asked of every document, or "
            "given up, since hardly one was fit to be kept. A better LLM (generate.model), or shorter documents "
            "(--passages), would bring more."
        )
    return Group(table, *map(plain, lines))


def label_summary(figures: Mapping[str, float]) -> str:
    """One sentence on what the teacher said: how much was asked, and how far its pairs can be trusted."""
    points, new = figures["points"], figures["points_asked"]
    text = f"{points:,} points ({new:,} not in the store before), {figures['pairs']:,} pairs"
    if figures.get("pairs_derived"):
        text += " (derived from the points, none asked)"
    text += order_summary(figures)
    if "disagreement" in figures:
        text += f"; {figures['disagreement']:.0%} disagree with the points"
    if figures.get("triples"):
        text += f"; {figures['circles'] / figures['triples']:.0%} of {figures['triples']:,} triples are circles"
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
        before, *_, after = values["means"]
        found = values["comparisons"][-1]
        parts.append(f"{name} {before:.3f} -> {after:.3f} (p {p_value(found['p'])})")
    return "; ".join(parts) if parts else "no query held out says enough"

"""Tables and sentences for the terminal: systems compared, and what the labels are like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Column, Table

from pdadapt.evaluation.results import Comparison, Measures, Metrics, RunMetrics
from pdadapt.evaluation.verdict import p_equals
from pdadapt.labeling.figures import LabelFigures
from pdadapt.runtime.format import p_value
from pdadapt.runtime.terminal import Name, WholeTable, plain

ONE_TEST = ("p",)  # column of the randomisation test
BOTH_TESTS = ("p", "p (t)")  # with that of the t-test
QUERY_CHARACTERS = 60


def comparison_table(metrics: Metrics | RunMetrics, systems: Sequence[str]) -> Group:
    """A title, a row for each measure with the value of each system, and the comparisons.

    A comparison shows the change with its 95 % interval, the p-value, and how many queries rose, stayed and fell. A
    single comparison stands in the row of its measure. Several have a table of their own, with the t-test's p-value.
    """
    title = f"{metrics.corpus}: {metrics.test_queries:,} test queries"
    title += f", {metrics.documents:,} documents" if metrics.documents else ""
    single = max((len(result.comparisons) for result in metrics.measures.values()), default=0) == 1
    table = WholeTable(
        "measure",
        *(Column(plain(system), justify="right") for system in systems),
        *(_change_columns(ONE_TEST) if single else ()),
    )
    for name, result in metrics.measures.items():
        cells = [f"{value:.4f}" for value in result.means]
        table.add_row(name, *cells, *(_change_cells(result.comparisons[0], ONE_TEST) if single else ()))
    if single or len(systems) == 1:
        return Group(plain(title), table)
    changes = WholeTable("measure", Name("comparison"), *_change_columns(BOTH_TESTS))
    for name, result in metrics.measures.items():
        for row, one in enumerate(result.comparisons):
            pair = f"{systems[one.system]} - {systems[one.base]}"
            changes.add_row("" if row else name, plain(pair), *_change_cells(one, BOTH_TESTS))
    return Group(plain(title), table, changes, "p-values are corrected for the number of comparisons (Holm)")


def _change_columns(tests: Sequence[str]) -> list[Column]:
    counts = "wins/ties/losses" if tests == ONE_TEST else "wins/ties/\nlosses"  # the wider table has less room
    return [Column(name, justify="right") for name in ("change ± 95 %", *tests, counts)]


def _change_cells(comparison: Comparison, tests: Sequence[str]) -> list[str]:
    p_values = [p_value(comparison.p_holm), p_value(comparison.p_t_holm)][: len(tests)]
    return [change_text(comparison), *p_values, query_counts(comparison)]


def change_text(comparison: Comparison) -> str:
    """The change with half of its confidence interval."""
    return f"{comparison.change:+.4f}" + ("" if comparison.margin is None else f" ± {comparison.margin:.4f}")


def query_counts(comparison: Comparison, separator: str = "/") -> str:
    """How many queries rose, stayed and fell."""
    return separator.join(f"{count:,}" for count in (comparison.wins, comparison.ties, comparison.losses))


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of each path, as many as are needed to tell the paths apart."""
    parts = [name.split("/") for name in names]
    for kept in range(1, max(map(len, parts), default=0) + 1):
        found = ["/".join(part[-kept:]) for part in parts]
        if len(set(found)) == len(set(names)):
            return found
    return list(names)


def changed_queries(metrics: Metrics, systems: Sequence[str]) -> Table:
    """The queries that differ most in the first comparison, with the best documents of both systems."""
    measure, result = next(iter(metrics.measures.items()))
    first = result.comparisons[0]
    best = [Name(plain(f"best by {systems[number]}")) for number in (first.base, first.system)]
    table = WholeTable(Name("query"), Column(measure, justify="right"), *best, title="Queries that changed most")
    for one in metrics.most_changed:
        before, after = one.values
        text = plain(one.query or one.query_id)
        text.truncate(QUERY_CHARACTERS, overflow="ellipsis")
        table.add_row(text, f"{before:.2f} → {after:.2f}", *(plain(", ".join(top)) for top in one.top))
    return table


def queries_table(report: Mapping[str, Any]) -> Group:
    """How many queries of each kind an LLM has written, how many were dropped and why, and examples of the rest."""
    kinds: Mapping[str, Mapping[str, int]] = report["kinds"]
    every: Counter[str] = sum(map(Counter, kinds.values()), Counter())
    table = WholeTable("queries", *(Column(kind, justify="right") for kind in [*kinds, "all"]))
    for end in dict.fromkeys(["written", "kept", *sorted(every)]):
        table.add_row(end, *(f"{counts.get(end, 0):,}" for counts in [*kinds.values(), every]))
    documents = report["documents"]
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in documents["left_out"].items())
    lines = [
        f"{documents['fit']:,} of {documents['looked_at']:,} sampled documents were suitable"
        + (f" (left out: {left_out})." if left_out else "."),
        "Examples: " + " / ".join(report["examples"]["kept"]),
    ]
    if report["kept"] < report["wanted"]:
        lines.append(
            f"Only {report['kept']:,} of {report['wanted']:,} wanted queries were kept. Each kind was tried on every "
            "document, or dropped because almost no query passed. Use a better LLM (generate.model) or shorter "
            "documents (--passages)."
        )
    return Group(table, *map(plain, lines))


def label_summary(labels: LabelFigures) -> str:
    """One sentence on the labels: how many were asked for, and how far the pairs can be trusted."""
    text = f"{labels.points:,} points ({labels.points_asked:,} not in the store before), {labels.pairs:,} pairs"
    if labels.pairs_derived:
        text += " (derived from the points)"
    if bias := order_summary(labels.flip_rate, labels.position_bias):
        text += f"; {bias}"
    if labels.disagreement is not None:
        text += f"; {labels.disagreement:.0%} contradict the points"
    if labels.triples:
        text += f"; {(labels.cycles or 0) / labels.triples:.0%} of {labels.triples:,} triples are cycles"
    unanswered = {"points": labels.points_unanswered, "pairs": labels.pairs_unanswered}
    if any(unanswered.values()):
        text += "; no answer to " + " and ".join(f"{count:,} {name}" for name, count in unanswered.items() if count)
    return text + "."


def order_summary(flip_rate: float | None, position_bias: float | None) -> str:
    """How far the order of two documents decides the teacher's answer; empty if that is unknown."""
    parts = []
    if flip_rate is not None:
        parts.append(f"the answer flips with the order in {flip_rate:.0%} of them")
    if position_bias is not None:
        parts.append(f"position bias {position_bias:+.2f} log-odds")
    return "; ".join(parts)


def agreement_summary(measures: Measures) -> str:
    """The first and the last value of each measure, with the p-value of the last comparison."""
    parts = []
    for name, result in measures.items():
        before, *_, after = result.means
        parts.append(f"{name} {before:.3f} → {after:.3f} ({p_equals(result.against_base().p)})")
    return "; ".join(parts) if parts else "no held-out query tells the students apart"

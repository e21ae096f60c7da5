"""The page that a run leaves: report.html, made from the run folder alone. One file, no script, nothing to load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pdadapt.errors import RunError
from pdadapt.evaluation.held_out import DECISIVE
from pdadapt.reporting import plots
from pdadapt.runs.record import Iteration, Record, read_agreed, read_labels, read_record, read_values, stage_of
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.format import duration, p_value, speed
from pdadapt.runtime.printing import printable

TEMPLATE = Path(__file__).with_suffix(".html.jinja")
OUTCOMES = {"helped": "good", "harmed": "bad"}  # other verdicts have no colour


class Table(NamedTuple):
    """The first cell of a row names it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Plot(NamedTuple):
    title: str
    svg: Markup
    note: str = ""


def write_report(run: Path) -> Path:
    """Write RUN/report.html, of a run that has not finished with what there is; returns its path.

    Raises RunError when the folder holds no run of `pdadapt adapt`, is damaged, or cannot be written to.
    """
    target = run / "report.html"
    text = page(read_record(run))
    try:
        write_atomic(target, text)
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror}); copy the run folder elsewhere.") from None
    return target


def page(record: Record) -> str:
    """The HTML."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"duration": duration, "speed": speed}
    metrics = record.metrics
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        record=record,
        **verdict(record),
        facts=facts(record),
        measures=comparison_table(compared(metrics.get("measures", {}), record.systems)),
        measure_plots=list(measure_plots(record)),
        agreement=comparison_table(by_iteration([iteration.agreement for iteration in record.iterations])),
        agreement_plots=list(agreement_plots(record)),
        general=comparison_table(by_iteration(metrics.get("general", []))),
        labels=label_table(record.iterations),
        iteration_plots=[(iteration.number, list(iteration_plots(iteration))) for iteration in record.iterations],
        changed={kind: metrics.get("most_changed", {}).get(kind, []) for kind in ("gained", "lost")},
        measure=next(iter(metrics.get("measures", {})), DECISIVE),
        costs=costs(record.timings),
        origin=list(flat(record.origin)),
    )


def verdict(record: Record) -> dict[str, str]:
    """The sentence that stands first, and its colour."""
    found = record.metrics.get("verdict", {})
    if not record.finished:
        return {
            "sentence": f"Not finished yet: last seen {record.stopped_at()}. This is what there is so far.",
            "tone": "",
        }
    if not found:
        return {"sentence": "No verdict was recorded; the same `pdadapt adapt` again adds it.", "tone": ""}
    return {"sentence": found["sentence"], "tone": OUTCOMES.get(found["outcome"], "")}


def facts(record: Record) -> list[tuple[str, str]]:
    """What was adapted, by whom, and what came of it."""
    recipe = yaml.safe_load(record.recipe) or {}
    teacher = recipe.get("teacher", {})
    teachers = {
        (teacher.get(task) or {}).get("model") or teacher.get("model")
        for task in ("point", "pair")
        if task == "point" or _asks_pairs(teacher)
    }
    found = [
        ("Data", record.summary),
        ("Queries", written(record.written)),
        ("Student", str(recipe.get("student", {}).get("model", ""))),
        ("Teacher", ", ".join(sorted(filter(None, teachers)))),
        ("Checkpoint", str(record.metrics.get("checkpoint", ""))),
    ]
    return [(name, text) for name, text in found if text]


def written(report: Mapping[str, Any]) -> str:
    """What came of queries that an LLM wrote for the run; nothing where it wrote none."""
    if not report:
        return ""
    ends = Counter[str]()
    for kind in report["kinds"].values():
        ends.update(kind)
    others = ", ".join(f"{count:,} {end}" for end, count in ends.most_common() if end not in ("written", "kept"))
    return f"{report['kept']:,} kept of {report['written']:,} that {report['model']} wrote" + (
        others and f" ({others})"
    )


def _asks_pairs(teacher: Mapping[str, Any]) -> bool:
    pair = teacher.get("pair") or {}
    return bool(pair.get("per_query")) and pair.get("scoring") == "labels"


class Comparison(NamedTuple):
    measure: str
    system: str
    base: float
    value: float
    change: Mapping[str, Any]  # what evaluate.compare_two says


def compared(measures: Mapping[str, Any], systems: Sequence[str]) -> Iterator[Comparison]:
    """Every comparison there is, measure by measure. systems: what those are called whose means there are."""
    for measure, found in measures.items():
        for one in found["comparisons"]:
            base, system = one.get("base", 0), one.get("system", 1)
            yield Comparison(measure, systems[system], found["means"][base], found["means"][system], one)


def by_iteration(found: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """The comparison of each iteration, those of a measure together."""
    every = [
        comparison
        for number, measures in enumerate(found, 1)
        for comparison in compared(measures, [f"iteration {number}"] * 3)
    ]
    order = list(dict.fromkeys(comparison.measure for comparison in every))
    return sorted(every, key=lambda comparison: order.index(comparison.measure))


def comparison_table(comparisons: Iterable[Comparison]) -> Table:
    """Base and adapted, with the change; of which iteration, where there are several."""
    every = list(comparisons)
    several = len({comparison.system for comparison in every}) > 1
    rows = []
    for measure, system, base, value, change in every:
        queries = " / ".join(f"{change[kind]:,}" for kind in ("wins", "ties", "losses") if kind in change)
        p = p_value(change.get("p_holm", change["p"]))
        name = f"{measure}, {system}" if several else measure
        rows.append((name, signed(f"{base:.4f}"), signed(f"{value:.4f}"), change_text(change), p, queries))
    return Table(("", "base", "adapted", "change ± 95 %", "p", "rose / same / fell"), rows)


def change_text(change: Mapping[str, Any]) -> str:
    found = change.get("change", 0.0)
    low, high = change.get("interval") or (0.0, 0.0)
    return signed(f"{found:+.4f}" + (f" ± {(high - low) / 2:.4f}" if change.get("interval") else ""))


def signed(text: str) -> str:
    """With a minus sign that is as wide as a plus."""
    return text.replace("-", "−")


def measure_plots(record: Record) -> Iterator[Plot]:
    """The measures' changes, and the first one's query by query."""
    measures = record.metrics.get("measures", {})
    if not measures:
        return
    shown = record.systems[record.shown]
    of = "" if shown == "adapted" else f" of {shown}"
    yield Plot(f"Change{of}", Markup(plots.changes(measures, record.shown, "changes")))
    first = next(iter(measures))
    before, after = read_values(record, first)
    if before:
        yield Plot(f"Gain{of}, query by query", Markup(plots.gains(before, after, first, "test queries", "gains")))


def agreement_plots(record: Record) -> Iterator[Plot]:
    """What each query held out gained, of the iteration shown."""
    before, after = read_agreed(record, DECISIVE) if record.shown else ((), ())
    if before:
        of = f" of iteration {record.shown}" if len(record.iterations) > 1 else ""
        svg = plots.gains(before, after, DECISIVE, "queries held out", "agreement-gains")
        yield Plot(f"Gain{of}, query by query", Markup(svg))


LABEL_ROWS = {  # of labels.json: what the page calls it, and how it is written
    "points": ("point labels", "{:,}"),
    "points_asked": ("of them not in the store before", "{:,}"),
    "points_unanswered": ("points without an answer", "{:,}"),
    "pairs": ("pair labels", "{:,}"),
    "pairs_derived": ("of them derived from the points", "{:,}"),
    "pair_prompts_asked": ("prompts for them, not in the store before", "{:,}"),
    "pairs_unanswered": ("pairs without an answer", "{:,}"),
    "flip_rate": ("flip rate: pairs decided by the order of the two", "{:.1%}"),
    "position_bias": ("position bias: log-odds for what stands first", "{:+.2f}"),
    "disagreement": ("pairs that contradict the points", "{:.1%}"),
    "triples": ("three documents judged two by two", "{:,}"),
    "circles": ("of them circles: a over b over c over a", "{:,}"),
}
SILENT = (
    "points_unanswered",
    "pairs_derived",
    "pair_prompts_asked",
    "pairs_unanswered",
    "triples",
    "circles",
)  # that are left out where 0


def label_table(iterations: Sequence[Iteration]) -> Table:
    """What the teacher said, a column an iteration."""
    labeled = [iteration for iteration in iterations if iteration.labels]
    rows = []
    for key, (name, form) in LABEL_ROWS.items():
        found = [one.labels.get(key) for one in labeled]
        if any(found) or (key not in SILENT and found.count(None) < len(found)):
            rows.append(
                (name, *("" if value is None else signed(form.format(value)).replace("%", " %") for value in found))
            )
    return Table(("", *(f"iteration {one.number}" for one in labeled)), rows)


def iteration_plots(iteration: Iteration) -> Iterator[Plot]:
    """What the teacher said, and the loss."""
    name = f"iteration-{iteration.number}"
    points, pairs = read_labels(iteration.lists)
    derived = bool(iteration.labels.get("pairs_derived"))
    if points:
        yield Plot("Point labels", Markup(plots.point_labels(points, f"{name}-points")))
    if pairs:
        note = "Derived from the points: none contradicts them." if derived else "Below zero, pairs contradict points."
        yield Plot("Pair labels", Markup(plots.pair_labels(pairs, f"{name}-pairs")), note)
    if pairs and not derived:
        note = "Dashed: as often as the teacher is sure."
        yield Plot("Calibration of pairs", Markup(plots.calibration(pairs, f"{name}-calibration")), note)
    if iteration.losses:
        yield Plot("Loss", Markup(plots.losses(iteration.losses, f"{name}-loss")), "Each term with its weight.")
    if iteration.checks:
        note = "On queries held out of training; the best state is kept."
        yield Plot("Agreement with the teacher", Markup(plots.checks(iteration.checks, f"{name}-checks")), note)


class Cost(NamedTuple):
    stage: str
    seconds: float
    units: int
    unit: str


def costs(timings: Iterable[Mapping[str, Any]]) -> list[Cost]:
    """What every stage took, all iterations and starts of the run together."""
    found: dict[str, Cost] = {}
    for row in timings:
        stage = stage_of(row["task"])
        before = found.get(stage, Cost(stage, 0.0, 0, row["unit"]))
        found[stage] = before._replace(seconds=before.seconds + row["seconds"], units=before.units + row["units"])
    return list(found.values())


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)

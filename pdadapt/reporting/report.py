"""report.html of a run, made from its folder. The page is one file without scripts, and it loads nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pdadapt.errors import RunError
from pdadapt.evaluation.held_out import DECISIVE_MEASURE, still_rises
from pdadapt.evaluation.results import Comparison, Measures, MostChanged
from pdadapt.evaluation.verdict import HARMED, HELPED
from pdadapt.reporting import plots
from pdadapt.reporting.record import Iteration, Record, read_agreed, read_labels, read_run_record, read_values, stage_of
from pdadapt.reporting.tables import change_text, query_counts
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.format import duration, p_value, speed
from pdadapt.runtime.printing import printable

TEMPLATE = Path(__file__).with_suffix(".html.jinja")
OUTCOME_TONES = {HELPED: "good", HARMED: "bad"}  # other outcomes have no colour


class Table(NamedTuple):
    """A table of the page. The first cell of each row is its name."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Plot(NamedTuple):
    title: str
    svg: Markup
    note: str = ""


def write_report(run: Path) -> Path:
    """Write RUN/report.html and return its path. Works on unfinished runs too.

    Raises RunError when the folder holds no run of `pdadapt adapt`, is damaged, or cannot be written to.
    """
    target = run / "report.html"
    text = page(read_run_record(run))
    try:
        write_atomic(target, text)
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror}). Copy the run folder elsewhere.") from None
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
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        record=record,
        **headline(record),
        facts=facts(record),
        measures=base_and_adapted(compared(record.measures, record.systems)),
        measure_plots=list(measure_plots(record)),
        agreement=base_and_adapted(by_iteration([iteration.agreement for iteration in record.iterations])),
        agreement_plots=list(agreement_plots(record)),
        general=base_and_adapted(by_iteration(record.general)),
        labels=label_figures_table(record.iterations),
        iteration_plots=[(iteration.number, list(iteration_plots(iteration))) for iteration in record.iterations],
        changed=record.metrics.most_changed if record.metrics else MostChanged((), ()),
        measure=next(iter(record.measures), DECISIVE_MEASURE),
        times=stage_times(record.timings),
        origin=list(flat(record.origin)),
    )


def headline(record: Record) -> dict[str, str]:
    """The sentence at the top of the page, and its colour."""
    if record.metrics and record.finished:
        verdict = record.metrics.verdict
        return {"sentence": verdict.sentence, "tone": OUTCOME_TONES.get(verdict.outcome, "")}
    return {
        "sentence": f"Not finished yet: last seen {record.stopped_at()}. The page shows what exists so far.",
        "tone": "",
    }


def facts(record: Record) -> list[tuple[str, str]]:
    """Names and values of the run: data, queries, student, teacher, checkpoint."""
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
        ("Checkpoint", record.metrics.checkpoint if record.metrics else ""),
    ]
    return [(name, text) for name, text in found if text]


def written(report: Mapping[str, Any]) -> str:
    """How many generated queries were kept and dropped; empty if no queries were generated."""
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


class Compared(NamedTuple):
    """A comparison with the names and values that the page shows."""

    measure: str
    system: str
    base_value: float
    value: float
    comparison: Comparison


def compared(measures: Measures, systems: Sequence[str]) -> Iterator[Compared]:
    """Every comparison, measure by measure. systems: names of the systems, in the order of `means`."""
    for measure, result in measures.items():
        for one in result.comparisons:
            yield Compared(measure, systems[one.system], *result.before_and_after(one), one)


def by_iteration(found: Sequence[Measures]) -> list[Compared]:
    """The comparison of each iteration, grouped by measure."""
    every = [
        one
        for number, measures in enumerate(found, 1)
        for one in compared(measures, [f"iteration {number}"] * 3)  # at most: base, iteration before, this iteration
    ]
    order = list(dict.fromkeys(one.measure for one in every))
    return sorted(every, key=lambda one: order.index(one.measure))


def base_and_adapted(comparisons: Iterable[Compared]) -> Table:
    """The values of base and adapted with the change, and the iteration where there are several."""
    every = list(comparisons)
    several = len({one.system for one in every}) > 1
    rows = [
        (
            f"{one.measure}, {one.system}" if several else one.measure,
            signed(f"{one.base_value:.4f}"),
            signed(f"{one.value:.4f}"),
            signed(change_text(one.comparison)),
            p_value(one.comparison.p_holm),
            query_counts(one.comparison, " / "),
        )
        for one in every
    ]
    return Table(("", "base", "adapted", "change ± 95 %", "p", "rose / same / fell"), rows)


def signed(text: str) -> str:
    """The text with minus signs that are as wide as plus signs."""
    return text.replace("-", "−")


def measure_plots(record: Record) -> Iterator[Plot]:
    """The change of every measure, and the gain of each query on the first measure."""
    measures = record.measures
    if not measures:
        return
    shown = record.systems[record.shown]
    of = "" if shown == "adapted" else f" of {shown}"
    yield Plot(f"Change{of}", Markup(plots.change_plot(measures, record.shown, "changes")))
    first = next(iter(measures))
    before, after = read_values(record, first)
    if before:
        yield Plot(f"Gain{of}, query by query", Markup(plots.gains(before, after, first, "test queries", "gains")))


def agreement_plots(record: Record) -> Iterator[Plot]:
    """The gain of each held-out query, for the shown iteration."""
    before, after = read_agreed(record, DECISIVE_MEASURE) if record.shown else ((), ())
    if before:
        of = f" of iteration {record.shown}" if len(record.iterations) > 1 else ""
        svg = plots.gains(before, after, DECISIVE_MEASURE, "held-out queries", "agreement-gains")
        yield Plot(f"Gain{of}, query by query", Markup(svg))


LABEL_ROWS = {  # figures of labels.json: name on the page, format
    "points": ("point labels", "{:,}"),
    "points_asked": ("new: not in the store before", "{:,}"),
    "points_unanswered": ("points without an answer", "{:,}"),
    "pairs": ("pair labels", "{:,}"),
    "pairs_derived": ("derived from the points", "{:,}"),
    "pair_prompts_asked": ("new prompts for pairs", "{:,}"),
    "pairs_unanswered": ("pairs without an answer", "{:,}"),
    "flip_rate": ("flip rate: pairs whose answer depends on the order", "{:.1%}"),
    "position_bias": ("position bias: log-odds for the first document", "{:+.2f}"),
    "disagreement": ("pairs that contradict the points", "{:.1%}"),
    "triples": ("triples of documents with all three pairs judged", "{:,}"),
    "cycles": ("intransitive triples: a over b over c over a", "{:,}"),
}
HIDDEN_IF_ZERO = (
    "points_unanswered",
    "pairs_derived",
    "pair_prompts_asked",
    "pairs_unanswered",
    "triples",
    "cycles",
)


def label_figures_table(iterations: Sequence[Iteration]) -> Table:
    """Figures of the labels, one column per iteration."""
    labeled = [iteration for iteration in iterations if iteration.labels]
    rows = []
    for key, (name, form) in LABEL_ROWS.items():
        found = [getattr(one.labels, key) for one in labeled]
        if any(found) or (key not in HIDDEN_IF_ZERO and found.count(None) < len(found)):
            rows.append(
                (name, *("" if value is None else signed(form.format(value)).replace("%", " %") for value in found))
            )
    return Table(("", *(f"iteration {one.number}" for one in labeled)), rows)


def iteration_plots(iteration: Iteration) -> Iterator[Plot]:
    """Distributions of the labels, the loss, and the agreement during training."""
    name = f"iteration-{iteration.number}"
    points, pairs = read_labels(iteration.lists)
    derived = bool(iteration.labels and iteration.labels.pairs_derived)
    if points:
        yield Plot("Point labels", Markup(plots.point_histogram(points, f"{name}-points")))
    if pairs:
        note = (
            "Derived from the points, so no pair contradicts them."
            if derived
            else "Pairs below zero contradict the points."
        )
        yield Plot("Pair labels", Markup(plots.pair_labels(pairs, f"{name}-pairs")), note)
    if pairs and not derived:
        note = "Dashed: agreement equal to the teacher's confidence."
        yield Plot("Calibration of pairs", Markup(plots.calibration(pairs, f"{name}-calibration")), note)
    if iteration.losses:
        yield Plot("Loss", Markup(plots.loss_plot(iteration.losses, f"{name}-loss")), "Each term with its weight.")
    if iteration.checks:
        note = "On held-out queries. Step 0 is the student before training. The best state is kept."
        if still_rises(iteration.checks):
            note += " The agreement still rose at the end. More steps or more queries may raise it further."
        yield Plot("Agreement with the teacher", Markup(plots.check_plot(iteration.checks, f"{name}-checks")), note)


class StageTime(NamedTuple):
    """The time and the work of a stage in all iterations and starts of the run."""

    stage: str
    seconds: float
    units: int
    unit: str


def stage_times(timings: Iterable[Mapping[str, Any]]) -> list[StageTime]:
    """Sum timings.jsonl by stage."""
    times: dict[str, StageTime] = {}
    for row in timings:
        stage = stage_of(row["task"])
        before = times.get(stage, StageTime(stage, 0.0, 0, row["unit"]))
        times[stage] = before._replace(seconds=before.seconds + row["seconds"], units=before.units + row["units"])
    return list(times.values())


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted key and the value of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)

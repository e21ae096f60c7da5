"""A run as its folder describes it, read for the report and `pdadapt status`. Any part may be missing."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdadapt.errors import RunError
from pdadapt.evaluation.held_out import agreed_values
from pdadapt.evaluation.results import Measures, RunMetrics, measures_from_json
from pdadapt.labeling.figures import LabelFigures
from pdadapt.runs.artefacts import read_json, read_lines
from pdadapt.runs.folder import student_name
from pdadapt.runtime.files import read_settings


@dataclass(frozen=True)
class Iteration:
    """The files of one iteration."""

    number: int
    labels: LabelFigures | None  # labels.json
    agreement: Measures  # agreement.json; empty if it is missing, or if no held-out query says enough
    losses: list[dict[str, float]]  # train.jsonl
    checks: list[dict[str, float]]  # checks.jsonl: agreement with the teacher during training
    lists: Path  # lists.jsonl, which is large: read it with read_labels


@dataclass(frozen=True)
class Record:
    """The files of a run."""

    path: Path
    recipe: str  # YAML
    origin: dict[str, Any]  # run.json
    metrics: RunMetrics | None  # metrics.json, written when the run finishes for the first time
    iterations: list[Iteration]
    timings: list[dict[str, Any]]  # timings.jsonl
    task: dict[str, Any]  # progress.json: the current task, or the task at which the run was stopped
    written: dict[str, Any] = field(default_factory=dict)  # queries.jsonl.report.json of generated queries

    @property
    def finished(self) -> bool:
        return self.metrics is not None and not self.task

    @property
    def name(self) -> str:
        return str(self.origin.get("corpus") or self.path.resolve().name)

    @property
    def summary(self) -> str:
        """A sentence on the data; until the run has finished, its name."""
        return self.metrics.summary if self.metrics else self.name

    @property
    def measures(self) -> Measures:
        """The measures on the test queries; empty without judgments, or until the run has finished."""
        return self.metrics.measures if self.metrics else {}

    @property
    def general(self) -> tuple[Measures, ...]:
        """The comparison on the general set, for each iteration."""
        return self.metrics.general if self.metrics else ()

    @property
    def systems(self) -> list[str]:
        """Names of the students that were measured, in the order of `means`."""
        count = max((len(result.means) for result in self.measures.values()), default=0)
        return ["base", "adapted"] if count == 2 else ["base", *(f"iteration {i}" for i in range(1, count))]

    @property
    def shown(self) -> int:
        """The iteration that is compared with the base; 0 until the run has finished."""
        return self.metrics.shown if self.metrics else 0

    def stopped_at(self) -> str:
        """How far an unfinished run has come, as a clause."""
        if self.task:
            return f"at {self.task['task']}, {self.task['done']:,} of {self.task['total']:,} {self.task['unit']}"
        if self.timings:
            return f"after {self.timings[-1]['task']}"
        return "before its first task"


def read_run_record(run: Path) -> Record:
    """Raises RunError when the folder holds no run of `pdadapt adapt`, or when one of its files is damaged."""
    origin, task = read_if_there(run / "run.json"), read_if_there(run / "progress.json")
    if "reranker" in origin or not (origin or task):  # a run has no run.json yet while its queries are generated
        what = "a run of `pdadapt train-reranker`" if origin else "no run"
        raise RunError(f"{run} holds {what}. Give the folder of a `pdadapt adapt`.")
    numbers = sorted(int(folder.name.split("-")[1]) for folder in run.glob("iteration-[1-9]*") if folder.is_dir())
    recipe, metrics = run / "recipe.yaml", run / "metrics.json"
    if recipe.is_file():
        read_settings(recipe)  # raises an error if it is damaged
    return Record(
        path=run,
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        origin=origin,
        metrics=read_json(metrics, RunMetrics.from_json) if metrics.is_file() else None,
        iterations=[read_iteration(run / f"iteration-{number}", number) for number in numbers],
        timings=list(read_lines(run / "timings.jsonl", torn=True)),
        task=task,
        written=read_if_there(run / "queries.jsonl.report.json") if wrote_its_own(origin, run) else {},
    )


def read_if_there(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file. Raises RunError when the file is damaged."""
    return read_json(file, dict) if file.is_file() else {}


def wrote_its_own(origin: Mapping[str, Any], run: Path) -> bool:
    """Whether the queries of a run were generated in its folder."""
    given = (origin.get("source") or {}).get("queries")
    return not given or Path(given).resolve() == (run / "queries.jsonl").resolve()


def read_iteration(folder: Path, number: int) -> Iteration:
    labels, agreement = folder / "labels.json", folder / "agreement.json"
    return Iteration(
        number=number,
        labels=read_json(labels, LabelFigures.from_json) if labels.is_file() else None,
        agreement=read_json(agreement, measures_from_json) if agreement.is_file() else {},
        losses=list(read_lines(folder / "train.jsonl")),
        checks=list(read_lines(folder / "checks.jsonl")),
        lists=folder / "lists.jsonl",
    )


def read_labels(lists: Path) -> tuple[array[float], array[float]]:
    """Every point label of lists.jsonl, and of every pair the log-odds for the document with the higher point."""
    points, pairs = array("f"), array("f")
    for entry in read_lines(lists):
        points.extend(point for point in entry["points"] if point is not None)
        pairs.extend(log_odds for _, _, log_odds in entry["pairs"])
    return points, pairs


def read_values(record: Record, measure: str) -> tuple[list[float], ...]:
    """The measure's value of every test query, of the base and of the shown iteration; empty without queries.tsv."""
    file = record.path / "queries.tsv"
    if not file.is_file():
        return [], []
    header, *rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    systems = student_name(0), student_name(record.shown)
    if not set(systems) <= set(header):
        return [], []
    columns = map(header.index, systems)
    return tuple([float(row[column]) for row in rows if row[1] == measure] for column in columns)


def read_agreed(record: Record, measure: str) -> tuple[list[float], ...]:
    """The agreement with the teacher on every held-out query, of the base and of the shown iteration."""
    rows = list(read_lines(record.path / f"iteration-{record.shown}" / "held-out.jsonl"))
    return tuple(list(agreed_values(rows, student_name(number), measure).values()) for number in (0, record.shown))


def stage_of(task: str) -> str:
    """The name of a task without its iteration and its round of pairs."""
    return re.sub(r"^iteration \d+: |, round \d+$", "", task)

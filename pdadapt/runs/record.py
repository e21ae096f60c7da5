"""What a run folder says of its run, read back for the report and `pdadapt status`; any part may not be there yet."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdadapt.errors import RunError
from pdadapt.runs.folder import system
from pdadapt.runtime.files import read_settings


@dataclass(frozen=True)
class Iteration:
    """What one iteration has left so far."""

    number: int
    labels: dict[str, Any]  # labels.json
    agreement: dict[str, Any]  # agreement.json: base and adapted student against the teacher, on queries held out
    losses: list[dict[str, float]]  # train.jsonl
    checks: list[dict[str, float]]  # checks.jsonl: agreement with the teacher in the course of training
    lists: Path  # lists.jsonl: large, so it is read by those who need it


@dataclass(frozen=True)
class Record:
    path: Path
    recipe: str  # YAML
    origin: dict[str, Any]  # run.json
    metrics: dict[str, Any]  # metrics.json; empty until the run has come to its end once
    iterations: list[Iteration]
    timings: list[dict[str, Any]]
    task: dict[str, Any]  # progress.json: what is going on, or was when the run was stopped
    written: dict[str, Any] = field(default_factory=dict)  # queries.jsonl.report.json, of queries that an LLM wrote

    @property
    def finished(self) -> bool:
        return bool(self.metrics) and not self.task

    @property
    def name(self) -> str:
        return str(self.origin.get("corpus") or self.path.resolve().name)

    @property
    def summary(self) -> str:
        """What the data is, as far as it is known."""
        if not self.metrics or "summary" in self.metrics:
            return str(self.metrics.get("summary", self.name))
        counts = {"documents": "documents", "queries": "queries to adapt on", "test_queries": "to test on"}
        return (
            f"{self.name}: " + ", ".join(f"{self.metrics.get(key, 0):,} {what}" for key, what in counts.items()) + "."
        )

    @property
    def systems(self) -> list[str]:
        """Names of the students that were measured, in the order of `means`."""
        count = max((len(found["means"]) for found in self.metrics.get("measures", {}).values()), default=0)
        return ["base", "adapted"] if count == 2 else ["base", *(f"iteration {i}" for i in range(1, count))]

    @property
    def shown(self) -> int:
        """The iteration that is compared with the base: the one kept for use, or the last where the base is."""
        return int(self.metrics.get("iteration") or len(self.metrics.get("labels", ())))

    def stopped_at(self) -> str:
        """How far a run that has not finished had come: a clause."""
        if self.task:
            return f"at {self.task['task']}, {self.task['done']:,} of {self.task['total']:,} {self.task['unit']}"
        if self.timings:
            return f"after {self.timings[-1]['task']}"
        return "before its first task"


def read_record(run: Path) -> Record:
    """Raises RunError when the folder holds no run of `pdadapt adapt`, or a file of it is damaged."""
    origin, task = _read_json(run / "run.json"), _read_json(run / "progress.json")
    if "reranker" in origin or not (origin or task):  # a run whose queries are being written has no origin yet
        what = "a run of `pdadapt train-reranker`" if origin else "no run"
        raise RunError(f"{run} holds {what}; give the folder of a `pdadapt adapt`.")
    numbers = sorted(int(folder.name.split("-")[1]) for folder in run.glob("iteration-[1-9]*") if folder.is_dir())
    recipe = run / "recipe.yaml"
    if recipe.is_file():
        read_settings(recipe)  # so that its text is known to be one
    return Record(
        path=run,
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        origin=origin,
        metrics=_read_json(run / "metrics.json"),
        iterations=[_read_iteration(run / f"iteration-{number}", number) for number in numbers],
        timings=list(read_lines(run / "timings.jsonl", torn=True)),
        task=task,
        written=_read_json(run / "queries.jsonl.report.json") if wrote_its_own(origin, run) else {},
    )


def wrote_its_own(origin: Mapping[str, Any], run: Path) -> bool:
    """Whether a run, by what is known of it, is one of the queries that were written in its folder."""
    given = (origin.get("source") or {}).get("queries")
    return not given or Path(given).resolve() == (run / "queries.jsonl").resolve()


def _read_iteration(folder: Path, number: int) -> Iteration:
    return Iteration(
        number=number,
        labels=_read_json(folder / "labels.json"),
        agreement=_read_json(folder / "agreement.json"),
        losses=list(read_lines(folder / "train.jsonl")),
        checks=list(read_lines(folder / "checks.jsonl")),
        lists=folder / "lists.jsonl",
    )


def read_labels(lists: Path) -> tuple[array[float], array[float]]:
    """Every point label, and every pair's log-odds for the document that the points rank higher, of lists.jsonl."""
    points, pairs = array("f"), array("f")
    for entry in read_lines(lists):
        points.extend(point for point in entry["points"] if point is not None)
        pairs.extend(log_odds for _, _, log_odds in entry["pairs"])
    return points, pairs


def read_values(record: Record, measure: str) -> tuple[list[float], ...]:
    """The measure's value of every test query, of the base and of the iteration shown; empty where there are none."""
    file = record.path / "queries.tsv"
    if not file.is_file():
        return [], []
    header, *rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    systems = system(0), system(record.shown)
    if not set(systems) <= set(header):
        return [], []
    columns = map(header.index, systems)
    return tuple([float(row[column]) for row in rows if row[1] == measure] for column in columns)


def read_agreed(record: Record, measure: str) -> tuple[list[float], ...]:
    """The same of every query held out, by how far a student agrees with the teacher."""
    rows = list(read_lines(record.path / f"iteration-{record.shown}" / "held-out.jsonl"))
    return tuple(list(agreed(rows, system(number), measure).values()) for number in (0, record.shown))


def agreed(rows: Iterable[Mapping[str, Any]], name: str, measure: str) -> dict[str, float]:
    """How far a student, by its name, agrees with the teacher, by query id, of held-out.jsonl; lists of which the
    teacher said too little are left out.
    """
    found = {row["query_id"]: row["students"][name]["agreement"][measure] for row in rows}
    return {query_id: value for query_id, value in found.items() if value is not None}


def read_lines(file: Path, torn: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, none when there is no such file; a last line that is being written is left out.

    torn: a kill may have torn lines, which are left out too. Raises RunError when another is damaged.
    """
    if not file.is_file():
        return
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                try:
                    yield json.loads(line)
                except ValueError:
                    if not torn:
                        raise _damaged(file) from None


def stage_of(task: str) -> str:
    """A task's name without the iteration, and the round of pairs, that it belongs to."""
    return re.sub(r"^iteration \d+: |, round \d+$", "", task)


def _read_json(file: Path) -> dict[str, Any]:
    """Empty when there is no such file. Raises RunError when it is damaged."""
    if not file.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise _damaged(file) from None
    return found


def _damaged(file: Path) -> RunError:
    if file.name == "run.json":
        return RunError(f"{file} is damaged, so what the run was made from is not known; give another --out.")
    return RunError(f"{file} is damaged; remove it, and the same `pdadapt adapt` makes it anew.")

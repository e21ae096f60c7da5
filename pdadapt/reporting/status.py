"""How a run stands, also one that another process is at: what `pdadapt status` prints."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from pdadapt.reporting.tables import agreement_summary, comparison_table, label_summary
from pdadapt.runs.record import Iteration, Record, read_record
from pdadapt.runs.shards import shard_summary
from pdadapt.runtime.format import duration, speed
from pdadapt.runtime.locks import Holder, holder
from pdadapt.runtime.terminal import plain

SILENT = 60.0  # seconds without a word from a run that goes on, after which that is said


def show_status(run: Path) -> Group:
    """Raises RunError when the folder holds no run of `pdadapt adapt`, or is damaged."""
    record = read_record(run)
    return Group(*_parts(record, holder(run)))


def _parts(record: Record, at_it: Holder | None) -> Iterator[RenderableType]:
    run = shlex.quote(str(record.path))
    yield plain(standing(record, at_it))
    if not at_it and any(waits_for_labels(iteration) for iteration in record.iterations):
        yield plain(
            f"Candidates wait for labels: that command, or pdadapt label {run} --shard I/N on many machines, then "
            f"pdadapt labels merge {run}."
        )
    if shards := shard_summary(record.path):
        yield plain(shards)
    yield plain(record.summary)
    for iteration in record.iterations:
        number = iteration.number
        if iteration.labels:
            yield plain(f"Labels of iteration {number}: {label_summary(iteration.labels)}")
        if iteration.losses:
            yield plain(f"Loss of iteration {number}: {loss_summary(iteration.losses[-1])}.")
        if iteration.agreement:
            agreement = agreement_summary(iteration.agreement)
            yield plain(f"Agreement with the teacher on queries held out, iteration {number}: {agreement}.")
    for number, found in enumerate(record.metrics.get("general", []), 1):
        yield plain(f"On the general set, iteration {number}: {agreement_summary(found)}.")
    if record.metrics.get("measures"):
        yield comparison_table(record.metrics, record.systems)
    if record.finished and "verdict" in record.metrics:
        yield plain(record.metrics["verdict"]["sentence"], style="bold")


def waits_for_labels(iteration: Iteration) -> bool:
    return (iteration.lists.parent / "candidates.run").exists() and not iteration.lists.exists()


def standing(record: Record, at_it: Holder | None) -> str:
    """Running, finished or stopped, with how far it is. at_it: who holds the lock."""
    task = record.task
    if at_it:
        current = str(task.get("pid")) == at_it.pid  # or it is what another process left that was stopped
        host = at_it.host or (current and task.get("host"))
        who = f"process {at_it.pid}" + (f" on {host}" if host else "")
        return f"Running ({who}): {progress(task, time.time()) if current else 'it has not said how far it is.'}"
    if record.finished:
        return f"Finished. Checkpoint: {record.metrics['checkpoint']}"
    command = task.get("command", "the same `pdadapt adapt`")
    return f"Stopped {record.stopped_at()}. It goes on from there with: {command}"


def progress(task: dict[str, Any], now: float) -> str:
    """How far a task is, how fast it goes, and how long it will take at that. now: unix time, in seconds."""
    done, left, silent = task["done"], task["total"] - task["done"], now - task["updated"]
    new = done - task.get("earlier", 0)  # the others were done by a process before, at no one knows what rate
    parts = [
        f"{task['task']}, {done:,} of {task['total']:,} {task['unit']}",
        speed(new, task["unit"], task["seconds"]),
    ]
    if new > 0 and left > 0:
        parts.append(f"about {duration(task['seconds'] / new * left)} left")
    if silent > SILENT:
        parts.append(f"silent for {duration(silent)}")
    return ", ".join(filter(None, parts)) + "."


def loss_summary(row: dict[str, float]) -> str:
    """The loss last logged, with its terms."""
    terms = "  ".join(f"{name} {row[name]:.4f}" for name in ("cl", "kd", "pair") if row.get(name))
    return f"{row['loss']:.4f} at step {row['step']:,}" + (f" ({terms})" if terms else "")

"""What `pdadapt status` prints: the progress and the results of a run, also of one in progress."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from pdadapt.reporting.record import Iteration, Record, read_run_record
from pdadapt.reporting.tables import agreement_summary, comparison_table, label_summary
from pdadapt.runs.shard_states import shard_summary
from pdadapt.runtime.format import duration, speed
from pdadapt.runtime.locks import Holder, holder
from pdadapt.runtime.terminal import plain

SILENT_SECONDS = 60.0  # a running task without news for longer than this is reported as silent


def show_status(run: Path) -> Group:
    """Raises RunError when the folder holds no run of `pdadapt adapt`, or when one of its files is damaged."""
    record = read_run_record(run)
    return Group(*_parts(record, holder(run)))


def _parts(record: Record, at_it: Holder | None) -> Iterator[RenderableType]:
    run = shlex.quote(str(record.path))
    yield plain(standing(record, at_it))
    if not at_it and any(waits_for_labels(iteration) for iteration in record.iterations):
        yield plain(
            f"Candidates are waiting for labels. Repeat that command, or run `pdadapt label {run} --shard I/N` on "
            f"several machines and then `pdadapt labels merge {run}`."
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
            yield plain(f"Agreement with the teacher on held-out queries, iteration {number}: {agreement}.")
    for number, measures in enumerate(record.general, 1):
        yield plain(f"On the general set, iteration {number}: {agreement_summary(measures)}.")
    if record.metrics and record.measures:
        yield comparison_table(record.metrics, record.systems)
    if record.metrics and record.finished:
        yield plain(record.metrics.verdict.sentence, style="bold")


def waits_for_labels(iteration: Iteration) -> bool:
    return (iteration.lists.parent / "candidates.run").exists() and not iteration.lists.exists()


def standing(record: Record, at_it: Holder | None) -> str:
    """Whether the run is running, finished or stopped, and how far it is. at_it: the process that holds the lock."""
    task = record.task
    if at_it:
        current = str(task.get("pid")) == at_it.pid  # otherwise a process that was stopped left progress.json
        host = at_it.host or (current and task.get("host"))
        who = f"process {at_it.pid}" + (f" on {host}" if host else "")
        return f"Running ({who}): {progress(task, time.time()) if current else 'no progress recorded yet.'}"
    if record.metrics and record.finished:
        return f"Finished. Checkpoint: {record.metrics.checkpoint}"
    command = task.get("command", "the same `pdadapt adapt`")
    return f"Stopped {record.stopped_at()}. Resume with: {command}"


def progress(task: dict[str, Any], now: float) -> str:
    """How far a task is, its rate, and the time left at that rate. now: Unix time in seconds."""
    done, left, silent = task["done"], task["total"] - task["done"], now - task["updated"]
    new = done - task.get("earlier", 0)  # an earlier process did the others, at an unknown rate
    parts = [
        f"{task['task']}, {done:,} of {task['total']:,} {task['unit']}",
        speed(new, task["unit"], task["seconds"]),
    ]
    if new > 0 and left > 0:
        parts.append(f"about {duration(task['seconds'] / new * left)} left")
    if silent > SILENT_SECONDS:
        parts.append(f"no news for {duration(silent)}")
    return ", ".join(filter(None, parts)) + "."


def loss_summary(row: dict[str, float]) -> str:
    """The last logged loss with its terms."""
    terms = "  ".join(f"{name} {row[name]:.4f}" for name in ("cl", "kd", "pair") if row.get(name))
    return f"{row['loss']:.4f} at step {row['step']:,}" + (f" ({terms})" if terms else "")

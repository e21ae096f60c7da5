"""The live view of long work: stage, bar, rate, time left, and a note such as the losses."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from pdadapt.runtime.format import speed
from pdadapt.runtime.terminal import console as open_console

LINE_INTERVAL = 60.0  # seconds between lines when there is no terminal
STATE_INTERVAL = 2.0  # seconds between updates of the file that other processes read


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed else "", style="cyan")


class Progress:
    """Shows tasks as they run.

    On a terminal the view is live. Elsewhere, as in a log file, each task prints one line when it ends.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or open_console(stderr=True)
        self.tasks = 0  # that have ended
        self._within = 0.0  # seconds of ended tasks; the task that they ran within does not count them
        self.prefix = ""  # such as "iteration 1: "
        self.log: Path | None = None  # a JSONL file with a line for each task that has ended
        self.state: Path | None = None  # a JSON file that tells other processes how far the task is
        self._live = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def say(self, text: str) -> None:
        """Print a line above the live view."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def within(self, prefix: str) -> Iterator[None]:
        """Put a prefix before the names of tasks, such as "iteration 1: "."""
        outer, self.prefix = self.prefix, self.prefix + prefix
        try:
            yield
        finally:
            self.prefix = outer

    def log_to(self, log: Path, state: Path) -> None:
        """Log ended tasks in `log`, and keep the state of the current one in `state`.

        A state that a stopped process left is logged first.
        """
        self.log, self.state = log, state
        with contextlib.suppress(OSError, ValueError, LookupError):
            left = json.loads(state.read_text(encoding="utf-8"))
            new = left["done"] - left["earlier"]
            if new > 0 and left["done"] < left["total"]:  # otherwise it ended, and is logged already
                self._log(left["task"], new, left["unit"], left["seconds"])
            state.unlink()

    def _log(self, task: str, units: int, unit: str, seconds: float) -> None:
        if self.log:
            with open(self.log, "a", encoding="utf-8") as log:
                row = {"task": task, "units": units, "unit": unit, "seconds": round(seconds, 2)}
                log.write(json.dumps(row) + "\n")

    def clear_state(self) -> None:
        """Remove the state, because no task is at work any more."""
        if self.state:
            self.state.unlink(missing_ok=True)
            _temporary_path(self.state).unlink(missing_ok=True)

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
        """A task of `total` units.

        Yields `advance(units, note="...", earlier=False)`. earlier: an earlier run did these units, so they do not
        count for the rate.
        """
        name = self.prefix + name
        started = said = left_at = time.monotonic()
        within = self._within
        done = before = 0
        last_note = ""
        task_id = self._live.add_task(name, total=total, unit=unit, note="")

        def leave_state(file: Path) -> float:
            now = time.monotonic()
            state = {"task": name, "unit": unit, "done": done, "total": total, "earlier": before, "note": last_note}
            _write_state(file, state | {"seconds": round(taken(now), 2)})
            return now

        def taken(now: float) -> float:
            return now - started - (self._within - within)

        def advance(units: int, note: str = "", earlier: bool = False) -> None:
            nonlocal done, before, last_note, said, left_at
            done += units
            before += units * earlier
            last_note = note or last_note
            changes: dict[str, Any] = {"note": note} if note else {}
            self._live.update(task_id, advance=units, **changes)
            if (
                not self.console.is_terminal
                and (now := time.monotonic()) - said >= LINE_INTERVAL
                and before < done < total
            ):
                said = now
                left = taken(now) / (done - before) * (total - done)
                line = f"{name}: {done:,} of {total:,} {unit}, about {left / 60:,.1f} min left {last_note}"
                self.say(line.rstrip())
            if self.state and (done >= total or time.monotonic() - left_at >= STATE_INTERVAL):
                left_at = leave_state(self.state)

        if self.state:
            leave_state(self.state)
        with self._live if not self._live.live.is_started else contextlib.nullcontext():
            try:
                yield advance
            finally:
                self._live.remove_task(task_id)
        self.tasks += 1
        seconds = max(taken(time.monotonic()), 1e-9)
        self._within = within + time.monotonic() - started
        new = done - before
        self._log(name, new, unit, seconds)
        rate = speed(new, unit, seconds)
        line = f"{name}: {new:,} {unit} in {seconds:,.1f} s" + (f" ({rate}) {last_note}" if rate else "")
        line = line.rstrip() + (f", {before:,} before" if before else "")
        if before and not new:
            line = f"{name}: {before:,} {unit} were there already"
        self.say(line)


def _write_state(file: Path, state: dict[str, Any]) -> None:
    """Write the state, whole or not at all, without a sync. Work goes on if it cannot be written."""
    state |= {"pid": os.getpid(), "host": socket.gethostname(), "updated": round(time.time(), 2)}
    state |= {"command": shlex.join(["pdadapt", *sys.argv[1:]])}
    with contextlib.suppress(OSError):
        _temporary_path(file).write_text(json.dumps(state) + "\n", encoding="utf-8")
        os.replace(_temporary_path(file), file)


def _temporary_path(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def quiet_libraries() -> None:
    """Keep the bars and notes of libraries off the live view. Errors still come through."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.disable_progress_bar()
    for name in ("sentence_transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)

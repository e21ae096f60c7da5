"""Checks during training: how far the student agrees with its teacher at saved states; the best is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pdadapt.runtime.files import write_atomic
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import get_lengths, set_lengths
from pdadapt.students.load import save_student
from pdadapt.training.distributed import barrier, rank

Measure = Callable[[Any], float]  # of a student: the higher the better


def check_points(settings: TrainSettings, steps: int) -> set[int]:
    """After which of a training's steps the student is measured; after the last always, if after any."""
    if settings.checks:
        return {-(-steps * number // settings.checks) for number in range(1, settings.checks + 1)}
    if settings.check_steps:
        return {*range(settings.check_steps, steps, settings.check_steps), steps}
    return set()


class Checks(TrainerCallback):
    """At each check the student is measured, and kept in `folder`/best while nothing better comes.

    A check is of a saved state, from which training can go on. `folder`/checks.jsonl has the values, by step. Training
    stops when `patience` checks in a row were no better than one before them. After a kill, checks after the state that
    training goes on from are made again.
    """

    def __init__(
        self,
        measure: Measure,
        at: Collection[int],
        patience: int,
        folder: Path,
        lengths: tuple[int | None, int | None],
    ):
        """at: after which steps; lengths: of queries and documents when the student is measured and kept."""
        self.measure = measure
        self.at = at
        self.patience = patience
        self.file = folder / "checks.jsonl"
        self.best = folder / "best"
        self.lengths = lengths

    def begin(self, step: int) -> None:
        """Training begins, or goes on, behind this step."""
        if rank() == 0:
            self._write([row for row in self.rows() if row["step"] <= step])

    @property
    def over(self) -> bool:
        """Whether nothing better has come for too long."""
        values = [row["value"] for row in self.rows()]
        return len(values) > self.patience and max(values[-self.patience :]) <= max(values[: -self.patience])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.at:
            control.should_save = control.should_log = True  # the curve too, which a kill would else cut otherwise

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step in self.at:
            if rank() == 0 and state.global_step not in {row["step"] for row in self.rows()}:
                self._check(model, state.global_step)
            barrier()
            control.should_training_stop = control.should_training_stop or self.over

    def rows(self) -> list[dict[str, Any]]:
        """{"step", "value"} of each check so far."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def take_best(self, checkpoint: Path) -> None:
        """Make the best state the checkpoint."""
        if self.best.exists():
            shutil.rmtree(checkpoint, ignore_errors=True)
            os.replace(self.best, checkpoint)

    def _check(self, model: Any, step: int) -> None:
        trained = get_lengths(model)
        set_lengths(model, *self.lengths)
        value = self.measure(model)
        rows = self.rows()
        if value > max((row["value"] for row in rows), default=float("-inf")):
            save_student(model, self.best)
        set_lengths(model, *trained)
        model.train()
        self._write([*rows, {"step": step, "value": value}])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        write_atomic(self.file, (json.dumps(row) + "\n" for row in rows))

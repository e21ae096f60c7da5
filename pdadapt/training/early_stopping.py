"""Measure the student at saved states during training, keep the best one, and stop when nothing improves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sentence_transformers import MultiVectorEncoder
from transformers import TrainerCallback

from pdadapt.evaluation.held_out import DECISIVE_MEASURE
from pdadapt.runtime.files import write_atomic
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import get_lengths, set_lengths
from pdadapt.students.load import save_student
from pdadapt.training.distributed import barrier, rank

StudentQuality = Callable[[MultiVectorEncoder], float]  # how good a student is; higher is better


def measured_steps(settings: TrainSettings, steps: int) -> set[int]:
    """Return the steps after which the student is measured. If there are any, the last step of the training is one of
    them.
    """
    if settings.checks:
        return {-(-steps * number // settings.checks) for number in range(1, settings.checks + 1)}
    if settings.check_steps:
        return {*range(settings.check_steps, steps, settings.check_steps), steps}
    return set()


class EarlyStopping(TrainerCallback):
    """Measures the student at each check, and keeps the best student in `folder`/best.

    The first check measures the student before training, at step 0. That student is kept if no later check is better.
    The others happen when a state is saved from which training can resume. `folder`/checks.jsonl holds the value of
    each check. Training stops when none of the last `patience` checks is better than the best check in training before
    them. After a kill, training resumes from a saved state. Later checks are repeated.
    """

    def __init__(
        self,
        measure: StudentQuality,
        steps: Collection[int],
        patience: int,
        folder: Path,
        lengths: tuple[int | None, int | None],
        say: Callable[[str], None] = lambda text: None,
    ):
        """steps: the steps after which the student is measured. lengths: of queries and documents when it is measured
        and kept. say: prints the value of each check.
        """
        self.measure = measure
        self.steps = steps
        self.patience = patience
        self.file = folder / "checks.jsonl"
        self.best = folder / "best"
        self.lengths = lengths
        self.say = say

    def begin(self, model: MultiVectorEncoder, step: int) -> None:
        """Forget the checks after this step, where training begins or resumes. Measure the student before training."""
        if rank() == 0:
            self._write([row for row in self.rows() if row["step"] <= step])
            if not step and not self.rows():
                self._check(model, 0)

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` checks brought no improvement."""
        values = [row["value"] for row in self.rows() if row["step"]]
        return len(values) > self.patience and max(values[-self.patience :]) <= max(values[: -self.patience])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.steps:
            control.should_save = control.should_log = True  # log too, so that the curve is the same after a kill

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step in self.steps:
            if rank() == 0 and state.global_step not in {row["step"] for row in self.rows()}:
                self._check(model, state.global_step)
            barrier()
            control.should_training_stop = control.should_training_stop or self.exhausted

    def rows(self) -> list[dict[str, Any]]:
        """Return {"step", "value"} of each check so far."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def take_best(self, checkpoint: Path) -> None:
        """Move the best student to the checkpoint's place."""
        if self.best.exists():
            shutil.rmtree(checkpoint, ignore_errors=True)
            os.replace(self.best, checkpoint)

    def _check(self, model: MultiVectorEncoder, step: int) -> None:
        training, training_lengths = model.training, get_lengths(model)
        set_lengths(model, *self.lengths)
        value = self.measure(model)
        rows = self.rows()
        if value > max((row["value"] for row in rows), default=float("-inf")):
            save_student(model, self.best)
        set_lengths(model, *training_lengths)
        model.train(training)
        self._write([*rows, {"step": step, "value": value}])
        if rows:
            self.say(f"step {step:,}: {DECISIVE_MEASURE} {value:.4f} ({rows[0]['value']:.4f} before training)")

    def _write(self, rows: list[dict[str, Any]]) -> None:
        write_atomic(self.file, (json.dumps(row) + "\n" for row in rows))

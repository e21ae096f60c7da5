"""Resumable states of a training, and its loss curve."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from pdadapt.errors import ModelError
from pdadapt.runtime.files import write_atomic
from pdadapt.training.distributed import barrier

LOSS_TERMS = ("loss", "cl", "kd", "pair")
CURVE_KEYS = ("step", *LOSS_TERMS, "learning_rate", "grad_norm")  # of a line of train.jsonl
DIVERGENCE_ADVICE = (
    "Start again in another --out, with a lower train.learning_rate or with student.dtype=float32. To reuse the labels "
    "of this run, add --set label_store=FILE with its labels.sqlite"
)
COMPLETE_MARK = "complete"  # file that marks a fully written resumable state


class TrainingMonitor(TrainerCallback):
    """Updates the progress view, writes the loss curve, and stops at a gradient that is not finite.

    The curve has one JSON object per logged step. It is complete also after a kill.
    """

    def __init__(self, advance: Callable[..., None], folder: Path, advice: str, query_ids: list[str] | None = None):
        """advice: what to do after a gradient that is not finite. query_ids: a list of the current optimizer step's
        queries, if the loss fills one; it is emptied when a step begins.
        """
        self.advance = advance
        self.folder = folder
        self.advice = advice
        self.query_ids = [] if query_ids is None else query_ids

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.advance(state.global_step, earlier=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.query_ids.clear()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Raises ModelError before a gradient that is not finite can change the weights."""
        norm = nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
        if not norm.isfinite():
            queries = f" (queries {', '.join(self.query_ids)})" if self.query_ids else ""
            raise ModelError(
                f"Training stopped at step {state.global_step + 1}: the gradient is not a finite number{queries}. This "
                f"step did not change the weights. The last good state is in {self.folder}. {self.advice}."
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.advance(1)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        barrier()
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE_MARK).touch()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            self.advance(0, note="  ".join(f"{key} {logs[key]:.4f}" for key in LOSS_TERMS if logs.get(key)))
            logged = [row for row in state.log_history if "loss" in row]
            rows = [json.dumps({key: row[key] for key in CURVE_KEYS if key in row}) for row in logged]
            write_atomic(self.folder / "train.jsonl", "\n".join(rows) + "\n")


def logging_steps(steps: int, save_steps: int) -> int:
    """Return the number of steps between two logged losses. It divides save_steps, so a loss is logged with every saved
    state. So the curve is the same after a kill.
    """
    return math.gcd(max(1, min(10, steps // 20)), save_steps)


def step_of(state: Path) -> int:
    """Return the step after which a resumable state was saved."""
    return int(state.name.split("-")[1])


def last_complete(states: Path) -> str | None:
    """Return the newest complete resumable state in `states`, and remove all others. A kill may have left one of them
    incomplete.
    """
    kept_states = sorted(states.glob("checkpoint-*"), key=step_of)
    newest = next((path for path in reversed(kept_states) if (path / COMPLETE_MARK).exists()), None)
    for path in kept_states:
        if path != newest:
            shutil.rmtree(path)
    return str(newest) if newest else None

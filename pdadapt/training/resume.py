"""Resumable states of a training, and the curve that it writes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from pdadapt.errors import ModelError
from pdadapt.runtime.files import write_atomic
from pdadapt.training.distributed import barrier

TERMS = ("loss", "cl", "kd", "pair")
CURVE = ("step", *TERMS, "learning_rate", "grad_norm")  # what train.jsonl keeps of a logged step
ADVICE = (
    "begin anew in another --out, with --set label_store=FILE of this run's labels.sqlite and a lower "
    "train.learning_rate, or student.dtype=float32"
)
COMPLETE = "complete"  # marks a resumable state that was written to its end


class Watch(TrainerCallback):
    """Feeds the live view, keeps the loss curve (one JSON object a logged step) through kills, stops on NaN."""

    def __init__(self, advance: Any, folder: Path, advice: str, query_ids: list[str] | None = None):
        """advice: what to do on NaN. query_ids: those of the optimizer step at hand, if who trains keeps them; the list
        is emptied when it begins.
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
        """Raises ModelError rather than let a gradient that is not finite into the weights."""
        norm = nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
        if not norm.isfinite():
            queries = f" (queries {', '.join(self.query_ids)})" if self.query_ids else ""
            raise ModelError(
                f"Training stopped at step {state.global_step + 1}, before it harmed the weights: the gradient is not "
                f"a finite number{queries}. The last good state is kept under {self.folder}; {self.advice}."
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.advance(1)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        barrier()
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            self.advance(0, note="  ".join(f"{key} {logs[key]:.4f}" for key in TERMS if logs.get(key)))
            logged = [row for row in state.log_history if "loss" in row]
            rows = [json.dumps({key: row[key] for key in CURVE if key in row}) for row in logged]
            write_atomic(self.folder / "train.jsonl", "\n".join(rows) + "\n")


def logging_steps(steps: int, save_steps: int) -> int:
    """Every how many steps the loss is logged; at each saved state too, so that the curve survives a kill as it is."""
    return math.gcd(max(1, min(10, steps // 20)), save_steps)


def step_of(state: Path) -> int:
    """The step after which a resumable state was saved."""
    return int(state.name.split("-")[1])


def last_complete(states: Path) -> str | None:
    """The newest resumable state under `states`; all others, which a kill may have left half-written or half-removed,
    go.
    """
    found = sorted(states.glob("checkpoint-*"), key=step_of)
    newest = next((path for path in reversed(found) if (path / COMPLETE).exists()), None)
    for path in found:
        if path != newest:
            shutil.rmtree(path)
    return str(newest) if newest else None

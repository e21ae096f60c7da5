"""The arguments of Hugging Face's Trainer that students and rerankers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer

from pdadapt.settings.schema import RerankerSettings, TrainSettings
from pdadapt.training.resume import logging_steps


def common_arguments(
    settings: TrainSettings | RerankerSettings, states: Path, steps: int, at_once: int, parts: int, seed: int
) -> dict[str, Any]:
    """Return the arguments for a training of `steps` optimizer steps.

    states: the folder of resumable states. at_once: examples whose gradient a process computes at once. parts: how many
    such parts a process accumulates per step.
    """
    return {
        "output_dir": str(states),
        "max_steps": steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": parts,
        "learning_rate": settings.learning_rate,
        "warmup_steps": round(settings.warmup * steps),
        "logging_steps": logging_steps(steps, settings.save_steps),
        "logging_first_step": True,
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "seed": seed,
        "data_seed": seed,
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def remove_printing(trainer: Trainer) -> None:
    """Remove the callbacks that print, because Progress reports the training."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)

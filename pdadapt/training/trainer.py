"""Hugging Face's Trainer, through sentence-transformers, with our loss."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import nn
from torch.utils.data import SequentialSampler

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.labeling.training_list import TrainingList
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import get_lengths, set_lengths
from pdadapt.students.load import save_student
from pdadapt.training.arguments import common_arguments, remove_printing
from pdadapt.training.batch import ListCollator
from pdadapt.training.distributed import add_up, barrier, processes, rank
from pdadapt.training.early_stopping import Checks, Measure, check_points
from pdadapt.training.memory import queries_at_once
from pdadapt.training.pairdistill_loss import PairDistillLoss
from pdadapt.training.resume import ADVICE, Watch, last_complete, step_of

CAP = 20  # passes over the queries, of recipe `default`


class _Trainer(MultiVectorEncoderTrainer):
    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The parts of the next optimizer step; tells the loss how much is in them all."""
        parts, items = super().get_batch_samples(*arguments)
        if parts:
            loss: Any = self.loss
            loss.counts = add_up(torch.stack([loss.count(part["label"]) for part in parts]).sum(0))
            loss.parts = len(parts) * processes()
        return parts, items

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No model card, and no search of the data for its examples: the run folder says how a model was made."""

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *_: Any, **__: Any) -> Any:
        """The lists as they stand, which is the order of `schedule`: the same for any number of processes."""
        return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the rate since the last time."""
        if "loss" in logs:
            now, step = time.monotonic(), self.state.global_step
            then, before = getattr(self, "_logged", (now, step))
            self._logged = now, step
            if step > before:
                per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
                logs = logs | {"examples_per_second": round((step - before) * per_step / (now - then), 3)}
        super().log(logs, start_time)


def train(
    model: MultiVectorEncoder,
    lists: Sequence[TrainingList],
    corpus: Corpus,
    queries: Queries,
    settings: TrainSettings,
    seed: int,
    folder: Path,
    progress: Progress,
    measure: Measure | None = None,
) -> None:
    """Fine-tune `model` on the lists; the result is `folder`/checkpoint, the loss curve `folder`/train.jsonl.

    measure: how good a student is, asked at each check, if the settings want any: the best one becomes the checkpoint.

    Resumable states are kept in `folder`/trainer every save_steps steps, and at checks; a run that was killed goes on
    from the last. Who finds the checkpoint may remove them. Under a launcher of several processes each takes its part
    of every batch, and rank 0 writes.

    Raises RecipeError when a batch cannot be shared out, ModelError when a gradient is not finite.
    """
    states = folder / "trainer"
    at_once = queries_at_once(settings)
    steps = count_steps(settings, len(lists))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")  # not among the states, which go
    arguments = MultiVectorEncoderTrainingArguments(
        **common_arguments(settings, states, steps, at_once, settings.batch_size // (at_once * processes()), seed),
        gradient_checkpointing=settings.gradient_checkpointing,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="linear",
        report_to=list(settings.report_to) or "none",
        run_name=folder.parent.name,
        ddp_backend="gloo" if processes() > 1 and not torch.cuda.is_available() else None,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process trains on one GPU; a teacher may have been spread over more
    data = Dataset.from_dict({"list": schedule(len(lists), steps * settings.batch_size, seed)})
    lengths = get_lengths(model)
    set_lengths(model, settings.query_length, settings.document_length)
    set_dropout(model, settings.dropout)
    if settings.compile:
        encoder: Any = model[0]
        encoder.auto_model.compile(dynamic=True)
    loss = PairDistillLoss(model, settings)
    checks = None
    if measure and settings.keeps_best:
        checks = Checks(measure, check_points(settings, steps), settings.patience, folder, lengths)
    with progress.task("train", steps, "steps") as advance:
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=ListCollator(model, corpus, queries, lists, settings),  # type: ignore[arg-type]
            loss=loss,
            callbacks=[*([checks] if checks else []), Watch(advance, folder, ADVICE, loss.query_ids)],
        )
        remove_printing(trainer)
        with arguments.main_process_first(local=False):
            state = last_complete(states)
            if checks:
                checks.begin(step_of(Path(state)) if state else 0)
        if not (checks and checks.over):
            trainer.train(resume_from_checkpoint=state)
    set_lengths(model, *lengths)
    if rank() == 0 and checks:
        checks.take_best(folder / "checkpoint")
    elif rank() == 0:
        save_student(model, folder / "checkpoint")
    barrier()


def count_steps(settings: TrainSettings, lists: int) -> int:
    """Optimizer steps of a training on so many lists."""

    def of(epochs: float) -> int:
        return max(1, math.ceil(epochs * lists / settings.batch_size))

    steps = settings.steps or of(settings.epochs)
    return min(steps, of(settings.max_epochs)) if settings.max_epochs else steps


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Of all dropout layers; None leaves them as they are."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) and share is not None:
            module.p = share


def schedule(lists: int, wanted: int, seed: int) -> list[int]:
    """Which list stands where in training: `wanted` positions, each pass over all lists shuffled anew."""
    order: list[int] = []
    generator = torch.Generator().manual_seed(seed)
    while len(order) < wanted:
        order += torch.randperm(lists, generator=generator).tolist()
    return order[:wanted]

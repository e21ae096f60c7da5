"""Train a student with Hugging Face's Trainer, by way of sentence-transformers, on the PairDistill loss."""

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
from pdadapt.errors import RecipeError
from pdadapt.labeling.training_list import TrainingList
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import get_lengths, set_lengths
from pdadapt.students.load import save_student
from pdadapt.training.arguments import common_arguments, remove_printing
from pdadapt.training.batch import ListCollator
from pdadapt.training.distributed import barrier, processes, rank, sum_over_ranks
from pdadapt.training.early_stopping import EarlyStopping, StudentQuality, measured_steps
from pdadapt.training.pairdistill_loss import PairDistillLoss
from pdadapt.training.resume import DIVERGENCE_ADVICE, TrainingMonitor, last_complete, step_of
from pdadapt.training.smaller_chunks import queries_per_part
from pdadapt.training.stored_tokens import StoredTokens

STORED_TOKENS = "tokens.float16"  # a file in the folder of the states
DEFAULT_MAX_EPOCHS = 20  # train.max_epochs of recipe `default`


class _Trainer(MultiVectorEncoderTrainer):
    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """Return the parts of the next optimizer step.

        The terms of the loss are means over the whole batch, so the loss must know how many items all parts have. It
        reads this from `loss.counts` and `loss.parts`, which are set here.
        """
        parts, items = super().get_batch_samples(*arguments)
        if parts:
            loss: Any = self.loss
            loss.counts = sum_over_ranks(torch.stack([loss.count(part["label"]) for part in parts]).sum(0))
            loss.parts = len(parts) * processes()
        return parts, items

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: no model card, and no search of the data for examples. The run folder records how a model was
        made.
        """

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *_: Any, **__: Any) -> Any:
        """Take the lists in the order of `schedule`, which is the same for any number of processes."""
        return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the rate since the last log."""
        if "loss" in logs:
            now, step = time.monotonic(), self.state.global_step
            last_time, last_step = getattr(self, "_logged", (now, step))
            self._logged = now, step
            if step > last_step:
                per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
                logs = logs | {"examples_per_second": round((step - last_step) * per_step / (now - last_time), 3)}
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
    measure: StudentQuality | None = None,
) -> None:
    """Fine-tune `model` on the lists. Writes the checkpoint `folder`/checkpoint and the loss curve
    `folder`/train.jsonl.

    measure: returns how good a student is. If the settings ask for checks, it is called at each, and the best student
    becomes the checkpoint.

    Resumable states are saved in `folder`/trainer every save_steps steps, and at checks. After a kill, the same call
    resumes from the last one. The caller may remove them once the checkpoint exists. If a launcher started several
    processes, each process takes its part of every batch, and rank 0 writes.

    Raises RecipeError when a batch cannot be split among the processes. Raises ModelError when a gradient is not
    finite.
    """
    states = folder / "trainer"
    per_part = queries_per_part(settings)
    steps = count_steps(settings, len(lists))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")  # outside of the states, which are removed
    arguments = MultiVectorEncoderTrainingArguments(
        **common_arguments(settings, states, steps, per_part, settings.batch_size // (per_part * processes()), seed),
        gradient_checkpointing=settings.gradient_checkpointing,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="linear",
        report_to=list(settings.report_to) or "none",
        run_name=folder.parent.name,
        ddp_backend="gloo" if processes() > 1 and not torch.cuda.is_available() else None,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process trains on one GPU, also where a teacher used several
    order = schedule(len(lists), steps * settings.batch_size, seed)
    lengths = get_lengths(model)
    set_lengths(model, settings.query_length, settings.document_length)
    set_dropout(model, 0.0 if settings.layers == 0 else settings.dropout)
    freeze_below(model, settings.layers)
    if settings.compile:
        encoder: Any = model[0]
        encoder.auto_model.compile(dynamic=True)
    stored = None
    if settings.layers == 0 and processes() == 1:
        stored = store_tokens(
            model, [lists[place] for place in dict.fromkeys(order)], corpus, queries, states, progress
        )
    loss = PairDistillLoss(model, settings)
    stopping = None
    if measure and settings.keeps_best:
        stopping = EarlyStopping(
            measure,
            measured_steps(settings, steps),
            settings.patience,
            folder,
            lengths,
            lambda text: progress.say(f"{progress.prefix}{text}"),
        )
    with progress.task("train", steps, "steps") as advance:
        monitor = TrainingMonitor(advance, folder, DIVERGENCE_ADVICE, loss.query_ids)
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"list": order}),
            data_collator=ListCollator(model, corpus, queries, lists, settings, stored),  # type: ignore[arg-type]
            loss=loss,
            callbacks=[*([stopping] if stopping else []), monitor],
        )
        remove_printing(trainer)
        with arguments.main_process_first(local=False):
            state = last_complete(states)
            if stopping:
                stopping.begin(model, step_of(Path(state)) if state else 0)
        if not (stopping and stopping.exhausted):
            trainer.train(resume_from_checkpoint=state)
    set_lengths(model, *lengths)
    if rank() == 0 and stopping:
        stopping.take_best(folder / "checkpoint")
    elif rank() == 0:
        save_student(model, folder / "checkpoint")
    barrier()


def store_tokens(
    model: MultiVectorEncoder,
    lists: Sequence[TrainingList],
    corpus: Corpus,
    queries: Queries,
    folder: Path,
    progress: Progress,
) -> StoredTokens:
    """Return the output of the encoder, which must be frozen, for all texts of the lists. It is stored in `folder`."""
    stored = StoredTokens(model, folder / STORED_TOKENS)
    doc_ids = dict.fromkeys(doc_id for entry in lists for doc_id in entry.doc_ids)
    texts = dict.fromkeys(corpus[doc_id].contents for doc_id in doc_ids)
    with progress.task("encode the lists", len(texts), "documents") as advance:
        stored.add("query", (queries[entry.query_id] for entry in lists), lambda _: None)
        stored.add("document", texts, advance)
    return stored


def count_steps(settings: TrainSettings, lists: int) -> int:
    """Return the optimizer steps of a training on this number of lists."""

    def steps_of(epochs: float) -> int:
        return max(1, math.ceil(epochs * lists / settings.batch_size))

    steps = settings.steps or steps_of(settings.epochs)
    return min(steps, steps_of(settings.max_epochs)) if settings.max_epochs else steps


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Set the dropout of all dropout layers. None leaves them unchanged."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) and share is not None:
            module.p = share


def freeze_below(model: nn.Module, layers: int | None) -> None:
    """Freeze the encoder but for its top `layers`. None freezes nothing. A projection is not part of the encoder.

    Raises RecipeError if the encoder has fewer layers.
    """
    if layers is None:
        return
    encoder: Any = model[0].auto_model  # type: ignore[index]
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    stack = max(stacks, key=lambda found: sum(weight.numel() for weight in found.parameters()))
    if layers > len(stack):
        raise RecipeError(
            f"train.layers={layers} exceeds the {len(stack)} layers that the student can train apart. Lower it."
        )
    top = {id(weight) for layer in stack[len(stack) - layers :] for weight in layer.parameters()}
    for weight in encoder.parameters():
        weight.requires_grad_(id(weight) in top)


def schedule(lists: int, length: int, seed: int) -> list[int]:
    """Return the order of lists in training: `length` positions, where each pass over all lists is shuffled."""
    order: list[int] = []
    generator = torch.Generator().manual_seed(seed)
    while len(order) < length:
        order += torch.randperm(lists, generator=generator).tolist()
    return order[:length]

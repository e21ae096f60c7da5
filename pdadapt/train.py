"""Stage: training lists -> checkpoint. Hugging Face's Trainer, through sentence-transformers, with our loss."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.util import maxsim, maxsim_pairwise
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from pdadapt.batches import MEMORY_ERRORS, cut, limits
from pdadapt.bradley_terry import fit
from pdadapt.checks import Checks, Measure, check_points
from pdadapt.corpus import Corpus, Queries
from pdadapt.distributed import add_up, barrier, gather_documents, processes, rank, together
from pdadapt.errors import ModelError, RecipeError, is_out_of_memory
from pdadapt.losses import contrastive_loss, kd_loss, pair_loss
from pdadapt.progress import Progress
from pdadapt.recipe import TrainSettings
from pdadapt.run import write_atomic
from pdadapt.students import save_student
from pdadapt.students.colbert import get_lengths, set_lengths
from pdadapt.training_lists import TrainingList

TERMS = ("loss", "cl", "kd", "pair")
CURVE = ("step", *TERMS, "learning_rate", "grad_norm")  # what train.jsonl keeps of a logged step
CAP = 20  # passes over the queries, of recipe `default`
ADVICE = (
    "begin anew in another --out, with --set label_store=FILE of this run's labels.sqlite and a lower "
    "train.learning_rate, or student.dtype=float32"
)
COMPLETE = "complete"  # marks a resumable state that was written to its end


class ListCollator:
    """Places of lists -> one batch of the Trainer: queries, the distinct documents, and where each belongs.

    The labels are a dict: `documents` (B, N) int64, rows of the document batch, 0 where a list is shorter; `points`
    (B, N) float32, NaN where missing; `pairs` (M, 3) int64 rows (query, i, j); `log_odds` (M,) float32; `listed`
    (B, N) bool, False where a list is shorter; `keys` (D,) int64, one for each distinct document; `relevant` (B, R)
    int64, the keys of those labeled so, -1 where a query has fewer; `query_ids`, B of them.
    """

    valid_label_columns = ("label",)

    def __init__(
        self,
        model: MultiVectorEncoder,
        corpus: Corpus,
        queries: Queries,
        lists: Sequence[TrainingList],
        settings: TrainSettings,
    ):
        self.settings = settings
        self.model = model
        self.corpus = corpus
        self.queries = queries
        self.lists = lists

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        lists = [self.lists[row["list"]] for row in rows]
        doc_ids = list(dict.fromkeys(doc_id for entry in lists for doc_id in entry.doc_ids))
        position = {doc_id: i for i, doc_id in enumerate(doc_ids)}
        width = max(len(entry.doc_ids) for entry in lists)
        documents = torch.zeros(len(lists), width, dtype=torch.long)
        points = torch.full((len(lists), width), math.nan)
        listed = torch.zeros(len(lists), width, dtype=torch.bool)
        keys = [document_key(doc_id) for doc_id in doc_ids]
        relevant = torch.full((len(lists), max(len(entry.relevant) for entry in lists)), -1)
        for row, entry in enumerate(lists):
            documents[row, : len(entry.doc_ids)] = torch.tensor([position[doc_id] for doc_id in entry.doc_ids])
            target = kd_target(entry, self.settings)
            points[row, : len(target)] = torch.tensor([math.nan if point is None else point for point in target])
            listed[row, : len(entry.doc_ids)] = True
            relevant[row, : len(entry.relevant)] = torch.tensor([document_key(doc_id) for doc_id in entry.relevant])
        pairs = [(row, i, j, log_odds) for row, entry in enumerate(lists) for i, j, log_odds in entry.pairs]
        batch: dict[str, Any] = {
            "label": {
                "documents": documents,
                "points": points,
                "pairs": torch.tensor([pair[:3] for pair in pairs], dtype=torch.long).reshape(-1, 3),
                "log_odds": torch.tensor([pair[3] for pair in pairs], dtype=torch.float32),
                "listed": listed,
                "keys": torch.tensor(keys),
                "relevant": relevant,
                "query_ids": [entry.query_id for entry in lists],
            }
        }
        texts = {
            "query": [self.queries[entry.query_id] for entry in lists],
            "document": [self.corpus[doc_id].contents for doc_id in doc_ids],
        }
        for task, inputs in texts.items():
            features = self.model.preprocess(inputs, prompt=self.model.prompts.get(task), task=task)
            batch |= {f"{task}_{key}": value for key, value in features.items()}
        return batch


def kd_target(entry: TrainingList, settings: TrainSettings) -> Sequence[float | None]:
    """What L_KD learns of a list's documents, before it is divided by the temperature; None: nothing is known."""
    if settings.kd_target == "points" or not entry.pairs:
        return entry.points
    judged = {position for i, j, _ in entry.pairs for position in (i, j)}
    strengths = fit(entry.points, entry.pairs, settings.temperature, settings.prior_precision).strengths
    return [
        None if point is None and position not in judged else float(strength) * settings.temperature
        for position, (point, strength) in enumerate(zip(entry.points, strengths, strict=True))
    ]


class PairDistillLoss(nn.Module):
    """lambda_CL L_CL + lambda_KD L_KD + lambda_pair L_pair on a batch of ListCollator.

    Without L_CL this is L_ZS (PairDistill equation 7); with it, the supervised objective.
    """

    def __init__(self, model: MultiVectorEncoder, settings: TrainSettings):
        super().__init__()
        self.model = model
        self.settings = settings
        self.query_ids: list[str] = []  # of this optimizer step
        self.parts = 1  # in which this optimizer step's batch is taken, over all ranks
        self.counts: Tensor | None = None  # what the means of the terms are over, in all of them

    def forward(self, features: list[dict[str, Tensor]], labels: dict[str, Any]) -> dict[str, Tensor]:
        """The weighted terms, by name; the Trainer adds them up and logs each."""
        settings = self.settings
        self.query_ids += labels["query_ids"]
        query, document = features
        query_out = self.model(query, task="query")
        queries = query_out["token_embeddings"], query_out["attention_mask"].bool()
        tokens, mask = self.encode_documents(document)
        keys, own, listed = labels["keys"], labels["documents"], labels["listed"]
        in_batch = settings.lambda_cl > 0 and settings.in_batch_negatives
        if in_batch:
            if together():
                tokens, mask, keys, first = gather_documents(tokens, mask, keys)
                own = own + first
            of_batch = maxsim(queries[0], tokens, queries[1], mask)
            scores = of_batch.gather(1, own)
        else:
            scores = score_listed(queries, (tokens, mask), own)
        relevant = (labels["relevant"][:, :, None] == keys).any(1)
        weight = self.weights(labels)
        terms: dict[str, Tensor] = {}
        if settings.lambda_cl:
            if in_batch:
                each = first_of_each(keys)
                counted = each.expand_as(relevant) if settings.own_negatives else each & ~on_own_list(labels, keys)
                contrastive = contrastive_loss(of_batch, relevant & each, counted, settings.student_temperature)
            else:
                relevant = relevant.gather(1, own) & listed
                contrastive = contrastive_loss(scores, relevant, listed, settings.student_temperature)
            terms["cl"] = weight["cl"] * contrastive
        if settings.lambda_kd:
            kd = kd_loss(scores, labels["points"], settings.temperature, settings.student_temperature)
            terms["kd"] = weight["kd"] * kd
        if settings.lambda_pair:
            pairwise = pair_loss(
                scores, labels["pairs"], labels["log_odds"], settings.pair_reduction, settings.student_temperature
            )
            terms["pair"] = weight["pair"] * pairwise
        return terms

    def weights(self, labels: dict[str, Any]) -> dict[str, Tensor]:
        """Each lambda, times this part's share of what the term is a mean over: parts' mean is the batch's mean."""
        settings, counts = self.settings, self.count(labels)
        total = counts if self.counts is None else self.counts
        share = counts * self.parts / total.clamp(min=1)
        lambdas = share.new_tensor([settings.lambda_cl, settings.lambda_kd, settings.lambda_pair])
        return dict(zip(("cl", "kd", "pair"), lambdas * share, strict=True))

    def count(self, labels: dict[str, Any]) -> Tensor:
        """(3,): of these lists those with a relevant document, those with points, and the pairs (or those with any)."""
        relevant = (labels["relevant"][:, :, None] == labels["keys"]).any(2).any(1)
        points = (~labels["points"].isnan()).sum(1) > 1
        pairs = ~labels["log_odds"].isnan() if self.settings.pair_reduction == "mean" else labels["listed"][:, 0]
        return torch.stack([counted.sum() for counted in (relevant, points, pairs)])

    def encode_documents(self, features: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Token embeddings (D, L, dim) and their mask (D, L) of D documents, encoded in chunks, the longest first.

        With gradient_cache a chunk's activations are dropped, and computed again when its gradient is (Gao et al. 2021,
        "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"): the same gradient, the memory of
        one chunk.
        """
        lengths = features["attention_mask"].sum(1).tolist()
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        tokens: list[Tensor] = []
        masks: list[Tensor] = []
        for rows in chunks(order, lengths, self.settings.chunk_tokens):
            chunk = cut(features, rows, lengths[rows[0]])
            if self.settings.gradient_cache:
                encoded, mask = checkpoint(self._encode, chunk, use_reentrant=False)
            else:
                encoded, mask = self._encode(chunk)
            missing = (tokens[0].shape[1] if tokens else encoded.shape[1]) - encoded.shape[1]  # the first is longest
            tokens.append(F.pad(encoded, (0, 0, 0, missing)))
            masks.append(F.pad(mask, (0, missing)))
        back = torch.tensor(order, device=tokens[0].device).argsort()
        return torch.cat(tokens).index_select(0, back), torch.cat(masks).index_select(0, back)

    def _encode(self, documents: dict[str, Any]) -> tuple[Tensor, Tensor]:
        plain = getattr(self.model, "module", self.model)  # DDP's forward must not run again within backward
        output = plain(dict(documents), task="document")  # a copy, since the model changes it
        return output["token_embeddings"], output["attention_mask"].bool()


def score_listed(queries: tuple[Tensor, Tensor], documents: tuple[Tensor, Tensor], listed: Tensor) -> Tensor:
    """MaxSim of each query with its own documents: (B, N) float32.

    queries, documents: embeddings (B or D, L, dim) and masks (B or D, L); listed: (B, N) rows of `documents`.
    """
    rows = [
        maxsim_pairwise(
            tokens.expand(len(own), -1, -1),
            documents[0].index_select(0, own),
            mask.expand(len(own), -1),
            documents[1].index_select(0, own),
        )
        for tokens, mask, own in zip(*queries, listed, strict=True)
    ]
    return torch.stack(rows)


def document_key(doc_id: str) -> int:
    """63 bits of the id's hash: the same document on every rank."""
    return int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest(), "big") >> 1


def first_of_each(keys: Tensor) -> Tensor:
    """(D,) bool: the first document of each key, without the rows that fill up (-1)."""
    again = (keys[:, None] == keys).tril(-1).any(1)
    return ~again & (keys >= 0)


def on_own_list(labels: dict[str, Any], keys: Tensor) -> Tensor:
    """(B, D) bool: whether a document is on the query's own list. keys: (D,), of the documents of all ranks."""
    own = labels["keys"][labels["documents"]].masked_fill(~labels["listed"], -1)
    return torch.stack([torch.isin(keys, of_query) for of_query in own])


def chunks(order: Sequence[int], lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """`order`, longest first, cut where the next chunk's longest times its rows would exceed `most_tokens`."""
    start = 0
    while start < len(order):
        end = start + max(1, most_tokens // lengths[order[start]])
        yield list(order[start:end])
        start = end


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
        output_dir=str(states),
        max_steps=steps,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=settings.batch_size // (at_once * processes()),
        gradient_checkpointing=settings.gradient_checkpointing,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup * steps),
        logging_steps=logging_steps(steps, settings.save_steps),
        logging_first_step=True,
        save_steps=settings.save_steps,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        report_to=list(settings.report_to) or "none",
        run_name=folder.parent.name,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
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
    if measure and settings.checked:
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
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
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


def until_it_fits(
    settings: TrainSettings, attempt: Callable[[TrainSettings], None], say: Callable[[str], None]
) -> None:
    """Train as memory allows: `attempt` again with smaller chunks when it runs out, from its last state if it kept one.

    Under a launcher what is found out is kept for the next start, since the other ranks wait for this one.
    """
    while True:
        chosen = within_memory(settings)
        try:
            return attempt(chosen)
        except MEMORY_ERRORS as error:
            smaller = next_chunk(chosen)
            if not (smaller and is_out_of_memory(error)):
                raise
            limits.lower("train", smaller)
            if processes() > 1:
                raise
        say(f"Memory ran out: training goes on from its last state with chunks of {smaller:,} tokens.")


def within_memory(settings: TrainSettings) -> TrainSettings:
    """The settings with chunks that memory has been found to hold; below those asked for, the gradient is cached too,
    since without it smaller chunks take no less memory than a query's documents.
    """
    most = limits.get("train", settings.chunk_tokens)
    smaller = {"chunk_tokens": most, "gradient_cache": True} if most < settings.chunk_tokens else {}
    return settings.model_copy(update=smaller)


def next_chunk(settings: TrainSettings) -> int:
    """The chunk_tokens to try when memory has run out; 0 when nothing less is left to try."""
    smaller = settings.chunk_tokens // 2
    return smaller if smaller >= settings.document_length or not settings.gradient_cache else 0


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Of all dropout layers; None leaves them as they are."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) and share is not None:
            module.p = share


def queries_at_once(settings: TrainSettings) -> int:
    """Queries whose documents a process encodes before it computes their gradient.

    All of its share of the batch where in-batch negatives tie it together, else the most whose documents fill no more
    than chunk_tokens, but one.

    Raises RecipeError when a batch cannot be shared out.
    """
    share, rest = divmod(settings.batch_size, processes())
    if rest:
        raise RecipeError(
            f"train.batch_size: {settings.batch_size} queries cannot be shared by {processes()} processes; set one "
            "that can."
        )
    if settings.lambda_cl and settings.in_batch_negatives:
        return share
    most = max(1, settings.chunk_tokens // (settings.n_way * settings.document_length))
    return next(queries for queries in range(min(most, share), 0, -1) if share % queries == 0)


def schedule(lists: int, wanted: int, seed: int) -> list[int]:
    """Which list stands where in training: `wanted` positions, each pass over all lists shuffled anew."""
    order: list[int] = []
    generator = torch.Generator().manual_seed(seed)
    while len(order) < wanted:
        order += torch.randperm(lists, generator=generator).tolist()
    return order[:wanted]


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

"""Repeat a training with smaller parts when memory runs out. The run remembers the size that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pdadapt.errors import RecipeError, is_out_of_memory
from pdadapt.models.device import release_memory
from pdadapt.models.token_budget import MEMORY_ERRORS, batch_limits
from pdadapt.settings.schema import TrainSettings
from pdadapt.training.distributed import processes

Size = TypeVar("Size")


def retry_smaller(
    name: str,
    choose: Callable[[], Size],
    smaller: Callable[[Size], int],
    attempt: Callable[[Size], None],
    say: Callable[[str], None],
    unit: str,
) -> None:
    """Call `attempt` with smaller and smaller sizes until it fits into memory. An attempt resumes from the last state
    that an earlier one saved.

    name: of the limit that the run remembers. choose: returns the size to try, given that limit. smaller: returns the
    next limit after a size that did not fit, or 0 if there is none. unit: of the limit, for the message.

    Under a launcher the error is raised, because the other ranks wait for this one. The next start uses the new limit.
    """
    while True:
        size = choose()
        try:
            return attempt(size)
        except MEMORY_ERRORS as error:
            limit = smaller(size)
            if not (limit and is_out_of_memory(error)):
                raise
            batch_limits.lower(name, limit)
            if processes() > 1:
                raise
        release_memory()  # The failed attempt is unreachable only now, after its traceback is gone.
        say(f"Memory ran out. Training resumes from its last state with {limit:,} {unit}.")


def until_it_fits(
    settings: TrainSettings, attempt: Callable[[TrainSettings], None], say: Callable[[str], None]
) -> None:
    """Train a student with chunks as large as memory allows. See retry_smaller."""
    retry_smaller("train", lambda: within_memory(settings), next_chunk, attempt, say, "tokens per chunk")


def within_memory(settings: TrainSettings) -> TrainSettings:
    """Return the settings with chunks that fit into memory, as far as is known.

    With chunks smaller than train.chunk_tokens the gradient cache is turned on. Without it, smaller chunks would save
    no memory: the activations of all documents of a query are kept until their gradient is computed.
    """
    limit = batch_limits.get("train", settings.chunk_tokens)
    smaller = {"chunk_tokens": limit, "gradient_cache": True} if limit < settings.chunk_tokens else {}
    return settings.model_copy(update=smaller)


def next_chunk(settings: TrainSettings) -> int:
    """Return the chunk_tokens to try after memory ran out; 0 if there is no smaller size to try."""
    smaller = settings.chunk_tokens // 2
    return smaller if smaller >= settings.document_length or not settings.gradient_cache else 0


def queries_per_part(settings: TrainSettings) -> int:
    """Return the number of queries whose documents a process encodes before it computes their gradient.

    With in-batch negatives, this is the process's whole share of the batch. Otherwise it is as many as fit into
    chunk_tokens, and at least one.

    Raises RecipeError when the batch cannot be split evenly among the processes.
    """
    share, rest = divmod(settings.batch_size, processes())
    if rest:
        raise RecipeError(
            f"train.batch_size: {settings.batch_size} queries cannot be split evenly among {processes()} "
            "processes. Set it to a multiple of the number of processes."
        )
    if settings.lambda_cl and settings.in_batch_negatives:
        return share
    fitting = max(1, settings.chunk_tokens // (settings.n_way * settings.document_length))
    return next(queries for queries in range(min(fitting, share), 0, -1) if share % queries == 0)

"""Chunks that fit into memory: halved when memory runs out, and the run remembers."""

from __future__ import annotations

from collections.abc import Callable

from pdadapt.errors import RecipeError, is_out_of_memory
from pdadapt.models.memory import MEMORY_ERRORS, batch_limits
from pdadapt.settings.schema import TrainSettings
from pdadapt.training.distributed import processes


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
            batch_limits.lower("train", smaller)
            if processes() > 1:
                raise
        say(f"Memory ran out: training goes on from its last state with chunks of {smaller:,} tokens.")


def within_memory(settings: TrainSettings) -> TrainSettings:
    """The settings with chunks that memory has been found to hold; below those asked for, the gradient is cached too,
    since without it smaller chunks take no less memory than a query's documents.
    """
    most = batch_limits.get("train", settings.chunk_tokens)
    smaller = {"chunk_tokens": most, "gradient_cache": True} if most < settings.chunk_tokens else {}
    return settings.model_copy(update=smaller)


def next_chunk(settings: TrainSettings) -> int:
    """The chunk_tokens to try when memory has run out; 0 when nothing less is left to try."""
    smaller = settings.chunk_tokens // 2
    return smaller if smaller >= settings.document_length or not settings.gradient_cache else 0


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

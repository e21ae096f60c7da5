"""Several processes that train one student (`torchrun`, `accelerate launch`): who I am, and what ranks share.

Only training is shared. Every other stage is rank 0's, which alone writes; the others wait for its files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather

from pdadapt.errors import RunError
from pdadapt.runtime.locks import holder

POLL = 1.0  # seconds
BEGINNING, GONE = 1_800.0, 60.0  # seconds in which rank 0 may read the data, and after which it has ended


def rank() -> int:
    """Of this process, as its launcher says; 0 without one."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def take_device() -> None:
    """Use the GPU that the launcher means for this process, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))


def wait_until(done: Callable[[], bool], run: Path) -> None:
    """Until rank 0 has done something that shows in the run's folder, which it keeps locked as long as it lives.

    A launcher ends the processes that it has begun when one fails, but those of other nodes know nothing of it. Raises
    RunError when nobody has held the lock for long.
    """
    patience, since = BEGINNING, time.monotonic()
    while not done():
        if holder(run):
            patience, since = GONE, time.monotonic()
        elif time.monotonic() - since > patience:
            raise RunError(f"Rank 0, which retrieves and labels, is not at {run}; see what it said, and begin again.")
        time.sleep(POLL)


def together() -> bool:
    """Whether ranks can speak to one another now."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def barrier() -> None:
    """Wait until every rank is here."""
    if together():
        distributed.barrier()


def add_up(counts: Tensor) -> Tensor:
    """The counts of all ranks."""
    if together():
        distributed.all_reduce(counts)
    return counts


def gather_documents(tokens: Tensor, mask: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Every rank's documents, with gradients that flow back to theirs; and where this rank's begin.

    tokens: (D, L, dim); mask: (D, L); keys: (D,) int64, one a document. Ranks' D and L may differ: rows that fill up
    have key -1.
    """
    shape = torch.tensor(mask.shape, device=mask.device)
    distributed.all_reduce(shape, distributed.ReduceOp.MAX)
    rows, length = shape.tolist()
    more, longer = rows - mask.shape[0], length - mask.shape[1]
    tokens = torch.nn.functional.pad(tokens, (0, 0, 0, longer, 0, more))
    mask = torch.nn.functional.pad(mask, (0, longer, 0, more))
    keys = torch.nn.functional.pad(keys, (0, more), value=-1)
    mask[keys < 0, 0] = True  # a document of no token at all has no score
    everywhere = torch.cat(all_gather(tokens.contiguous()))
    masks, all_keys = (
        [torch.empty_like(mask, dtype=torch.uint8) for _ in range(distributed.get_world_size())],
        [torch.empty_like(keys) for _ in range(distributed.get_world_size())],
    )
    distributed.all_gather(masks, mask.to(torch.uint8))
    distributed.all_gather(all_keys, keys)
    return everywhere, torch.cat(masks).bool(), torch.cat(all_keys), rows * distributed.get_rank()

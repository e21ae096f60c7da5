"""Several processes train one student (`torchrun`, `accelerate launch`): the rank of this process, and how ranks wait
for each other and exchange tensors.

Only training is shared. Rank 0 alone runs every other stage and writes files. The other ranks wait for its files.
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

POLL_SECONDS = 1.0
START_PATIENCE = 1_800.0  # seconds that rank 0 may take to read the data before it locks the run
LOST_PATIENCE = 60.0  # seconds without a lock after which rank 0 counts as ended


def rank() -> int:
    """Return the rank of this process as its launcher set it; 0 without a launcher."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def select_device() -> None:
    """Use the GPU that the launcher assigned to this process, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))


def wait_until(done: Callable[[], bool], run: Path) -> None:
    """Wait until rank 0 has done something that `done` sees in the run's folder. Rank 0 locks the folder while it
    lives.

    When a process fails, its launcher ends the other processes of its node, but not those of other nodes. So this
    raises RunError when nobody has held the lock for LOST_PATIENCE seconds (START_PATIENCE until it was held once).
    """
    patience, since = START_PATIENCE, time.monotonic()
    while not done():
        if holder(run):
            patience, since = LOST_PATIENCE, time.monotonic()
        elif time.monotonic() - since > patience:
            raise RunError(
                f"Rank 0, which retrieves and labels, is not at work in {run}. Read its output, then start all ranks "
                "again."
            )
        time.sleep(POLL_SECONDS)


def is_distributed() -> bool:
    """Whether ranks can communicate now."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def barrier() -> None:
    """Wait until every rank has reached this point."""
    if is_distributed():
        distributed.barrier()


def sum_over_ranks(counts: Tensor) -> Tensor:
    """Return the sum of the counts of all ranks."""
    if is_distributed():
        distributed.all_reduce(counts)
    return counts


def gather_documents(tokens: Tensor, mask: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return the documents of every rank, and the row where this rank's documents begin. Gradients flow back to each
    rank's own documents.

    tokens: (D, L, dim). mask: (D, L). keys: (D,) int64, one per document. D and L may differ between ranks. Padding
    rows get the key -1.
    """
    shape = torch.tensor(mask.shape, device=mask.device)
    distributed.all_reduce(shape, distributed.ReduceOp.MAX)
    rows, length = shape.tolist()
    added_rows, added_tokens = rows - mask.shape[0], length - mask.shape[1]
    tokens = torch.nn.functional.pad(tokens, (0, 0, 0, added_tokens, 0, added_rows))
    mask = torch.nn.functional.pad(mask, (0, added_tokens, 0, added_rows))
    keys = torch.nn.functional.pad(keys, (0, added_rows), value=-1)
    mask[keys < 0, 0] = True  # a padding row needs one token to have a score
    all_tokens = torch.cat(all_gather(tokens.contiguous()))
    masks, all_keys = (
        [torch.empty_like(mask, dtype=torch.uint8) for _ in range(distributed.get_world_size())],
        [torch.empty_like(keys) for _ in range(distributed.get_world_size())],
    )
    distributed.all_gather(masks, mask.to(torch.uint8))
    distributed.all_gather(all_keys, keys)
    return all_tokens, torch.cat(masks).bool(), torch.cat(all_keys), rows * distributed.get_rank()

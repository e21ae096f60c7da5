"""fast-plaid, in an environment that has it: `index SHARDS OUT BITS`, `search INDEX QUERIES K OUT`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import reporting
import torch
from fast_plaid.search import FastPlaid
from safetensors.torch import load_file, save_file

QUERY_BLOCK = 256
FULL_SCORES = 4_096  # documents a query whose MaxSim is computed; fast-plaid's default


def index(shards: str, out: str, bits: str) -> None:
    """The exact engine's shards -> an index; the embeddings stay in their files, which are mapped."""
    reporting.start()
    documents: list[torch.Tensor] = []
    for file in sorted(Path(shards).glob("shard-*.safetensors")):
        shard = load_file(file)
        matrices = shard["tokens"].split(shard["lengths"].tolist())
        documents += [matrices[row] for row in shard["documents"].argsort().tolist()]
    FastPlaid(index=out).create(documents_embeddings=documents, nbits=int(bits))


def search(folder: str, queries: str, k: str, out: str) -> None:
    """`tokens` (N, dim), `lengths` (Q,) -> `positions` (Q, k) int64, -1 where there are fewer, `scores` (Q, k)."""
    done = reporting.start()
    given = load_file(queries)
    matrices = given["tokens"].split(given["lengths"].tolist())
    positions = torch.full((len(matrices), int(k)), -1)
    scores = torch.zeros(len(matrices), int(k))
    engine = FastPlaid(index=folder)
    for start in range(0, len(matrices), QUERY_BLOCK):
        block = list(matrices[start : start + QUERY_BLOCK])
        found = engine.search(block, top_k=int(k), n_full_scores=max(FULL_SCORES, 4 * int(k)), show_progress=False)
        for row, hits in enumerate(found, start):
            positions[row, : len(hits)] = torch.tensor([position for position, _ in hits], dtype=torch.long)
            scores[row, : len(hits)] = torch.tensor([score for _, score in hits])
        done(len(block))
    save_file({"positions": positions, "scores": scores}, out)


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"index": index, "search": search}
    commands[sys.argv[1]](*sys.argv[2:])

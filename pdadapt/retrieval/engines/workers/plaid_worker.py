"""Run fast-plaid in its own environment: `index SHARDS OUT BITS`, `search INDEX QUERIES K OUT`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import reporting
import torch
from fast_plaid.search import FastPlaid
from safetensors.torch import load_file, save_file

PLAID_QUERY_BLOCK = 256
DOCUMENTS_SCORED_FULLY = 4_096  # per query; fast-plaid's default


def index(shards: str, out: str, bits: str) -> None:
    """Make an index of the exact engine's shards. Their files are memory-mapped."""
    reporting.start()
    documents: list[torch.Tensor] = []
    for file in sorted(Path(shards).glob("shard-*.safetensors")):
        shard = load_file(file)
        matrices = shard["tokens"].split(shard["lengths"].tolist())
        documents += [matrices[row] for row in shard["documents"].argsort().tolist()]
    FastPlaid(index=out).create(documents_embeddings=documents, nbits=int(bits))


def search(folder: str, queries: str, k: str, out: str) -> None:
    """Search queries, a file with `tokens` (N, dim) and `lengths` (Q,).

    Writes `positions` (Q, k) int64 and `scores` (Q, k) to `out`. Missing positions are -1.
    """
    done = reporting.start()
    encoded = load_file(queries)
    matrices = encoded["tokens"].split(encoded["lengths"].tolist())
    positions = torch.full((len(matrices), int(k)), -1)
    scores = torch.zeros(len(matrices), int(k))
    engine = FastPlaid(index=folder)
    for start in range(0, len(matrices), PLAID_QUERY_BLOCK):
        block = list(matrices[start : start + PLAID_QUERY_BLOCK])
        found = engine.search(
            block, top_k=int(k), n_full_scores=max(DOCUMENTS_SCORED_FULLY, 4 * int(k)), show_progress=False
        )
        for row, hits in enumerate(found, start):
            positions[row, : len(hits)] = torch.tensor([position for position, _ in hits], dtype=torch.long)
            scores[row, : len(hits)] = torch.tensor([score for _, score in hits])
        done(len(block))
    save_file({"positions": positions, "scores": scores}, out)


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"index": index, "search": search}
    commands[sys.argv[1]](*sys.argv[2:])

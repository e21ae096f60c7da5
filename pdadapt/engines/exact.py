"""Exact search: every MaxSim, in blocks, over embeddings kept on disk in shards.

A shard is a safetensors file: `tokens` (N, dim) float16, `lengths` (documents,) int32, and `documents` (documents,)
int64, the positions in the corpus of its documents, which stand in order of length. A shard is written whole or not
at all, so a killed indexing goes on with the next one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.util import maxsim

SHARD = 1_024  # documents
QUERY_BLOCK = 128  # queries scored at once, of like length, so that little is padding

Advance = Callable[[int], None]


def _shard_files(folder: Path, documents: int) -> list[Path]:
    return [folder / f"shard-{number:05d}.safetensors" for number in range(-(-documents // SHARD))]


def index(
    model: MultiVectorEncoder,
    passages: Sequence[str],
    folder: Path,
    batch_size: int = 32,
    advance: Advance = lambda n: None,
) -> None:
    """Encode passages into shards under `folder`; shards that are there already are kept.

    advance: told how many documents more are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(_shard_files(folder, len(passages))):
        start = number * SHARD
        block = passages[start : start + SHARD]
        if file.exists():
            advance(len(block))
            continue
        order = sorted(range(len(block)), key=lambda i: (-len(block[i]), i))
        tokens: list[torch.Tensor] = []
        for first in range(0, len(order), batch_size):
            batch = [block[i] for i in order[first : first + batch_size]]
            embeddings = model.encode_document(batch, batch_size=batch_size, show_progress_bar=False)
            tokens += [matrix.to("cpu", torch.float16) for matrix in embeddings]
            advance(len(batch))
        temporary = file.with_suffix(".part")
        shard = {
            "tokens": torch.cat(tokens).contiguous(),
            "lengths": torch.tensor([len(matrix) for matrix in tokens], dtype=torch.int32),
            "documents": torch.tensor([start + i for i in order]),
        }
        save_file(shard, temporary)
        os.replace(temporary, file)


def search(
    model: MultiVectorEncoder,
    queries: Sequence[str],
    folder: Path,
    documents: int,
    k: int,
    advance: Advance = lambda n: None,
) -> Iterator[tuple[list[int], list[float]]]:
    """For each query, the positions and MaxSim scores of its k best documents, best first.

    Raises FileNotFoundError when the index is incomplete. advance: told how many (query, document) scores more are
    done.
    """
    embeddings = model.encode_query(list(queries), batch_size=32, show_progress_bar=False)
    by_length = sorted(range(len(embeddings)), key=lambda i: len(embeddings[i]))
    blocks = [by_length[first : first + QUERY_BLOCK] for first in range(0, len(by_length), QUERY_BLOCK)]
    best_scores = torch.empty(len(queries), 0)
    best_documents = torch.empty(len(queries), 0, dtype=torch.long)
    for file in _shard_files(folder, documents):
        shard = load_file(file)
        matrices = list(shard["tokens"].to(model.device).float().split(shard["lengths"].tolist()))
        scores = torch.empty(len(queries), len(matrices))
        for block in blocks:
            scores[block] = maxsim([embeddings[i] for i in block], matrices).cpu()
        scores, columns = scores.topk(min(k, scores.shape[1]))
        scores = torch.cat([best_scores, scores], 1)
        positions = torch.cat([best_documents, shard["documents"][columns]], 1)
        order = positions.argsort(dim=1)
        scores, positions = scores.gather(1, order), positions.gather(1, order)
        keep = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        best_scores, best_documents = scores.gather(1, keep), positions.gather(1, keep)
        advance(len(queries) * len(matrices))
    for scores, positions in zip(best_scores, best_documents, strict=True):
        yield positions.tolist(), scores.tolist()

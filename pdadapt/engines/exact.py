"""Exact search: every MaxSim, in blocks, over embeddings kept on disk in shards.

A shard is a safetensors file: `tokens` (N, dim) float16, `lengths` (documents,) int32, and `documents` (documents,)
int64, the positions in the corpus of its documents, which stand in order of length. A shard is written whole or not
at all, so a killed indexing goes on with the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from pdadapt.batches import MEMORY_ERRORS, limits
from pdadapt.corpus import Document
from pdadapt.engines import Advance, Hits
from pdadapt.errors import is_out_of_memory
from pdadapt.students.encoding import document_batches

SHARD = 1_024  # documents
QUERIES_AT_ONCE = 16_384  # whose embeddings are in memory, and for which the index is gone through
QUERY_BLOCK = 1_024  # queries that meet a shard at once
BLOCK_TOKENS = 8_192  # of documents, multiplied at once
BLOCK_SIMILARITIES = {"cpu": 2**22, "cuda": 2**28}  # of a block: 16 MiB stay near the cores' caches, 1 GiB fits a GPU


def shard_files(folder: Path, documents: int) -> list[Path]:
    return [folder / f"shard-{number:05d}.safetensors" for number in range(-(-documents // SHARD))]


class Exact:
    """Every MaxSim of a multi-vector model; of a dense one, whose texts have one vector each, every dot product."""

    def __init__(self, model: MultiVectorEncoder, batch_tokens: int | None = None):
        """batch_tokens: of documents, encoded at once (see recipe.RetrieveSettings)."""
        self.model = model
        self.batch_tokens = batch_tokens

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance = lambda n, **_: None) -> None:
        """Encode documents into shards under `folder`; shards that are there already are kept."""
        for number, file in enumerate(shard_files(folder, len(documents))):
            start = number * SHARD
            if file.exists():
                advance(min(SHARD, len(documents) - start), earlier=True)
                continue
            block = [document.contents for document in documents[start : start + SHARD]]
            encoded: list[tuple[int, Tensor]] = []
            for rows, matrices in document_batches(self.model, block, self.batch_tokens):
                encoded += [(i, matrix.to("cpu", torch.float16)) for i, matrix in zip(rows, matrices, strict=True)]
                advance(len(rows))
            encoded.sort(key=lambda document: -len(document[1]))
            temporary = file.with_suffix(".part")
            shard = {
                "tokens": torch.cat([matrix for _, matrix in encoded]).contiguous(),
                "lengths": torch.tensor([len(matrix) for _, matrix in encoded], dtype=torch.int32),
                "documents": torch.tensor([start + i for i, _ in encoded]),
            }
            save_file(shard, temporary)
            os.replace(temporary, file)

    def search(
        self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance = lambda n: None
    ) -> Iterator[Hits]:
        """For each query, the positions and MaxSim scores of its k best documents, best first.

        Raises FileNotFoundError when the index is incomplete.
        """
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            yield from self._search(queries[start : start + QUERIES_AT_ONCE], folder, documents, k, advance)

    def _search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        embeddings: Any = self.model.encode_query(list(queries), batch_size=32, show_progress_bar=False)
        device = self.model.device
        blocks = [
            (torch.cat(matrices).float(), torch.tensor([len(matrix) for matrix in matrices], device=device))
            for matrices in (embeddings[i : i + QUERY_BLOCK] for i in range(0, len(queries), QUERY_BLOCK))
        ]
        best = Best(len(queries), k)
        for file in shard_files(folder, documents):
            shard = load_file(file)
            tokens = shard["tokens"].to(device).float()
            lengths = shard["lengths"].tolist()
            scores = torch.cat([maxsim(*block, tokens, lengths).cpu() for block in blocks])
            best.add(scores, shard["documents"])
            advance(len(queries) * len(lengths))
        return best.hits()


class Best:
    """The k best of what has been scored so far; of equal scores the earlier documents."""

    def __init__(self, queries: int, k: int):
        self.k = k
        self.scores = torch.empty(queries, 0)
        self.documents = torch.empty(queries, 0, dtype=torch.long)

    def add(self, scores: Tensor, documents: Tensor) -> None:
        """scores: (queries, D) float32 on the CPU; documents: (D,) positions in the corpus."""
        scores, columns = scores.topk(min(self.k, scores.shape[1]))
        scores = torch.cat([self.scores, scores], 1)
        positions = torch.cat([self.documents, documents[columns]], 1)
        order = positions.argsort(dim=1)
        scores, positions = scores.gather(1, order), positions.gather(1, order)
        keep = scores.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        self.scores, self.documents = scores.gather(1, keep), positions.gather(1, keep)

    def hits(self) -> Iterator[Hits]:
        for scores, positions in zip(self.scores, self.documents, strict=True):
            yield positions.tolist(), scores.tolist()


def maxsim(query_tokens: Tensor, query_lengths: Tensor, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
    """MaxSim of every query with every document: (queries, documents) float32.

    query_tokens: (sum of query_lengths, dim); tokens: (sum of lengths, dim). Blocks are halved when memory runs out.
    """
    device = "cpu" if tokens.device.type == "cpu" else "cuda"
    while True:
        block = limits.get(f"search {device}", BLOCK_SIMILARITIES[device])
        try:
            return _maxsim(query_tokens, query_lengths, tokens, lengths, block)
        except MEMORY_ERRORS as error:
            if block <= BLOCK_TOKENS or not is_out_of_memory(error):
                raise
        limits.lower(f"search {device}", block // 2)


def _maxsim(query_tokens: Tensor, query_lengths: Tensor, tokens: Tensor, lengths: Sequence[int], most: int) -> Tensor:
    """The same, at most so many similarities at once.

    Documents of one length, which stand next to each other, are multiplied together, so that nothing is padded or
    masked.
    """
    best = query_tokens.new_zeros(len(query_tokens), len(lengths))
    start = column = 0
    for count, length in _blocks(lengths):  # the special tokens alone make every length positive
        block = tokens[start : start + count * length].T
        rows = max(1, most // block.shape[1])
        for first in range(0, len(query_tokens), rows):
            similarities = query_tokens[first : first + rows] @ block
            best[first : first + rows, column : column + count] = similarities.unflatten(1, (count, length)).amax(2)
        start, column = start + count * length, column + count
    return torch.segment_reduce(best, "sum", lengths=query_lengths, axis=0)


def _blocks(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(documents, length of each): neighbours of one length, at most BLOCK_TOKENS tokens or one document."""
    for length, same in groupby(lengths):
        documents = len(list(same))
        most = max(1, BLOCK_TOKENS // length)
        for first in range(0, documents, most):
            yield min(most, documents - first), length

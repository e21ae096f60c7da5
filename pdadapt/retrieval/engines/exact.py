"""Exact search: every MaxSim, in blocks, over embeddings kept on disk in shards.

A shard is a safetensors file: `tokens` (N, dim) float16, `lengths` (documents,) int32, and `documents` (documents,)
int64, the positions in the corpus of its documents, which stand in order of length. A shard is written whole or not
at all, so a killed indexing goes on with the next one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from pdadapt.data.corpus import Document
from pdadapt.errors import is_out_of_memory
from pdadapt.models.memory import MEMORY_ERRORS, batch_limits
from pdadapt.retrieval.engines.base import Advance, Hits
from pdadapt.students.encoding import document_batches

SHARD = 1_024  # documents
QUERIES_AT_ONCE = 16_384  # whose embeddings are in memory, and for which the index is gone through
QUERY_BLOCK = 1_024  # queries that meet a shard at once
BLOCK_TOKENS = 8_192  # of documents, multiplied at once
BLOCK_SIMILARITIES = {"cpu": 2**22, "cuda": 2**28}  # of a block: 16 MiB stay near the cores' caches, 1 GiB fits a GPU


class ShardTexts(NamedTuple):
    """What a shard is made of."""

    file: Path
    start: int  # the position in the corpus of its first document
    texts: list[str]


class Shards(Iterable[ShardTexts]):
    """Those to be made, read from the corpus as they are wanted."""

    def __init__(self, files: Sequence[Path], documents: Sequence[Document]):
        self.missing = [(number * SHARD, file) for number, file in enumerate(files) if not file.exists()]
        self.documents = documents

    def __length_hint__(self) -> int:
        return len(self.missing)

    def __iter__(self) -> Iterator[ShardTexts]:
        for start, file in self.missing:
            yield ShardTexts(file, start, [doc.contents for doc in self.documents[start : start + SHARD]])


def encode_shard(
    model: MultiVectorEncoder, shard: ShardTexts, batch_tokens: int | None, advance: Advance = lambda n: None
) -> bytes:
    """A shard as the bytes of its file."""
    encoded: list[tuple[int, Tensor]] = []
    for rows, matrices in document_batches(model, shard.texts, batch_tokens):
        encoded += [(i, matrix.to("cpu", torch.float16)) for i, matrix in zip(rows, matrices, strict=True)]
        advance(len(rows))
    encoded.sort(key=lambda document: -len(document[1]))
    tensors = {
        "tokens": torch.cat([matrix for _, matrix in encoded]).contiguous(),
        "lengths": torch.tensor([len(matrix) for _, matrix in encoded], dtype=torch.int32),
        "documents": torch.tensor([shard.start + i for i, _ in encoded]),
    }
    return save(tensors)


Encode = Callable[[Shards], Iterator[tuple[ShardTexts, bytes]]]  # who makes shards elsewhere, in whatever order


def shard_files(folder: Path, documents: int) -> list[Path]:
    return [folder / f"shard-{number:05d}.safetensors" for number in range(-(-documents // SHARD))]


class Exact:
    """Every MaxSim of a multi-vector model; of a dense one, whose texts have one vector each, every dot product."""

    def __init__(self, model: MultiVectorEncoder, batch_tokens: int | None = None, encode: Encode | None = None):
        """batch_tokens: of documents, encoded at once (see recipe.RetrieveSettings). encode: documents are encoded
        there, by the same model (cluster.py).
        """
        self.model = model
        self.batch_tokens = batch_tokens
        self.encode = encode

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance = lambda n, **_: None) -> None:
        """Encode documents into shards under `folder`; shards that are there already are kept."""
        shards = Shards(shard_files(folder, len(documents)), documents)
        missing = sum(min(SHARD, len(documents) - start) for start, _ in shards.missing)
        advance(len(documents) - missing, earlier=True)
        if not missing:
            return
        for shard, content in self.encode(shards) if self.encode else self._encoded(shards, advance):
            if self.encode:
                advance(len(shard.texts))
            temporary = shard.file.with_suffix(".part")
            temporary.write_bytes(content)
            os.replace(temporary, shard.file)

    def _encoded(self, shards: Shards, advance: Advance) -> Iterator[tuple[ShardTexts, bytes]]:
        return ((shard, encode_shard(self.model, shard, self.batch_tokens, advance)) for shard in shards)

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
    """The k best of what has been scored so far; of equal scores those of earlier shards."""

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
        block = batch_limits.get(f"search {device}", BLOCK_SIMILARITIES[device])
        try:
            return _maxsim(query_tokens, query_lengths, tokens, lengths, block)
        except MEMORY_ERRORS as error:
            if block <= BLOCK_TOKENS or not is_out_of_memory(error):
                raise
        batch_limits.lower(f"search {device}", block // 2)


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

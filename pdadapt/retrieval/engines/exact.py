"""Exact search: the MaxSim of every document, computed in blocks over embeddings that are kept on disk in shards.

A shard is a safetensors file with `tokens` (N, dim) float16, `lengths` (documents,) int32, and `documents` (documents,)
int64: its documents' positions in the corpus. Documents are sorted by length, longest first. A shard is written
completely or not at all, so interrupted indexing continues with the next shard.
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
from pdadapt.models.token_budget import MEMORY_ERRORS, batch_limits
from pdadapt.retrieval.engines.base import Advance, Hits
from pdadapt.students.encoding import document_batches

DOCUMENTS_PER_SHARD = 1_024
QUERIES_AT_ONCE = 16_384  # the embeddings of so many queries are in memory for one pass over the index
QUERY_BLOCK = 1_024  # queries that are multiplied with a shard at once
BLOCK_TOKENS = 8_192  # document tokens that are multiplied at once
BLOCK_SIMILARITIES = {"cpu": 2**22, "cuda": 2**28}  # per block: 16 MiB stay near the cores' caches, 1 GiB fits a GPU


class ShardTexts(NamedTuple):
    """The documents of a shard that is to be encoded."""

    file: Path
    start: int  # the first document's position in the corpus
    texts: list[str]


class MissingShards(Iterable[ShardTexts]):
    """The shards that must be encoded. Their documents are read from the corpus one shard at a time."""

    def __init__(self, files: Sequence[Path], documents: Sequence[Document]):
        """files: of all shards. documents: of the whole corpus."""
        self.missing = [(number * DOCUMENTS_PER_SHARD, file) for number, file in enumerate(files) if not file.exists()]
        self.documents = documents

    def __length_hint__(self) -> int:
        return len(self.missing)

    def __iter__(self) -> Iterator[ShardTexts]:
        for start, file in self.missing:
            yield ShardTexts(file, start, [doc.contents for doc in self.documents[start : start + DOCUMENTS_PER_SHARD]])


def encode_shard(
    model: MultiVectorEncoder, shard: ShardTexts, batch_tokens: int | None, advance: Advance = lambda n, **_: None
) -> bytes:
    """Encode a shard. Return the content of its file."""
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


EncodeShards = Callable[[MissingShards], Iterator[tuple[ShardTexts, bytes]]]  # encodes shards elsewhere, in any order


def shard_files(folder: Path, documents: int) -> list[Path]:
    """Return the files of all shards of an index of so many documents."""
    return [folder / f"shard-{number:05d}.safetensors" for number in range(-(-documents // DOCUMENTS_PER_SHARD))]


class Exact:
    """Computes every MaxSim of a multi-vector model. For a dense model this is the dot product of two vectors."""

    def __init__(self, model: MultiVectorEncoder, batch_tokens: int | None = None, encode: EncodeShards | None = None):
        """Prepare the engine.

        batch_tokens: document tokens encoded at once (see document_batches).
        encode: encodes the documents elsewhere with the same model (see remote.py); None means in this process.
        """
        self.model = model
        self.batch_tokens = batch_tokens
        self.encode = encode

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance = lambda n, **_: None) -> None:
        """Encode the documents into shards in `folder`. Existing shards are kept."""
        shards = MissingShards(shard_files(folder, len(documents)), documents)
        missing = sum(min(DOCUMENTS_PER_SHARD, len(documents) - start) for start, _ in shards.missing)
        advance(len(documents) - missing, earlier=True)
        if not missing:
            return
        for shard, content in self.encode(shards) if self.encode else self._encoded(shards, advance):
            if self.encode:
                advance(len(shard.texts))
            temporary = shard.file.with_suffix(".part")
            temporary.write_bytes(content)
            os.replace(temporary, shard.file)

    def _encoded(self, shards: MissingShards, advance: Advance) -> Iterator[tuple[ShardTexts, bytes]]:
        return ((shard, encode_shard(self.model, shard, self.batch_tokens, advance)) for shard in shards)

    def search(
        self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance = lambda n, **_: None
    ) -> Iterator[Hits]:
        """Yield, for each query, the positions and MaxSim scores of its k best documents, best first.

        Raises FileNotFoundError if the index is incomplete.
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
        best = TopK(len(queries), k)
        for file in shard_files(folder, documents):
            shard = load_file(file)
            tokens = shard["tokens"].to(device).float()
            lengths = shard["lengths"].tolist()
            scores = torch.cat([maxsim(*block, tokens, lengths).cpu() for block in blocks])
            best.add(scores, shard["documents"])
            advance(len(queries) * len(lengths))
        return best.hits()


class TopK:
    """The k best documents scored so far. Of equal scores, the documents of earlier shards win."""

    def __init__(self, queries: int, k: int):
        self.k = k
        self.scores = torch.empty(queries, 0)
        self.documents = torch.empty(queries, 0, dtype=torch.long)

    def add(self, scores: Tensor, documents: Tensor) -> None:
        """Add scores (queries, D), float32 on the CPU, of documents (D,), given by their positions in the corpus."""
        scores, columns = scores.topk(min(self.k, scores.shape[1]))
        scores = torch.cat([self.scores, scores], 1)
        positions = torch.cat([self.documents, documents[columns]], 1)
        order = positions.argsort(dim=1)
        scores, positions = scores.gather(1, order), positions.gather(1, order)
        keep = scores.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        self.scores, self.documents = scores.gather(1, keep), positions.gather(1, keep)

    def hits(self) -> Iterator[Hits]:
        """Yield the best documents of each query."""
        for scores, positions in zip(self.scores, self.documents, strict=True):
            yield positions.tolist(), scores.tolist()


def maxsim(query_tokens: Tensor, query_lengths: Tensor, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the MaxSim of every query with every document: (queries, documents) float32.

    query_tokens: (sum of query_lengths, dim). tokens: (sum of lengths, dim). Blocks are halved when memory runs out.
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
    """Return what `maxsim` returns, computing at most `most` similarities at once.

    Neighboring documents of equal length are multiplied together, so nothing is padded or masked.
    """
    best = query_tokens.new_zeros(len(query_tokens), len(lengths))
    start = column = 0
    for count, length in _blocks(lengths):  # every length is positive, since each text has special tokens
        block = tokens[start : start + count * length].T
        rows = max(1, most // block.shape[1])
        for first in range(0, len(query_tokens), rows):
            similarities = query_tokens[first : first + rows] @ block
            best[first : first + rows, column : column + count] = similarities.unflatten(1, (count, length)).amax(2)
        start, column = start + count * length, column + count
    return torch.segment_reduce(best, "sum", lengths=query_lengths, axis=0)


def _blocks(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (number of documents, length of each) for neighbors of equal length, with at most BLOCK_TOKENS tokens.

    A longer document forms its own block.
    """
    for length, same in groupby(lengths):
        documents = len(list(same))
        most = max(1, BLOCK_TOKENS // length)
        for first in range(0, documents, most):
            yield min(most, documents - first), length

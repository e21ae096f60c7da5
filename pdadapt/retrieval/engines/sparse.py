"""Learned sparse retrieval (SPLADE) with sentence-transformers' SparseEncoder: the dot product of every document.

A shard is a CSR matrix (scipy's npz) with one row per document and one column per word of the vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.sparse import csr_matrix, load_npz, save_npz
from sentence_transformers import SparseEncoder

from pdadapt.data.corpus import Document
from pdadapt.retrieval.engines.base import Advance, Hits
from pdadapt.retrieval.engines.exact import DOCUMENTS_PER_SHARD, TopK


class Sparse:
    """Computes every dot product of a SparseEncoder's vectors."""

    def __init__(self, model: SparseEncoder):
        self.model = model

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Encode the documents into shards in `folder`. Existing shards are kept."""
        for start in range(0, len(documents), DOCUMENTS_PER_SHARD):
            block = documents[start : start + DOCUMENTS_PER_SHARD]
            file = _shard_file(folder, start)
            if not file.exists():
                texts = [document.contents for document in block]
                rows: Any = self.model.encode_document(texts, show_progress_bar=False)
                temporary = file.with_suffix(".part.npz")
                save_npz(temporary, _csr(rows))
                os.replace(temporary, file)
                advance(len(block))
            else:
                advance(len(block), earlier=True)

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """See Engine.search. Documents without a word of the query score 0. They come last, in the corpus' order."""
        encoded: Any = self.model.encode_query(list(queries), show_progress_bar=False)
        words = _csr(encoded)
        best = TopK(len(queries), k)
        for start in range(0, documents, DOCUMENTS_PER_SHARD):
            shard = load_npz(_shard_file(folder, start))
            scores = torch.from_numpy((words @ shard.T).toarray()).float()
            best.add(scores, torch.arange(start, start + shard.shape[0]))
            advance(len(queries) * shard.shape[0])
        return best.hits()


def _shard_file(folder: Path, start: int) -> Path:
    return folder / f"shard-{start // DOCUMENTS_PER_SHARD:05d}.npz"


def _csr(rows: Any) -> csr_matrix:
    """Return a batch of sparse tensors as a matrix (texts, words)."""
    sparse = rows.cpu().coalesce()
    row, column = sparse.indices().numpy()
    return csr_matrix((sparse.values().float().numpy(), (row, column)), shape=tuple(sparse.shape))

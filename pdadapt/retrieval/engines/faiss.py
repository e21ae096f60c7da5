"""Search single vectors with a faiss index: Flat, HNSW, IVF-PQ, or any other name that its factory knows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from safetensors.torch import load_file

from pdadapt.data.corpus import Document
from pdadapt.errors import ModelError
from pdadapt.retrieval.engines.base import Advance, Hits
from pdadapt.retrieval.engines.exact import Exact, shard_files

MAX_TRAINING_VECTORS = 200_000  # clusters and codes are fitted to about so many vectors
FAISS_QUERY_BLOCK = 1_024


class Faiss:
    """Finds the largest inner products of a dense model's vectors, exactly or approximately.

    It uses all GPUs that faiss sees.
    """

    def __init__(self, encoder: Exact, factory: str, nprobe: int):
        """Make an empty index.

        encoder: encodes the documents into shards.
        factory: a name for faiss.index_factory: `Flat`, `HNSW32`, `IVF1024,PQ48`.
        nprobe: the clusters that an IVF index searches per query.
        Raises ModelError if faiss does not know the name.
        """
        self.encoder = encoder
        self.factory = factory
        self.nprobe = nprobe
        dimensions: Any = encoder.model.get_embedding_dimension()
        try:
            self.empty = faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].rpartition(": ")[2]
            raise ModelError(
                f"retrieve.faiss: faiss cannot make an index {factory!r} of {dimensions} dimensions ({reason}). Use "
                "Flat, HNSW32 or IVF1024,PQ48."
            ) from None

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Write `folder`/faiss.index, which appears complete or not at all. Until then, shards keep the vectors."""
        target = folder / "faiss.index"
        if target.exists():
            advance(len(documents), earlier=True)
            return
        self.encoder.index(documents, folder, advance)
        files = shard_files(folder, len(documents))
        index = _on_gpus(faiss.clone_index(self.empty))
        step = max(1, len(documents) // MAX_TRAINING_VECTORS)
        try:
            if not index.is_trained:
                index.train(np.concatenate([_vectors(file)[::step] for file in files]))
            for file in files:
                index.add(_vectors(file))
        except RuntimeError:
            raise ModelError(
                f"retrieve.faiss: {self.factory!r} cannot be fitted to {len(documents):,} documents. Use fewer "
                "clusters and shorter codes, or Flat."
            ) from None
        temporary = folder / "faiss.part"
        faiss.write_index(_on_cpu(index), str(temporary))
        os.replace(temporary, target)
        for file in files:
            file.unlink()

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """See Engine.search. An approximate index may find fewer than k documents."""
        embeddings: Any = self.encoder.model.encode_query(list(queries), batch_size=32, show_progress_bar=False)
        index = faiss.read_index(str(folder / "faiss.index"))
        if isinstance(index, faiss.IndexIVF):
            index.nprobe = self.nprobe
        index = _on_gpus(index)
        for start in range(0, len(queries), FAISS_QUERY_BLOCK):
            block = torch.cat(embeddings[start : start + FAISS_QUERY_BLOCK]).float().cpu().numpy()
            for scores, positions in zip(*index.search(block, min(k, documents)), strict=True):
                valid = positions >= 0
                yield positions[valid].tolist(), scores[valid].tolist()
            advance(len(block) * documents)


def _vectors(file: Path) -> np.ndarray:
    """Return a shard's vectors (documents, dimensions) float32, in the order of the corpus."""
    shard = load_file(file)
    return shard["tokens"][shard["documents"].argsort()].float().numpy()


def _on_gpus(index: Any) -> Any:
    """Return the index on all GPUs, or unchanged if there are none. HNSW has no GPU version."""
    graph = isinstance(index, faiss.IndexHNSW)
    return faiss.index_cpu_to_all_gpus(index) if getattr(faiss, "get_num_gpus", int)() and not graph else index


def _on_cpu(index: Any) -> Any:
    on_gpu = getattr(faiss, "get_num_gpus", int)() and not isinstance(index, faiss.IndexHNSW)
    return faiss.index_gpu_to_cpu(index) if on_gpu else index

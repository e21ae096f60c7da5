"""Single vectors in a faiss index: Flat, HNSW, IVF-PQ, or any other of its factory's names."""

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

TRAINED_ON = 200_000  # vectors, about, that clusters and codes are fitted to
QUERY_BLOCK = 1_024


class Faiss:
    """Approximate or exact inner product of a dense model's vectors; on the GPUs that faiss sees, if any."""

    def __init__(self, encoder: Exact, factory: str, nprobe: int):
        """encoder: makes the vectors. factory: what faiss.index_factory understands, such as `Flat`, `HNSW32`,
        `IVF1024,PQ48`. nprobe: of IVF, the clusters looked into.

        Raises ModelError when it does not.
        """
        self.encoder = encoder
        self.factory = factory
        self.nprobe = nprobe
        dimensions: Any = encoder.model.get_embedding_dimension()
        try:
            self.empty = faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1].rpartition(": ")[2]
            raise ModelError(
                f"retrieve.faiss: faiss knows no index {factory!r} of {dimensions} dimensions ({said}); take Flat, "
                "HNSW32 or IVF1024,PQ48."
            ) from None

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Leaves `folder`/faiss.index, whole or not at all; vectors are kept in shards until then."""
        target = folder / "faiss.index"
        if target.exists():
            advance(len(documents), earlier=True)
            return
        self.encoder.index(documents, folder, advance)
        files = shard_files(folder, len(documents))
        index = _on_gpus(faiss.clone_index(self.empty))
        step = max(1, len(documents) // TRAINED_ON)
        try:
            if not index.is_trained:
                index.train(np.concatenate([_vectors(file)[::step] for file in files]))
            for file in files:
                index.add(_vectors(file))
        except RuntimeError:
            raise ModelError(
                f"retrieve.faiss: {self.factory!r} cannot be fitted to {len(documents):,} documents; take fewer "
                "clusters and shorter codes, or Flat."
            ) from None
        temporary = folder / "faiss.part"
        faiss.write_index(_on_cpu(index), str(temporary))
        os.replace(temporary, target)
        for file in files:
            file.unlink()

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """The index's own order; fewer than k where it finds fewer."""
        embeddings: Any = self.encoder.model.encode_query(list(queries), batch_size=32, show_progress_bar=False)
        index = faiss.read_index(str(folder / "faiss.index"))
        if isinstance(index, faiss.IndexIVF):
            index.nprobe = self.nprobe
        index = _on_gpus(index)
        for start in range(0, len(queries), QUERY_BLOCK):
            block = torch.cat(embeddings[start : start + QUERY_BLOCK]).float().cpu().numpy()
            for scores, positions in zip(*index.search(block, min(k, documents)), strict=True):
                found = positions >= 0
                yield positions[found].tolist(), scores[found].tolist()
            advance(len(block) * documents)


def _vectors(file: Path) -> np.ndarray:
    """A shard's vectors, in the order of the corpus: (documents, dimensions) float32."""
    shard = load_file(file)
    return shard["tokens"][shard["documents"].argsort()].float().numpy()


def _on_gpus(index: Any) -> Any:
    """As it is where there are none; HNSW has no GPU form."""
    graph = isinstance(index, faiss.IndexHNSW)
    return faiss.index_cpu_to_all_gpus(index) if getattr(faiss, "get_num_gpus", int)() and not graph else index


def _on_cpu(index: Any) -> Any:
    on_gpu = getattr(faiss, "get_num_gpus", int)() and not isinstance(index, faiss.IndexHNSW)
    return faiss.index_gpu_to_cpu(index) if on_gpu else index

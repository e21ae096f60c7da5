"""PLAID (Santhanam et al., CIKM 2022) by fast-plaid: clusters of token vectors, and residuals of a few bits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder

from pdadapt.data.corpus import Document
from pdadapt.retrieval.engines.base import Advance, Hits
from pdadapt.retrieval.engines.environment import run_worker
from pdadapt.retrieval.engines.exact import Exact, shard_files


class Plaid:
    """Finds documents by approximate MaxSim. The index takes about a tenth of the embeddings' space."""

    def __init__(self, model: MultiVectorEncoder, bits: int, batch_tokens: int | None = None):
        """Prepare the engine.

        bits: per dimension of the residuals; the paper's indexes have 2.
        batch_tokens: document tokens encoded at once (see document_batches).
        """
        self.encoder = Exact(model, batch_tokens)
        self.bits = bits

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Write `folder`/plaid, which appears complete or not at all. Until then, shards keep the embeddings."""
        target, temporary = folder / "plaid", folder / "plaid.part"
        if target.exists():
            advance(len(documents), earlier=True)
            return
        self.encoder.index(documents, folder, advance)
        shutil.rmtree(temporary, ignore_errors=True)
        advance(0, note="clustering, which takes minutes")
        run_worker("plaid", ["index", folder, temporary, self.bits], folder / "plaid.log", advance)
        os.replace(temporary, target)
        for file in shard_files(folder, len(documents)):
            file.unlink()

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """See Engine.search. fast-plaid's defaults decide how much is probed; it may find fewer than k documents."""
        embeddings: Any = self.encoder.model.encode_query(list(queries), batch_size=32, show_progress_bar=False)
        queries_file, hits_file = folder / "queries.safetensors", folder / "hits.safetensors"
        lengths = torch.tensor([len(matrix) for matrix in embeddings])
        save_file({"tokens": torch.cat(embeddings).to("cpu", torch.float16), "lengths": lengths}, queries_file)
        arguments = ["search", folder / "plaid", queries_file, min(k, documents), hits_file]
        run_worker("plaid", arguments, folder / "plaid.log", lambda done: advance(done * documents))
        hits = load_file(hits_file)
        for positions, scores in zip(hits["positions"], hits["scores"], strict=True):
            valid = positions >= 0
            yield positions[valid].tolist(), scores[valid].tolist()

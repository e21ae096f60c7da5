"""PLAID (Santhanam et al., CIKM 2022): clusters of token vectors, residuals of a few bits. fast-plaid's."""

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
from pdadapt.retrieval.engines.environment import work
from pdadapt.retrieval.engines.exact import Exact, shard_files


class Plaid:
    """Approximate MaxSim; the index is about a tenth of the embeddings."""

    def __init__(self, model: MultiVectorEncoder, bits: int, batch_tokens: int | None = None):
        """bits: of each dimension's residual; the paper's indexes have 2."""
        self.encoder = Exact(model, batch_tokens)
        self.bits = bits

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Leaves `folder`/plaid, whole or not at all; embeddings are kept in shards until then."""
        target, temporary = folder / "plaid", folder / "plaid.part"
        if target.exists():
            advance(len(documents), earlier=True)
            return
        self.encoder.index(documents, folder, advance)
        shutil.rmtree(temporary, ignore_errors=True)
        advance(0, note="clustering, which takes minutes")
        work("plaid", ["index", folder, temporary, self.bits], folder / "plaid.log", advance)
        os.replace(temporary, target)
        for file in shard_files(folder, len(documents)):
            file.unlink()

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """fast-plaid's order, with its own settings of how much to probe; fewer than k where it finds fewer."""
        embeddings: Any = self.encoder.model.encode_query(list(queries), batch_size=32, show_progress_bar=False)
        asked, answered = folder / "queries.safetensors", folder / "hits.safetensors"
        lengths = torch.tensor([len(matrix) for matrix in embeddings])
        save_file({"tokens": torch.cat(embeddings).to("cpu", torch.float16), "lengths": lengths}, asked)
        arguments = ["search", folder / "plaid", asked, min(k, documents), answered]
        work("plaid", arguments, folder / "plaid.log", lambda done: advance(done * documents))
        hits = load_file(answered)
        for positions, scores in zip(hits["positions"], hits["scores"], strict=True):
            found = positions >= 0
            yield positions[found].tolist(), scores[found].tolist()

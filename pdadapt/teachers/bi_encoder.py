"""A larger retriever as the point teacher: any dense or multi-vector model of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from sentence_transformers.util import maxsim

from pdadapt.errors import ModelError
from pdadapt.models import resolve_model
from pdadapt.recipe import ModelSettings
from pdadapt.students.colbert import is_colbert, load_colbert
from pdadapt.teachers import Point, Scores
from pdadapt.teachers.language_model import default_device, pick_dtype
from pdadapt.teachers.prompting import Budget

CPU_BUDGET, GPU_BUDGET = 1_024, 131_072  # tokens encoded at once, padding included


class BiEncoderTeacher:
    def __init__(self, settings: ModelSettings):
        """Raises ModelError when the model does not load."""
        from sentence_transformers import SentenceTransformer

        source = resolve_model(settings.model)
        self.model: Any
        self.multi_vector = is_colbert(source)
        if self.multi_vector:
            self.model = load_colbert(settings.model)
        else:
            device = default_device()
            weights = {"use_safetensors": True, "dtype": pick_dtype(settings.dtype, device)}
            try:
                self.model = SentenceTransformer(
                    source.path, revision=source.revision, model_kwargs=weights, device=device.type
                )
            except (OSError, ValueError, KeyError) as error:
                first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ModelError(f"Teacher {source.name!r} does not load as a bi_encoder: {first_line}") from error
            self.model.max_seq_length = min(self.model.max_seq_length or settings.max_length, settings.max_length)
        on_gpu = self.model.device.type == "cuda"
        self.budget = Budget(settings.batch_tokens or (GPU_BUDGET if on_gpu else CPU_BUDGET))

    def score_points(self, points: Sequence[Point]) -> Iterator[Scores]:
        """The model's own similarity (cosine, dot product or MaxSim); every text is encoded once."""
        asked: dict[str, list[int]] = {}
        for index, point in enumerate(points):
            asked.setdefault(point.document, []).append(index)
        queries: dict[str, torch.Tensor] = {}
        for batch in self._encode(self.model.encode_query, {point.query for point in points}):
            queries |= batch
        for batch in self._encode(self.model.encode_document, asked):
            scores: Scores = []
            for document, embedding in batch.items():
                similar = self._similarity([queries[points[index].query] for index in asked[document]], embedding)
                scores += zip(asked[document], similar, strict=True)
            yield scores

    def _encode(self, encode: Any, texts: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of text -> float32 embedding, longest first, as many at once as the budget holds."""
        ordered = sorted(texts, key=lambda text: (-len(text), text))
        options = {"show_progress_bar": False} | ({} if self.multi_vector else {"convert_to_tensor": True})

        def embed(batch: range) -> list[torch.Tensor]:
            return list(encode([ordered[i] for i in batch], batch_size=len(batch), **options))

        costs = [len(text) // 4 + 8 for text in ordered]  # tokens, about
        for batch, embeddings in self.budget.batches(costs, embed, padded=True):
            yield {ordered[i]: embedding.float() for i, embedding in zip(batch, embeddings, strict=True)}

    def _similarity(self, queries: list[torch.Tensor], document: torch.Tensor) -> list[float]:
        """Of one document to some queries: vectors (dim,), or matrices of token vectors (tokens, dim)."""
        if self.multi_vector:
            return maxsim(queries, [document])[:, 0].tolist()
        return self.model.similarity(torch.stack(queries), document[None])[:, 0].float().tolist()

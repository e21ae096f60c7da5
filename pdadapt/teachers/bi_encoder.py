"""A larger retriever as the point teacher: any dense or multi-vector model of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers.util import maxsim

from pdadapt.errors import ModelError
from pdadapt.models import resolve_model
from pdadapt.recipe import ModelSettings
from pdadapt.students.colbert import is_colbert, load_colbert
from pdadapt.teachers import Point, Scores
from pdadapt.teachers.language_model import default_device, pick_dtype

BLOCK = 256  # documents encoded, scored and committed at once


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
        self.options = {"batch_size": 32 if self.model.device.type == "cpu" else 256, "show_progress_bar": False}

    @torch.inference_mode()
    def score_points(self, points: Sequence[Point]) -> Iterator[Scores]:
        """The model's own similarity (cosine, dot product or MaxSim); every text is encoded once."""
        queries = list(dict.fromkeys(point.query for point in points))
        encoded = dict(zip(queries, self._encode(self.model.encode_query, queries), strict=True))
        asked: dict[str, list[int]] = {}
        for index, point in enumerate(points):
            asked.setdefault(point.document, []).append(index)
        documents = sorted(asked, key=lambda text: (-len(text), text))
        for start in range(0, len(documents), BLOCK):
            block = documents[start : start + BLOCK]
            scores: Scores = []
            for text, embedding in zip(block, self._encode(self.model.encode_document, block), strict=True):
                asking = [encoded[points[index].query] for index in asked[text]]
                scores += zip(asked[text], self._similarity(asking, embedding), strict=True)
            yield scores

    def _similarity(self, queries: list[torch.Tensor], document: torch.Tensor) -> list[float]:
        """Of one document to some queries: vectors (dim,), or matrices of token vectors (tokens, dim)."""
        if self.multi_vector:
            return maxsim(queries, [document])[:, 0].tolist()
        return self.model.similarity(torch.stack(queries), document[None])[:, 0].float().tolist()

    def _encode(self, encode: Any, texts: list[str]) -> list[torch.Tensor]:
        return list(encode(texts, **self.options, **({} if self.multi_vector else {"convert_to_tensor": True})))

"""A larger retriever as the point teacher: any dense or multi-vector model of sentence-transformers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import maxsim

from pdadapt.models.device import default_device, pick_dtype
from pdadapt.models.encoders import length_limit, settle
from pdadapt.models.memory import Budget
from pdadapt.models.source import is_colbert, loading, resolve_model
from pdadapt.settings.schema import ModelSettings
from pdadapt.students.colbert import load_colbert, set_lengths
from pdadapt.teachers.base import Chunk, Point, Scores
from pdadapt.teachers.control import control_tokens
from pdadapt.teachers.marks import check_marks, marks
from pdadapt.teachers.precision import float32_behind_body
from pdadapt.teachers.prompting import cut_tokens

CPU_BUDGET, GPU_BUDGET = 1_024, 131_072  # tokens encoded at once, padding included


class BiEncoderTeacher:
    """One vector a text; the score is the model's own similarity (cosine or dot product)."""

    def __init__(self, settings: ModelSettings):
        """Raises ModelError when the model does not load, or does not read texts as they are."""
        dtype = pick_dtype(settings.dtype, default_device())
        self.model: Any = self._load(settings, dtype)
        float32_behind_body(self.model, dtype)
        read_as_text(self.model)
        self.max_document_length = settings.max_document_length
        on_gpu = self.model.device.type == "cuda"
        self.budget = Budget(
            f"teacher {settings.model}", settings.batch_tokens or (GPU_BUDGET if on_gpu else CPU_BUDGET)
        )

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Every text of a chunk is encoded once."""
        for chunk in chunks:
            asked: dict[str, list[Point]] = {}
            for point in sorted(chunk.asked):
                asked.setdefault(self._cut(point.document), []).append(point)
            queries: dict[str, torch.Tensor] = {}
            for batch in self._encode(self.model.encode_query, {point.query for point in chunk.whole}):
                queries |= batch
            for batch in self._encode(self.model.encode_document, asked):
                scores: Scores = []
                for document, embedding in batch.items():
                    similar = self._similarity([queries[point.query] for point in asked[document]], embedding)
                    scores += zip(asked[document], similar, strict=True)
                yield scores

    def _cut(self, document: str) -> str:
        keep = self.max_document_length
        return document if keep is None else cut_tokens(self.model.tokenizer, document, keep)

    def _encode(self, encode: Any, texts: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of text -> float32 embedding, longest first, as many at once as the budget holds."""
        ordered = sorted(texts, key=lambda text: (-len(text), text))

        def embed(batch: range) -> list[torch.Tensor]:
            embeddings = encode([ordered[i] for i in batch], batch_size=len(batch), show_progress_bar=False)
            return [torch.as_tensor(embedding) for embedding in embeddings]

        costs = [len(text) // 4 + 8 for text in ordered]  # tokens, about
        for batch, embeddings in self.budget.batches(costs, embed, padded=True):
            yield {ordered[i]: embedding.float() for i, embedding in zip(batch, embeddings, strict=True)}

    def _load(self, settings: ModelSettings, dtype: torch.dtype) -> Any:
        source = resolve_model(settings.model)
        device = default_device().type
        weights = {"use_safetensors": True, "dtype": dtype}
        with loading(f"Teacher {source.name!r} does not load as a bi_encoder"):
            model = SentenceTransformer(source.place, revision=source.commit, model_kwargs=weights, device=device)
        settle(model, source, "Teacher")
        model.max_seq_length = min(model.max_seq_length or settings.max_length, settings.max_length)
        return model

    def _similarity(self, queries: list[torch.Tensor], document: torch.Tensor) -> list[float]:
        """Of one document (dim,) to some queries."""
        return self.model.similarity(torch.stack(queries), document[None])[:, 0].float().tolist()


class MultiVectorTeacher(BiEncoderTeacher):
    """One vector a token; the score is MaxSim. A plain encoder's token embeddings are taken as they are."""

    def _load(self, settings: ModelSettings, dtype: torch.dtype) -> Any:
        model = load_colbert(settings.model)
        if not is_colbert(resolve_model(settings.model)):
            longest = min(settings.max_length, length_limit(model))
            set_lengths(model, longest, longest)
        return model

    def _similarity(self, queries: list[torch.Tensor], document: torch.Tensor) -> list[float]:
        """Of one document (tokens, dim) to some queries."""
        return maxsim(queries, [document])[:, 0].tolist()


def read_as_text(model: Any) -> None:
    """Let a model of sentence-transformers read texts whose strings would be control tokens as the text that they are.

    What it reads is looked at, not each text beforehand: most hold none, and none is tokenised twice. Raises ModelError
    when it does not read a plain word.
    """
    control, preprocess = control_tokens(model.tokenizer), model.preprocess
    ids = torch.tensor(sorted(control.strings), dtype=torch.long)

    def count(features: dict[str, Any]) -> int:
        found = torch.isin(features["input_ids"].cpu(), ids)
        for name, real in (("attention_mask", True), ("query_expansion_positions", False)):
            if name in features and features[name].shape == found.shape:
                found &= features[name].cpu().bool() == real
        return int(found.sum())

    @functools.cache
    def own(options: tuple[tuple[str, Any], ...]) -> int:
        """Of a text that holds none."""
        return count(preprocess(["a"], **dict(options)))

    def as_text(inputs: list[str], **options: Any) -> dict[str, Any]:
        features = preprocess(inputs, **options)
        if count(features) > len(inputs) * own(tuple(sorted(options.items()))):
            return preprocess([control.as_text(text) for text in inputs], **options)
        return features

    model.preprocess = as_text
    words = marks(model.tokenizer, 1)
    check_marks(model.tokenizer, words, preprocess(words)["input_ids"].flatten().tolist(), "those it is given")

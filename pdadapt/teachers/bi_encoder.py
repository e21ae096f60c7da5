"""A larger retriever as the point teacher: any dense or multi-vector model that sentence-transformers loads."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import maxsim

from pdadapt.models.device import default_device, pick_dtype
from pdadapt.models.encoders import length_limit, prepare_encoder
from pdadapt.models.source import is_colbert, resolve_model, translate_errors
from pdadapt.models.token_budget import TokenBudget
from pdadapt.settings.schema import ModelSettings
from pdadapt.students.colbert import load_colbert, set_lengths
from pdadapt.teachers.base import Chunk, Point, Scores
from pdadapt.teachers.control import control_tokens
from pdadapt.teachers.marks import check_marks, mark_words
from pdadapt.teachers.precision import float32_behind_body
from pdadapt.teachers.prompting import cut_tokens

BI_ENCODER_CPU_TOKENS, BI_ENCODER_GPU_TOKENS = 1_024, 131_072  # tokens per batch, padding included


class BiEncoderTeacher:
    """A point teacher with one vector per text. The score is the model's own similarity (cosine or dot product)."""

    def __init__(self, settings: ModelSettings):
        """Load the model.

        Raises ModelError if it cannot be loaded, or if its tokenizer changes plain words.
        """
        dtype = pick_dtype(settings.dtype, default_device())
        self.model: Any = self._load(settings, dtype)
        float32_behind_body(self.model, dtype)
        read_as_text(self.model)
        self.max_document_length = settings.max_document_length
        tokens = BI_ENCODER_GPU_TOKENS if self.model.device.type == "cuda" else BI_ENCODER_CPU_TOKENS
        self.budget = TokenBudget(f"teacher {settings.model}", settings.batch_tokens or tokens)

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the similarity of each question's query and document. Each text of a chunk is encoded once."""
        for chunk in chunks:
            by_document: dict[str, list[Point]] = {}
            for point in sorted(chunk.asked):
                by_document.setdefault(self._cut(point.document), []).append(point)
            queries: dict[str, torch.Tensor] = {}
            for batch in self._encode(self.model.encode_query, {point.query for point in chunk.questions}):
                queries |= batch
            for batch in self._encode(self.model.encode_document, by_document):
                scores: Scores = []
                for document, embedding in batch.items():
                    points = by_document[document]
                    similarities = self._similarity([queries[point.query] for point in points], embedding)
                    scores += zip(points, similarities, strict=True)
                yield scores

    def _cut(self, document: str) -> str:
        keep = self.max_document_length
        return document if keep is None else cut_tokens(self.model.tokenizer, document, keep)

    def _encode(self, encode: Any, texts: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
        """Yield batches {text: float32 embedding}, longest texts first. The budget limits the size of a batch."""
        ordered = sorted(texts, key=lambda text: (-len(text), text))

        def embed(batch: range) -> list[torch.Tensor]:
            embeddings = encode([ordered[i] for i in batch], batch_size=len(batch), show_progress_bar=False)
            return [torch.as_tensor(embedding) for embedding in embeddings]

        costs = [len(text) // 4 + 8 for text in ordered]  # tokens, estimated from characters
        for batch, embeddings in self.budget.batches(costs, embed, padded=True):
            yield {ordered[i]: embedding.float() for i, embedding in zip(batch, embeddings, strict=True)}

    def _load(self, settings: ModelSettings, dtype: torch.dtype) -> Any:
        source = resolve_model(settings.model)
        device = default_device().type
        weights = {"use_safetensors": True, "dtype": dtype}
        with translate_errors(f"Teacher {source.name!r} does not load as a bi_encoder"):
            model = SentenceTransformer(source.place, revision=source.commit, model_kwargs=weights, device=device)
        prepare_encoder(model, source, "Teacher")
        model.max_seq_length = min(model.max_seq_length or settings.max_length, settings.max_length)
        return model

    def _similarity(self, queries: list[torch.Tensor], document: torch.Tensor) -> list[float]:
        """Return the similarity of one document (dim,) to each query (dim,)."""
        return self.model.similarity(torch.stack(queries), document[None])[:, 0].float().tolist()


class MultiVectorTeacher(BiEncoderTeacher):
    """A point teacher with one vector per token. The score is MaxSim.

    The token embeddings of a plain encoder are used without a projection.
    """

    def _load(self, settings: ModelSettings, dtype: torch.dtype) -> Any:
        model = load_colbert(settings.model)
        if not is_colbert(resolve_model(settings.model)):
            longest = min(settings.max_length, length_limit(model))
            set_lengths(model, longest, longest)
        return model

    def _similarity(self, queries: list[torch.Tensor], document: torch.Tensor) -> list[float]:
        """Return the MaxSim of one document (tokens, dim) with each query (tokens, dim)."""
        return maxsim(queries, [document])[:, 0].tolist()


def read_as_text(model: Any) -> None:
    """Make a sentence-transformers model read control-token strings in its texts as plain text.

    The check counts control tokens in the tokenised batch. It tokenises a batch again only if that count is too high,
    which is rare. Raises ModelError if the model does not read plain words.
    """
    control, preprocess = control_tokens(model.tokenizer), model.preprocess
    control_ids = torch.tensor(sorted(control.strings), dtype=torch.long)

    def count(features: dict[str, Any]) -> int:
        """Count the control tokens, without padding and query expansion."""
        is_control = torch.isin(features["input_ids"].cpu(), control_ids)
        for name, counted in (("attention_mask", True), ("query_expansion_positions", False)):
            if name in features and features[name].shape == is_control.shape:
                is_control &= features[name].cpu().bool() == counted
        return int(is_control.sum())

    @functools.cache
    def added_per_text(options: tuple[tuple[str, Any], ...]) -> int:
        """Count the control tokens that the model adds to a text."""
        return count(preprocess(["a"], **dict(options)))

    def as_text(inputs: list[str], **options: Any) -> dict[str, Any]:
        features = preprocess(inputs, **options)
        if count(features) > len(inputs) * added_per_text(tuple(sorted(options.items()))):
            return preprocess([control.as_text(text) for text in inputs], **options)
        return features

    model.preprocess = as_text
    words = mark_words(model.tokenizer, 1)
    check_marks(model.tokenizer, words, preprocess(words)["input_ids"].flatten().tolist(), "those it is given")

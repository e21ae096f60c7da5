"""Cross-encoder teachers: sentence-transformers' CrossEncoder, whose raw logit is the score.

MiniLM and its like judge points. One that `pdadapt train-reranker` fitted to pairs judges those: its second text is
both documents, its logit the log-odds that the first is the more relevant. Which it is, its config.json says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from pdadapt.batches import Budget
from pdadapt.device import default_device, pick_dtype
from pdadapt.errors import ModelError, RecipeError
from pdadapt.models import loading, resolve_model
from pdadapt.recipe import ModelSettings
from pdadapt.teachers import Chunk, Pair, Point, Scores
from pdadapt.teachers.precision import float32_behind_body
from pdadapt.teachers.prompting import SMALLEST_CUT, share

CPU_BUDGET, GPU_BUDGET = 2_048, 131_072  # tokens at once, padding included


class CrossEncoderTeacher:
    def __init__(self, settings: ModelSettings):
        """Raises ModelError when the model does not load, or has not one output but several."""
        from sentence_transformers import CrossEncoder

        source = resolve_model(settings.model)
        device = default_device()
        dtype = pick_dtype(settings.dtype, device)
        weights = {"use_safetensors": True, "dtype": dtype}
        with loading(f"Teacher {source.name!r} does not load as a cross_encoder"):
            self.model = CrossEncoder(
                source.path, revision=source.revision, model_kwargs=weights, device=device.type, num_labels=None
            )
        if self.model.num_labels != 1:
            raise ModelError(f"Teacher {source.name!r} has {self.model.num_labels} outputs; a point teacher has one.")
        float32_behind_body(self.model, dtype)
        self.max_document_length = settings.max_document_length
        self.model.max_length = min(self.model.max_length or settings.max_length, settings.max_length)
        self.budget = Budget(
            f"teacher {settings.model}", settings.batch_tokens or (GPU_BUDGET if device.type == "cuda" else CPU_BUDGET)
        )

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Raw logits: a sigmoid would flatten the distribution that the student learns."""
        length, keep = self.model.max_length, self.max_document_length

        def cut(point: Point) -> tuple[str, str]:
            return point.query, fit(self.model.tokenizer, point.query, [point.document], length, keep)[0]

        return self._score(chunks, cut)

    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Log-odds that document a is the more relevant (PairDistill, section 4.1)."""
        length, keep = self.model.max_length, self.max_document_length
        return self._score(chunks, lambda pair: join(self.model.tokenizer, pair, length, keep))

    def _score(self, chunks: Iterable[Chunk], cut: Callable[[Any], tuple[str, str]]) -> Iterator[Scores]:
        """cut: a question's texts as the model reads them, when its batch comes."""
        for chunk in chunks:
            yield from self._score_chunk(chunk.asked, cut)

    def _score_chunk(self, asked: Sequence[Any], cut: Callable[[Any], tuple[str, str]]) -> Iterator[Scores]:
        letters = {question: sum(map(len, question)) for question in asked}
        ordered = sorted(asked, key=lambda question: (-letters[question], question))
        costs = [min(letters[question] // 4 + 8, self.model.max_length) for question in ordered]  # tokens, about

        def score(batch: range) -> torch.Tensor:
            return self.model.predict(
                [cut(ordered[i]) for i in batch],
                batch_size=len(batch),
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
                convert_to_tensor=True,
            )

        for batch, scores in self.budget.batches(costs, score, padded=True):
            yield [(ordered[i], value) for i, value in zip(batch, scores.float().tolist(), strict=True)]


def fit(
    tokenizer: Any, query: str, documents: Sequence[str], max_length: int, max_document_length: int | None = None
) -> list[str]:
    """Documents cut evenly to fit beside the query, which stays whole, with a separator between each two.

    Raises RecipeError when the query leaves them no room.
    """
    taken = len(tokenizer.encode(query, add_special_tokens=False)) + tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - taken - (len(documents) - 1)
    if room < SMALLEST_CUT * len(documents):
        raise RecipeError(
            f"{max_length} tokens leave no room for the documents beside a query of {taken}; shorten it, or raise "
            "max_length where the model reads more."
        )
    ends = [
        [end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]]
        for text in documents
    ]
    kept = share({i: min(len(found), max_document_length or room) for i, found in enumerate(ends)}, room)
    return [
        text if kept[i] >= len(ends[i]) else text[: ends[i][kept[i] - 1]] if kept[i] else ""
        for i, text in enumerate(documents)
    ]


def join(tokenizer: Any, pair: Pair, max_length: int, max_document_length: int | None = None) -> tuple[str, str]:
    """(query, both documents around the tokenizer's separator), the documents cut evenly to fit `max_length` tokens."""
    documents = (pair.document_a, pair.document_b)
    first, second = fit(tokenizer, pair.query, documents, max_length, max_document_length)
    return pair.query, f"{first} {tokenizer.sep_token} {second}"

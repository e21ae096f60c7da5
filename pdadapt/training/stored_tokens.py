"""The output of a frozen encoder, computed once for each text. A step then costs what the projection costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from pdadapt.models.token_budget import slice_features
from pdadapt.students.encoding import encode_budget

TEXTS_AT_ONCE = 256  # texts that are tokenised together


class StoredText(NamedTuple):
    """One text: where its token embeddings begin in the file, and its other features, each (tokens,)."""

    first: int
    features: dict[str, Tensor]


class StoredTokens:
    """The encoder's token embeddings of all texts of a training, in one file of float16.

    The encoder must not change, and reads without dropout. Queries and documents are kept apart, since the student
    reads them differently. The file is read where a batch needs it. Everything else stays in memory, a few KB per text.
    """

    def __init__(self, model: MultiVectorEncoder, file: Path):
        """file: is written anew."""
        self.model = model
        self.file = file
        self.texts: dict[tuple[str, str], StoredText] = {}
        self.tokens = self.dimensions = 0
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")

    def add(self, task: str, texts: Iterable[str], advance: Callable[[int], None]) -> None:
        """Encode the texts that are not stored yet.

        task: query or document. advance: is called with numbers of texts.
        """
        new = [text for text in dict.fromkeys(texts) if (task, text) not in self.texts]
        self.model.eval()
        with self.file.open("ab") as file:
            for start in range(0, len(new), TEXTS_AT_ONCE):
                self._encode(task, new[start : start + TEXTS_AT_ONCE], file, advance)

    def _encode(self, task: str, texts: Sequence[str], file: BinaryIO, advance: Callable[[int], None]) -> None:
        features = self.model.preprocess(list(texts), prompt=self.model.prompts.get(task), task=task)
        lengths = _lengths(features)
        order = sorted(range(len(texts)), key=lambda row: -lengths[row])

        def encode(batch: range) -> tuple[dict[str, Tensor], Tensor]:
            rows = order[batch.start : batch.stop]
            chunk = slice_features(features, rows, lengths[rows[0]])
            kept = {key: value for key, value in chunk.items() if isinstance(value, Tensor)}
            with torch.inference_mode():
                on_device = {key: value.to(self.model.device) for key, value in kept.items()}
                return kept, self.model[0]({**chunk, **on_device})["token_embeddings"].half().cpu()

        costs = [lengths[row] for row in order]
        for batch, (kept, tokens) in encode_budget(self.model).batches(costs, encode, padded=True):
            for place, row in enumerate(order[batch.start : batch.stop]):
                length = lengths[row]
                own = {key: value[place, :length].clone() for key, value in kept.items()}
                self.texts[task, texts[row]] = StoredText(self.tokens, own)
                file.write(tokens[place, :length].contiguous().numpy().tobytes())
                self.tokens += length
                self.dimensions = tokens.shape[2]
            advance(len(batch))

    def features(self, task: str, texts: Sequence[str]) -> dict[str, Tensor]:
        """The features of these texts as the encoder returns them, padded on the right.

        `token_embeddings` is (texts, tokens, dimensions) float32. The others, such as `attention_mask`, are (texts,
        tokens). Raises KeyError if a text is not stored.
        """
        stored = [self.texts[task, text] for text in texts]
        file = np.memmap(self.file, np.float16, "r", shape=(self.tokens, self.dimensions))
        lengths = [len(text.features["attention_mask"]) for text in stored]
        tokens = torch.zeros(len(stored), max(lengths), self.dimensions)
        for row, (text, length) in enumerate(zip(stored, lengths, strict=True)):
            tokens[row, :length] = torch.from_numpy(file[text.first : text.first + length].astype(np.float32))
        others = {
            key: torch.nn.utils.rnn.pad_sequence([text.features[key] for text in stored], batch_first=True)
            for key in stored[0].features
        }
        return {**others, "token_embeddings": tokens}


def _lengths(features: dict[str, Any]) -> list[int]:
    """The tokens of each text that can count: attended to, or added by query expansion."""
    counted = features["attention_mask"].bool()
    expansion = features.get("query_expansion_positions")
    if expansion is not None:
        counted = counted | expansion.bool()
    return counted.sum(1).tolist()


def after_encoder(model: MultiVectorEncoder, features: dict[str, Any], task: str) -> dict[str, Any]:
    """Return the model's output from the output of its encoder: the projection, the mask and the normalisation."""
    for module in list(model)[1:]:
        keywords = {"task": task} if "task" in getattr(module, "forward_kwargs", ()) else {}
        features = module(features, **keywords)
    return features

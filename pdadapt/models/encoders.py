"""Checks and settings of an encoder that sentence-transformers has loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdadapt.errors import ModelError
from pdadapt.models.outline import check_complete, load_outline, padding_token, token_limit, translate_part_errors
from pdadapt.models.source import ModelSource, read_config

SHORT_TEXT, LONG_TEXT = "a", "a b c d e f g h " * 4  # the short one is padded in a batch of both
UNLIKE_TEXTS = (  # a query and two documents with clearly different scores
    "how tall is a tree",
    ("A tree is up to 100 metres tall.", "b"),
)
FLOAT32_TOLERANCE, COARSE_TOLERANCE = 1e-3, 0.1  # the largest relative difference, in float32 and in 16 bits


def length_limit(model: Any) -> int:
    """The most tokens that the encoder reads of a text; UNLIMITED_TOKENS if nothing limits them."""
    return token_limit(model[0].model, model.tokenizer)


def prepare_encoder(model: Any, source: ModelSource, what: str, unused: Sequence[str] = ("pooler",)) -> None:
    """Set how the tokenizer pads and cuts, whatever its files say. Check what needs the weights.

    unused: parts of names of weights that its files may lack. Raises ModelError when it lacks others, when it cannot
    be used as it was loaded, or when its output for a text depends on the other texts of a batch.
    """
    encoder, tokenizer = model[0], model.tokenizer
    if not read_config(source).get("quantization_config"):
        _, missing = load_outline(source, what, type(encoder.model), download=True)
        check_complete(source, what, missing, unused)
    tokenizer.pad_token = padding_token(encoder.model, tokenizer)
    if hasattr(encoder.model, "score"):
        encoder.model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = length_limit(model)
    sides = dict.fromkeys((tokenizer.padding_side, "right"))  # padding on the left would shift counted positions
    with translate_part_errors(source, what):
        ignores_padding = any(_ignores_padding_on(model, side) for side in sides)  # leaves the first side that works
    if not ignores_padding:
        raise ModelError(
            f"{what} {source.name!r} does not ignore padding: its output for a text changes when a longer text is in "
            "the batch. Give another model."
        )


def _ignores_padding_on(model: Any, side: str) -> bool:
    """Set the padding side, and return whether its output for a text is the same in a batch with a longer one."""
    model.tokenizer.padding_side = side
    alone, beside = _outputs(model, [SHORT_TEXT])[0], _outputs(model, [SHORT_TEXT, LONG_TEXT])[0]
    if not alone.isfinite().all():
        raise ValueError("it makes NaN of a text")
    noise = FLOAT32_TOLERANCE if model[0].model.dtype == torch.float32 else COARSE_TOLERANCE
    size = alone.abs().max()
    if alone.ndim == 0:  # one score may be near 0, so compare with others
        query, documents = UNLIKE_TEXTS
        first, second = (_outputs(model, [document], query)[0] for document in documents)
        size = torch.stack([size, (first - alone).abs(), (second - alone).abs(), (first - second).abs()]).max()
    return bool((alone - beside).abs().max() <= noise * size.clamp(min=0.1))


def _outputs(model: Any, texts: list[str], query: str = SHORT_TEXT) -> list[Tensor]:
    """Its output for a batch of texts: their vectors, or their scores for a query."""
    if hasattr(model, "predict"):
        pairs = [(query, text) for text in texts]
        return list(torch.as_tensor(model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)))
    return [torch.as_tensor(each).to_dense() for each in model.encode_document(texts, show_progress_bar=False)]

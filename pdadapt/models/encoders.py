"""Encoders that sentence-transformers has loaded, made fit for work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdadapt.errors import ModelError
from pdadapt.models.outline import check_complete, load_outline, padding_token, token_limit, translate_part_errors
from pdadapt.models.source import ModelSource, read_config

SHORT_TEXT, LONG_TEXT = "a", "a b c d e f g h " * 4  # the one is padded beside the other
UNLIKE_TEXTS = (  # a query and two documents, which whatever judges texts finds unlike
    "how tall is a tree",
    ("A tree is up to 100 metres tall.", "b"),
)
FLOAT32_TOLERANCE, COARSE_TOLERANCE = 1e-3, 0.1  # relative, by which values may differ so, in float32 and below


def length_limit(model: Any) -> int:
    """Tokens that it reads of a text at most; a huge number where nothing limits them."""
    return token_limit(model[0].model, model.tokenizer)


def prepare_encoder(model: Any, source: ModelSource, what: str, unused: Sequence[str] = ("pooler",)) -> None:
    """Let its tokenizer pad, and cut at what it reads, whatever its files say; find what only its weights can tell.

    unused: marks of weights that its files may lack. Raises ModelError when it lacks others, when it cannot be used as
    it was loaded, or what it makes of a text depends on the texts beside it.
    """
    encoder, tokenizer = model[0], model.tokenizer
    if not read_config(source).get("quantization_config"):
        _, missing = load_outline(source, what, type(encoder.model), download=True)
        check_complete(source, what, missing, unused)
    tokenizer.pad_token = padding_token(encoder.model, tokenizer)
    if hasattr(encoder.model, "score"):
        encoder.model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = length_limit(model)
    sides = dict.fromkeys((tokenizer.padding_side, "right"))  # the left is no place where positions are counted
    with translate_part_errors(source, what):
        heeds = any(_ignores_padding(model, side) for side in sides)
    if not heeds:
        raise ModelError(
            f"{what} {source.name!r} makes something else of a text when a longer one stands beside it, since it does "
            "not leave padding out; give another model."
        )


def _ignores_padding(model: Any, side: str) -> bool:
    """Whether what it makes of a text is the same beside a longer one, with padding on this side."""
    model.tokenizer.padding_side = side
    alone, beside = _outputs(model, [SHORT_TEXT])[0], _outputs(model, [SHORT_TEXT, LONG_TEXT])[0]
    if not alone.isfinite().all():
        raise ValueError("it makes NaN of a text")
    noise = FLOAT32_TOLERANCE if model[0].model.dtype == torch.float32 else COARSE_TOLERANCE
    size = alone.abs().max()
    if alone.ndim == 0:  # a score, which may be near 0 where others are not
        query, documents = UNLIKE_TEXTS
        first, second = (_outputs(model, [document], query)[0] for document in documents)
        size = torch.stack([size, (first - alone).abs(), (second - alone).abs(), (first - second).abs()]).max()
    return bool((alone - beside).abs().max() <= noise * size.clamp(min=0.1))


def _outputs(model: Any, texts: list[str], query: str = SHORT_TEXT) -> list[Tensor]:
    """What it makes of texts that it reads at once: their vectors, or their scores for a query."""
    if hasattr(model, "predict"):
        pairs = [(query, text) for text in texts]
        return list(torch.as_tensor(model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)))
    return [torch.as_tensor(each).to_dense() for each in model.encode_document(texts, show_progress_bar=False)]

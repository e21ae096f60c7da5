"""Encoders that sentence-transformers has loaded, made fit for work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdadapt.errors import ModelError
from pdadapt.models import ModelSource, read_config
from pdadapt.outline import check_complete, limit_of, loading_part, outline, padding_token

SHORT, LONG = "a", "a b c d e f g h " * 4  # the one is padded beside the other
NOISE, COARSE_NOISE = 1e-3, 0.1  # relative, by which what is made of it may differ so, in float32 and below


def length_limit(model: Any) -> int:
    """Tokens that it reads of a text at most; a huge number where nothing limits them."""
    return limit_of(model[0].model, model.tokenizer)


def settle(model: Any, source: ModelSource, what: str, unused: Sequence[str] = ("pooler",)) -> None:
    """Let its tokenizer pad, and cut at what it reads, whatever its files say; find what only its weights can tell.

    unused: marks of weights that its files may lack. Raises ModelError when it lacks others, when it cannot be used as
    it was loaded, or what it makes of a text depends on the texts beside it.
    """
    encoder, tokenizer = model[0], model.tokenizer
    if not read_config(source).get("quantization_config"):
        _, missing = outline(source, what, type(encoder.model), download=True)
        check_complete(source, what, missing, unused)
    tokenizer.pad_token = padding_token(encoder.model, tokenizer)
    if hasattr(encoder.model, "score"):
        encoder.model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = length_limit(model)
    sides = dict.fromkeys((tokenizer.padding_side, "right"))  # the left is no place where positions are counted
    with loading_part(source, what):
        heeds = any(_leaves_padding_out(model, side) for side in sides)
    if not heeds:
        raise ModelError(
            f"{what} {source.name!r} makes something else of a text when a longer one stands beside it, since it does "
            "not leave padding out; give another model."
        )


def _leaves_padding_out(model: Any, side: str) -> bool:
    """Whether what it makes of a text is the same beside a longer one, with padding on this side."""
    model.tokenizer.padding_side = side
    alone, beside = _first_of(model, [SHORT]), _first_of(model, [SHORT, LONG])
    if not alone.isfinite().all():
        raise ValueError("it makes NaN of a text")
    noise = NOISE if model[0].model.dtype == torch.float32 else COARSE_NOISE
    return bool((alone - beside).norm() <= noise * alone.norm().clamp(min=1))


def _first_of(model: Any, texts: list[str]) -> Tensor:
    """What it makes of the first of the texts, which it reads at once."""
    if hasattr(model, "predict"):
        pairs = [(SHORT, text) for text in texts]
        return torch.as_tensor(model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)[0])
    return torch.as_tensor(model.encode_document(texts, show_progress_bar=False)[0]).to_dense()

"""Encoders that sentence-transformers has loaded, made fit for work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pdadapt.errors import ModelError
from pdadapt.models import ModelSource
from pdadapt.outline import check_complete, limit_of, loading_part, outline, padding_token

SHORT, LONG = "a", "a b c d e f g h " * 4  # the one is padded beside the other
NOISE, COARSE_NOISE = 1e-3, 0.1  # relative, by which values may differ so, in float32 and below


def length_limit(model: Any) -> int:
    """Tokens that it reads of a text at most; a huge number where nothing limits them."""
    return limit_of(model[0].model, model.tokenizer)


def settle(model: Any, source: ModelSource, what: str, unused: Sequence[str] = ("pooler",)) -> None:
    """Let its tokenizer pad, and cut at what it reads, whatever its files say; find what only its weights can tell.

    unused: marks of weights that its files may lack. Raises ModelError when it lacks others, or when what it makes of a
    text depends on the texts beside it.
    """
    encoder, tokenizer = model[0], model.tokenizer
    _, missing = outline(source, what, type(encoder.model), download=True)
    check_complete(source, what, missing, unused)
    tokenizer.pad_token = padding_token(encoder.model, tokenizer)
    if hasattr(encoder.model, "score"):
        encoder.model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = length_limit(model)
    with loading_part(source, what):
        alone, beside = _read(encoder, [SHORT]), _read(encoder, [SHORT, LONG])
    beside = beside[-len(alone) :] if tokenizer.padding_side == "left" else beside[: len(alone)]
    noise = (NOISE if alone.dtype == torch.float32 else COARSE_NOISE) * alone.abs().max().clamp(min=0.1)
    if not bool(((alone - beside).abs() <= noise).all()):
        raise ModelError(
            f"{what} {source.name!r} makes something else of a text when a longer one stands beside it, since it does "
            "not leave padding out; give another model."
        )


@torch.inference_mode()
def _read(encoder: Any, texts: list[str]) -> Tensor:
    """What it makes of the first of the texts: (tokens, dim), or (1,) of a classifier."""
    encoder.eval()
    device = encoder.model.device
    features = {
        key: value.to(device) if isinstance(value, Tensor) else value
        for key, value in encoder.preprocess(texts).items()
    }
    found: Tensor = encoder(features)[encoder.module_output_name][0]
    return found

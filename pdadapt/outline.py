"""What can be told of a model without its weights: the outline of it that its files give, and its tokenizer.

A model that will be loaded late in a run, or as the last of several, is found unfit before any work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pdadapt.errors import ModelError
from pdadapt.models import ModelSource, loading, read_config, transformer_of

ENCODER = ("pooler", "decoder.")  # marks of weights that an encoder can do without
NEW_HEAD = ("pooler", "classif", "score", "summary", "logits_proj", "head.")  # and one that is to learn to classify
USED_TOKENS = ("bos", "eos", "cls", "sep", "unk", "pad")


def check_encoder(source: ModelSource, what: str, auto: str = "AutoModel", unused: Sequence[str] = ENCODER) -> int:
    """Find before any work what would stop an encoder in the middle of it; returns how many tokens it reads.

    what: `Student`, `Teacher`, as messages call it; auto: the class of transformers that loads it; unused: marks of
    weights that its files may lack.

    Raises ModelError when it does not load, when tokenizer and weights do not belong together, or it cannot pad.
    """
    from transformers import AutoTokenizer

    model, missing = outline(source, what, auto)
    check_complete(source, what, missing, unused)
    with loading_part(source, what):
        tokenizer = AutoTokenizer.from_pretrained(source.path, **part_options(source))
    check_vocabulary(source, what, model, tokenizer)
    if padding_token(model, tokenizer) is None:
        raise ModelError(
            f"{what} {source.name!r} has no padding token, without which it reads no two texts at once. Name one of "
            "its tokens as `pad_token` in its tokenizer_config.json."
        )
    return limit_of(model, tokenizer)


def outline(source: ModelSource, what: str, auto: Any, download: bool = False) -> tuple[Any, list[str]]:
    """The model with the shapes of its weights and no numbers; and the names of weights that its files lack, which
    cannot be told of files that are on the hub still, unless with `download`.

    auto: the class of transformers that loads it, or its name. Raises ModelError when it does not load.
    """
    import transformers

    chosen = getattr(transformers, auto) if isinstance(auto, str) else auto
    options = part_options(source)
    with loading_part(source, what):
        if (source.folder or download) and "quantization_config" not in read_config(source):
            options |= {"use_safetensors": True, "device_map": "meta", "output_loading_info": True}
            model, found = chosen.from_pretrained(source.path, **options)
            return model, sorted(found["missing_keys"])
        config = transformers.AutoConfig.from_pretrained(source.path, **options)
        with torch.device("meta"):
            return chosen.from_config(config, trust_remote_code=False), []


def check_complete(source: ModelSource, what: str, missing: Sequence[str], unused: Sequence[str]) -> None:
    """Raises ModelError when weights are missing, but for those that bear a mark of being unused."""
    used = [name for name in missing if not any(mark in name for mark in unused)]
    if used:
        named = ", ".join(used[:3]) + " ..." * (len(used) > 3)
        raise ModelError(
            f"{what} {source.name!r} lacks weights ({named}), which would be random numbers; give another model."
        )


def check_vocabulary(source: ModelSource, what: str, model: Any, tokenizer: Any) -> None:
    """Raises ModelError when a text can have tokens that the model does not know."""
    try:
        known = model.get_input_embeddings().weight.shape[0]
    except (NotImplementedError, AttributeError):  # of characters, not of tokens
        return
    special = (getattr(tokenizer, f"{name}_token_id") for name in USED_TOKENS)
    highest = max(tokenizer.vocab_size - 1, *(token for token in special if token is not None))
    if highest >= known:
        raise ModelError(
            f"{what} {source.name!r} knows {known:,} tokens, and its tokenizer has more ({highest + 1:,}): they do not "
            "belong together. Fetch the tokenizer that the model was trained with."
        )


def padding_token(model: Any, tokenizer: Any) -> str | None:
    """The token that fills texts up: the tokenizer's own, or one that the attention mask hides as well; None if none
    will do. Decoders that classify look for it to find a text's end, so for them no token that ends texts will.
    """
    if tokenizer.pad_token or hasattr(model, "score"):
        return tokenizer.pad_token
    return tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token


def positions(model: nn.Module) -> int | None:
    """Tokens that its position embeddings are made for; None: they are relative, for texts of any length."""
    config: Any = model.config
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:  # XLNet's is -1
        return None
    for module in model.modules():
        padding: Any = getattr(module, "padding_idx", None)
        table: Any = getattr(module, "position_embeddings", None)
        if isinstance(padding, int) and hasattr(table, "weight"):
            return min(limit, table.weight.shape[0] - padding - 1)  # RoBERTa's positions begin behind that of padding
    return limit


def limit_of(model: nn.Module, tokenizer: Any) -> int:
    """Tokens that the model reads of a text at most; a huge number where nothing limits them."""
    found, most = positions(model), int(tokenizer.model_max_length)
    return most if found is None else min(found, most)


def part_options(source: ModelSource) -> dict[str, Any]:
    """What `from_pretrained` of a model's configuration, tokenizer or weights is told."""
    return {**source.kwargs, "subfolder": transformer_of(source).rstrip("/"), "trust_remote_code": False}


@contextmanager
def loading_part(source: ModelSource, what: str) -> Iterator[None]:
    """What goes wrong as one of them loads becomes a ModelError."""
    with loading(f"{what} {source.name!r} does not load"):
        try:
            yield
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ModelError(
                f"{what} {source.name!r} needs Python code of its own, which is not run here; give another model."
            ) from None

"""Checks of a model that need no weights: the shapes that its files name, and its tokenizer.

A model may be loaded hours after a run begins. These checks find an unfit one before any work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pdadapt.errors import ModelError
from pdadapt.models.source import ModelSource, first_module_type, read_config, transformer_folder, translate_errors

UNUSED_BY_ENCODERS = ("pooler", "decoder.")  # an encoder can do without weights whose names hold these
# A model that is to learn to classify can do without weights whose names hold these.
UNUSED_BY_CLASSIFIERS = ("pooler", "classif", "score", "summary", "logits_proj", "head.")
UNLIMITED_TOKENS = int(1e30)  # transformers' number for "no limit"
FRAME_TOKENS = ("bos", "eos", "cls", "sep", "unk")  # the tokens that a tokenizer puts around a text


def check_encoder(
    source: ModelSource,
    what: str,
    auto: str = "AutoModel",
    unused: Sequence[str] = UNUSED_BY_ENCODERS,
    cuts: bool = False,
) -> int:
    """Check an encoder before any work. Returns the number of tokens that it reads of a text.

    what: its name in messages, such as `Student`; auto: the transformers class that loads it; unused: parts of names of
    weights that its files may lack; cuts: whether documents are cut by its tokens.

    Raises ModelError when it does not load, when its tokenizer and its weights do not belong together, or when it
    cannot pad.
    """
    from transformers import AutoTokenizer

    begins = first_module_type(source)
    if not begins.endswith("Transformer"):
        raise ModelError(f"{what} {source.name!r} begins with {begins}, not with a transformer. Give one that does.")
    model, missing = load_outline(source, what, auto)
    check_complete(source, what, missing, unused)
    with translate_part_errors(source, what):
        tokenizer = AutoTokenizer.from_pretrained(source.place, **part_options(source))
    check_vocabulary(source, what, model, tokenizer)
    if cuts:
        check_offsets(source, what, tokenizer)
    if padding_token(model, tokenizer) is None:
        raise ModelError(
            f"{what} {source.name!r} has no padding token, so it cannot read two texts at once. Name one of "
            "its tokens as `pad_token` in its tokenizer_config.json."
        )
    return token_limit(model, tokenizer)


def load_outline(source: ModelSource, what: str, auto: Any, download: bool = False) -> tuple[Any, list[str]]:
    """The model with the shapes of its weights but no numbers, and the names of the weights that its files lack.

    auto: the transformers class that loads it, or the name of the class; download: fetch the weights, for only then
    can the missing ones of a hub model be known. Raises ModelError when the model does not load.
    """
    import transformers
    from transformers.quantizers.auto import AutoHfQuantizer

    chosen = getattr(transformers, auto) if isinstance(auto, str) else auto
    options = part_options(source)
    packed = read_config(source).get("quantization_config")
    misfits: list[Any] = []
    with translate_part_errors(source, what):
        if (source.folder or download) and not packed:
            options |= {"use_safetensors": True, "device_map": "meta", "ignore_mismatched_sizes": True}
            model, found = chosen.from_pretrained(source.place, output_loading_info=True, **options)
            missing, misfits = sorted(found["missing_keys"]), sorted(found["mismatched_keys"])
        else:
            config = transformers.AutoConfig.from_pretrained(source.place, **options)
            with torch.device("meta"):
                model, missing = chosen.from_config(config, trust_remote_code=False), []
        if packed and AutoHfQuantizer.supports_quant_method(packed):
            AutoHfQuantizer.from_config(packed, pre_quantized=True).validate_environment()
    if misfits:
        name, in_file, by_config = misfits[0]
        raise ModelError(
            f"{what} {source.name!r} does not load: {name} is {tuple(in_file)} in its weights, but "
            f"{tuple(by_config)} by its config.json. Give another model, or fetch this one again."
        )
    return model, missing


def check_complete(source: ModelSource, what: str, missing: Sequence[str], unused: Sequence[str]) -> None:
    """Raises ModelError when weights that the model uses are missing. unused: parts of names of other weights."""
    used = [name for name in missing if not any(mark in name for mark in unused)]
    if used:
        named = ", ".join(used[:3]) + " ..." * (len(used) > 3)
        raise ModelError(
            f"{what} {source.name!r} lacks weights ({named}), so they would be random numbers. Give another model."
        )


def check_vocabulary(source: ModelSource, what: str, model: Any, tokenizer: Any) -> None:
    """Raises ModelError when the tokenizer can give tokens that the model does not know."""
    known, added = vocabulary_size(model), tokenizer.added_tokens_decoder
    tokens = [token for token in tokenizer.get_vocab().values() if token not in added]
    tokens += [token for token, text in added.items() if not text.special]
    tokens += filter(None, (getattr(tokenizer, f"{name}_token_id") for name in FRAME_TOKENS))
    if max(tokens, default=0) >= known:
        raise ModelError(
            f"{what} {source.name!r} knows {known:,} tokens, and its tokenizer has more ({max(tokens) + 1:,}): they do "
            "not belong together. Fetch the tokenizer that the model was trained with."
        )


def check_offsets(source: ModelSource, what: str, tokenizer: Any) -> None:
    """Raises ModelError when the tokenizer cannot cut a text after a number of tokens."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"{what} {source.name!r} has a tokenizer ({type(tokenizer).__name__}) that does not say where its tokens "
            "stand in a text. Documents cannot be cut to fit. Give another model."
        )


def vocabulary_size(model: Any) -> int:
    """The number of tokens that the model knows; UNLIMITED_TOKENS for a model that reads characters."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return UNLIMITED_TOKENS


def padding_token(model: Any, tokenizer: Any) -> str | None:
    """The padding token: the tokenizer's own, or another that the attention mask hides as well. None if none will do.

    A decoder that classifies finds a text's end by the padding token, so it cannot use a token that ends texts.
    """
    own = tokenizer.pad_token if (tokenizer.pad_token_id or 0) < vocabulary_size(model) else None
    return own or (
        None if hasattr(model, "score") else tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    )


def position_limit(model: nn.Module) -> int | None:
    """The number of positions that the model has embeddings for; None when they are relative."""
    config: Any = model.config
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:  # XLNet says -1
        return None
    for module in model.modules():
        padding: Any = getattr(module, "padding_idx", None)
        table: Any = getattr(module, "position_embeddings", None)
        if isinstance(padding, int) and hasattr(table, "weight"):
            return min(limit, table.weight.shape[0] - padding - 1)  # RoBERTa counts from behind the padding token
    return limit


def token_limit(model: nn.Module, tokenizer: Any) -> int:
    """The most tokens that the model reads of a text; UNLIMITED_TOKENS if neither model nor tokenizer says."""
    found = (position_limit(model), int(tokenizer.model_max_length))
    return min((limit for limit in found if limit and limit > 0), default=UNLIMITED_TOKENS)


def part_options(source: ModelSource) -> dict[str, Any]:
    """The arguments of `from_pretrained` for a model's configuration, tokenizer or weights."""
    return {**source.kwargs, "subfolder": transformer_folder(source).rstrip("/")}


@contextmanager
def translate_part_errors(source: ModelSource, what: str) -> Iterator[None]:
    """Turn what goes wrong while one of them loads into a ModelError."""
    with translate_errors(f"{what} {source.name!r} does not load"):
        try:
            yield
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ModelError(
                f"{what} {source.name!r} needs Python code of its own, which pdadapt does not run. Give another model."
            ) from None

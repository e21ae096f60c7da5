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
from pdadapt.models.source import ModelSource, first_module_type, read_config, transformer_folder, translate_errors

UNUSED_BY_ENCODERS = ("pooler", "decoder.")  # marks of weights that an encoder can do without
UNUSED_BY_CLASSIFIERS = (
    "pooler",
    "classif",
    "score",
    "summary",
    "logits_proj",
    "head.",
)  # and one that is to learn to classify
UNLIMITED = int(1e30)  # as transformers says it
FRAME_TOKENS = ("bos", "eos", "cls", "sep", "unk")  # tokens that stand in texts


def check_encoder(
    source: ModelSource,
    what: str,
    auto: str = "AutoModel",
    unused: Sequence[str] = UNUSED_BY_ENCODERS,
    cuts: bool = False,
) -> int:
    """Find before any work what would stop an encoder in the middle of it; returns how many tokens it reads.

    what: `Student`, `Teacher`, as messages call it; auto: the class of transformers that loads it; unused: marks of
    weights that its files may lack; cuts: whether documents are cut by its tokens.

    Raises ModelError when it does not load, when tokenizer and weights do not belong together, or it cannot pad.
    """
    from transformers import AutoTokenizer

    begins = first_module_type(source)
    if not begins.endswith("Transformer"):
        raise ModelError(f"{what} {source.name!r} begins with {begins}, not with a transformer; give one that does.")
    model, missing = load_outline(source, what, auto)
    check_complete(source, what, missing, unused)
    with translate_part_errors(source, what):
        tokenizer = AutoTokenizer.from_pretrained(source.place, **part_options(source))
    check_vocabulary(source, what, model, tokenizer)
    if cuts:
        check_offsets(source, what, tokenizer)
    if padding_token(model, tokenizer) is None:
        raise ModelError(
            f"{what} {source.name!r} has no padding token, without which it reads no two texts at once. Name one of "
            "its tokens as `pad_token` in its tokenizer_config.json."
        )
    return token_limit(model, tokenizer)


def load_outline(source: ModelSource, what: str, auto: Any, download: bool = False) -> tuple[Any, list[str]]:
    """The model with the shapes of its weights and no numbers; and the names of weights that its files lack, which
    cannot be told of files that are on the hub still, unless with `download`.

    auto: the class of transformers that loads it, or its name. Raises ModelError when it does not load.
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
            f"{what} {source.name!r} does not load ({name} is {tuple(in_file)} in its weights, and by its config.json "
            f"{tuple(by_config)}); give another model, or fetch this one anew."
        )
    return model, missing


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
    """Raises ModelError when a text cannot be cut after so many tokens."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"{what} {source.name!r} has a tokenizer ({type(tokenizer).__name__}) that does not say where its tokens "
            "stand in a text, so documents cannot be cut to fit; give another model."
        )


def vocabulary_size(model: Any) -> int:
    """How many tokens the model knows; ENDLESS of one that reads characters."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return UNLIMITED


def padding_token(model: Any, tokenizer: Any) -> str | None:
    """The token that fills texts up: the tokenizer's own, or one that the attention mask hides as well; None if none
    will do. Decoders that classify look for it to find a text's end, so for them no token that ends texts will.
    """
    own = tokenizer.pad_token if (tokenizer.pad_token_id or 0) < vocabulary_size(model) else None
    return own or (
        None if hasattr(model, "score") else tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    )


def position_limit(model: nn.Module) -> int | None:
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


def token_limit(model: nn.Module, tokenizer: Any) -> int:
    """Tokens that the model reads of a text at most, by its positions and its tokenizer; ENDLESS if neither says."""
    found = (position_limit(model), int(tokenizer.model_max_length))
    return min((limit for limit in found if limit and limit > 0), default=UNLIMITED)


def part_options(source: ModelSource) -> dict[str, Any]:
    """What `from_pretrained` of a model's configuration, tokenizer or weights is told."""
    return {**source.kwargs, "subfolder": transformer_folder(source).rstrip("/")}


@contextmanager
def translate_part_errors(source: ModelSource, what: str) -> Iterator[None]:
    """What goes wrong as one of them loads becomes a ModelError."""
    with translate_errors(f"{what} {source.name!r} does not load"):
        try:
            yield
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ModelError(
                f"{what} {source.name!r} needs Python code of its own, which is not run here; give another model."
            ) from None

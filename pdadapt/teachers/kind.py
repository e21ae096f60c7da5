"""What kind of teacher a model is, and whether its files agree."""

from __future__ import annotations

import torch

from pdadapt.errors import ModelError, RecipeError
from pdadapt.models.outline import check_complete, check_encoder, check_offsets, check_vocabulary, outline, positions
from pdadapt.models.source import (
    ModelSource,
    architectures,
    has_modules,
    is_colbert,
    read_config,
    resolve_model,
)
from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings, TeacherSettings
from pdadapt.teachers.base import Task

TASK = "pdadapt_task"  # in a cross-encoder's config.json: point, also when it is not there, or pair
LANGUAGE_MODELS = ("seq2seq", "causal")
PAIR_KINDS = ("seq2seq", "causal", "endpoint", "imported")
IMPORTED = "imported:"
GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
ENCODERS = ("Model", "ForMaskedLM", "ForPreTraining")


def asked_of(settings: TeacherSettings, task: Task) -> PointSettings | PairSettings:
    """How a task is put to its teacher."""
    return settings.point if task == "point" else settings.pair


def model_of(settings: TeacherSettings, task: Task) -> ModelSettings:
    """The model that judges points or pairs: the task's own, or the teacher's."""
    own = asked_of(settings, task)
    shared = settings.model_dump(include=set(ModelSettings.model_fields))
    if own.model:
        shared |= {"model": own.model, "kind": own.kind, "endpoints": ()}
    elif own.kind != "auto":
        shared |= {"kind": own.kind}
    return ModelSettings.model_validate(shared)


def teacher_kind(settings: ModelSettings) -> str:
    """As set, or as the name and the configuration say; weights are not loaded. Raises RecipeError when they do not."""
    if settings.kind != "auto":
        return settings.kind
    if settings.model.startswith(("http://", "https://")):
        return "endpoint"
    if settings.model.startswith(IMPORTED):
        return "imported"
    source = resolve_model(settings.model)
    if source.gguf_file:
        return "causal"
    config = read_config(source)
    found = " ".join(architectures(source))
    if "ForSequenceClassification" in found:
        return "cross_encoder"
    encodes_and_decodes = config.get("is_encoder_decoder") and "EncoderModel" not in found
    generates = encodes_and_decodes or any(mark in found for mark in GENERATORS)
    if generates and not has_modules(source):
        return "seq2seq" if encodes_and_decodes else "causal"
    if is_colbert(source):
        return "multi_vector"
    if has_modules(source) or found.endswith(ENCODERS):
        return "bi_encoder"
    raise RecipeError(
        f"What kind of teacher {settings.model!r} is, its configuration does not say (architectures: "
        f"{found or 'none'}); say it with --set teacher.kind=KIND."
    )


def check_architecture(model: ModelSettings, kind: str) -> None:
    """Raises ModelError when the configuration contradicts the kind."""
    source = resolve_model(model.model)
    if source.gguf_file:
        if kind != "causal":
            raise ModelError(
                f"Teacher {source.name!r} is a GGUF file, so its kind is causal, not {kind}; leave teacher.kind out."
            )
        return
    source.check()
    config = read_config(source)
    found = " ".join(architectures(source)) or "none"
    decodes = bool(config.get("is_encoder_decoder"))
    generates = not decodes and any(mark in found for mark in GENERATORS)
    wrong = {"seq2seq": not decodes, "causal": not generates, "cross_encoder": "ForSequenceClassification" not in found}
    if wrong.get(kind):
        raise ModelError(
            f"Teacher {source.name!r} is no {kind} model (architectures: {found}); leave teacher.kind out, or give a "
            "model of that kind."
        )
    outputs = len(config.get("id2label") or (0, 1))
    if kind == "cross_encoder" and outputs != 1:
        raise ModelError(f"Teacher {source.name!r} has {outputs} outputs, and a point teacher one; give one that has.")
    if kind == "cross_encoder":
        check_encoder(source, "Teacher", "AutoModelForSequenceClassification", unused=(), cuts=True)
    elif kind in ("bi_encoder", "multi_vector"):
        check_encoder(source, "Teacher", cuts=model.max_document_length is not None)
    else:
        _check_language_model(source, kind, model.max_length)


def _check_language_model(source: ModelSource, kind: str, max_length: int) -> None:
    """Raises ModelError when it does not load, or reads less than max_length tokens."""
    from pdadapt.teachers.language_model import load_tokenizer

    what = "Teacher"
    model, missing = outline(source, what, "AutoModelForSeq2SeqLM" if kind == "seq2seq" else "AutoModelForCausalLM")
    check_complete(source, what, missing, unused=())
    tokenizer = load_tokenizer(source.name)
    check_vocabulary(source, what, model, tokenizer)
    check_offsets(source, what, tokenizer)
    limit = positions(model)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"teacher.max_length is {max_length}, and {source.name!r} reads {limit} tokens at most. Lower it by --set "
            f"teacher.max_length={limit}."
        )


def has_bits(settings: ModelSettings, kind: str) -> bool:
    """Whether `quantize` means something for this model: a language model in safetensors."""
    return kind in LANGUAGE_MODELS and not settings.model.endswith(".gguf")


def check_precision(settings: TeacherSettings) -> None:
    """Raises RecipeError or ModelError when no teacher, or not on this machine, can be loaded in so few bits."""
    if not settings.quantize:
        return
    models = [model_of(settings, "point"), model_of(settings, "pair")]
    if not any(has_bits(model, teacher_kind(model)) for model in models):
        names = " and ".join(dict.fromkeys(repr(model.model) for model in models))
        raise RecipeError(f"teacher.quantize works for language models in safetensors, not for {names}; leave it out.")
    if not torch.cuda.is_available():
        raise ModelError(
            f"teacher.quantize={settings.quantize} needs a GPU (bitsandbytes), and there is none; leave it out."
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ModelError("teacher.quantize needs bitsandbytes; run `pip install 'pdadapt[gpu]'`.") from None


def by_document(settings: TeacherSettings, task: Task) -> bool:
    """Whether questions about one document had better come together: the teacher reads it once for all of them."""
    kind = teacher_kind(model_of(settings, task))
    likelihood = settings.point.scoring == "query_likelihood"
    return task == "point" and (kind in ("bi_encoder", "multi_vector") or likelihood)

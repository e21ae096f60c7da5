"""Tell what kind of teacher a model is, and check that its files fit that kind."""

from __future__ import annotations

import torch

from pdadapt.errors import ModelError, RecipeError
from pdadapt.models.outline import (
    check_complete,
    check_encoder,
    check_offsets,
    check_vocabulary,
    load_outline,
    position_limit,
)
from pdadapt.models.source import (
    ModelSource,
    architectures,
    has_modules,
    is_colbert,
    read_config,
    resolve_model,
)
from pdadapt.settings.schema import (
    BM25_TEACHER,
    ModelSettings,
    PairSettings,
    PointSettings,
    TeacherKind,
    TeacherSettings,
)
from pdadapt.teachers.base import Task

TASK_KEY = "pdadapt_task"  # a key of a cross-encoder's config.json: "point" (the default) or "pair"
LANGUAGE_MODELS = ("seq2seq", "causal")
PAIR_KINDS = ("seq2seq", "causal", "endpoint", "imported")
IMPORTED_PREFIX = "imported:"
GENERATOR_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
ENCODER_CLASSES = ("Model", "ForMaskedLM", "ForPreTraining")


def task_settings(settings: TeacherSettings, task: Task) -> PointSettings | PairSettings:
    """Return the settings that say how a teacher is asked for a task."""
    return settings.point if task == "point" else settings.pair


def model_of(settings: TeacherSettings, task: Task) -> ModelSettings:
    """Return the model that judges points or pairs: the task's own model if it has one, else the teacher's."""
    task_model = task_settings(settings, task)
    chosen = settings.model_dump(include=set(ModelSettings.model_fields))
    if task_model.model:
        chosen |= {"model": task_model.model, "kind": task_model.kind, "endpoints": ()}
    elif task_model.kind != "auto":
        chosen |= {"kind": task_model.kind}
    return ModelSettings.model_validate(chosen)


def teacher_kind(settings: ModelSettings) -> TeacherKind:
    """Return the kind that the settings name, or tell it from the model's name and config.json. Loads no weights.

    Raises RecipeError if the kind cannot be told.
    """
    if settings.kind != "auto":
        return settings.kind
    if settings.model.startswith(("http://", "https://")):
        return "endpoint"
    if settings.model.startswith(IMPORTED_PREFIX):
        return "imported"
    if settings.model == BM25_TEACHER:
        return "bm25"
    source = resolve_model(settings.model)
    if source.gguf_file:
        return "causal"
    config = read_config(source)
    classes = " ".join(architectures(source))
    if "ForSequenceClassification" in classes:
        return "cross_encoder"
    encodes_and_decodes = config.get("is_encoder_decoder") and "EncoderModel" not in classes
    generates = encodes_and_decodes or any(name in classes for name in GENERATOR_CLASSES)
    if generates and not has_modules(source):
        return "seq2seq" if encodes_and_decodes else "causal"
    if is_colbert(source):
        return "multi_vector"
    if has_modules(source) or classes.endswith(ENCODER_CLASSES):
        return "bi_encoder"
    raise RecipeError(
        f"Cannot tell what kind of teacher {settings.model!r} is from its config.json (architectures: "
        f"{classes or 'none'}). Set it with --set teacher.kind=KIND."
    )


def check_architecture(model: ModelSettings, kind: str) -> None:
    """Check that a model's configuration, tokenizer and list of weights fit the kind. Loads no weights.

    Raises ModelError if they do not.
    """
    source = resolve_model(model.model)
    if source.gguf_file:
        if kind != "causal":
            raise ModelError(
                f"Teacher {source.name!r} is a GGUF file, so its kind is causal, not {kind}. Leave teacher.kind out."
            )
        return
    source.check()
    config = read_config(source)
    classes = " ".join(architectures(source)) or "none"
    decodes = bool(config.get("is_encoder_decoder"))
    generates = not decodes and any(name in classes for name in GENERATOR_CLASSES)
    classifies = "ForSequenceClassification" in classes
    fits = {"seq2seq": decodes, "causal": generates, "cross_encoder": classifies}
    if not fits.get(kind, True):
        raise ModelError(
            f"Teacher {source.name!r} is not a {kind} model (architectures: {classes}). Leave teacher.kind out, or use "
            "a model of that kind."
        )
    outputs = len(config.get("id2label") or (0, 1))
    if kind == "cross_encoder" and outputs != 1:
        raise ModelError(
            f"Teacher {source.name!r} has {outputs} outputs, but a point teacher has one. Use a model with one output."
        )
    if kind == "cross_encoder":
        check_encoder(source, "Teacher", "AutoModelForSequenceClassification", unused=(), cuts=True)
    elif kind in ("bi_encoder", "multi_vector"):
        check_encoder(source, "Teacher", cuts=model.max_document_length is not None)
    else:
        _check_language_model(source, kind, model.max_length)


def _check_language_model(source: ModelSource, kind: str, max_length: int) -> None:
    """Raises ModelError if weights are missing, the tokenizer does not fit, or max_length exceeds the model's limit."""
    from pdadapt.teachers.language_model import load_tokenizer

    role = "Teacher"
    model, missing = load_outline(
        source, role, "AutoModelForSeq2SeqLM" if kind == "seq2seq" else "AutoModelForCausalLM"
    )
    check_complete(source, role, missing, unused=())
    tokenizer = load_tokenizer(source.name)
    check_vocabulary(source, role, model, tokenizer)
    check_offsets(source, role, tokenizer)
    limit = position_limit(model)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"teacher.max_length is {max_length}, but {source.name!r} reads at most {limit} tokens. Lower it with "
            f"--set teacher.max_length={limit}."
        )


def can_quantize(settings: ModelSettings, kind: str) -> bool:
    """Whether `quantize` applies to this model: only language models in safetensors can be quantized."""
    return kind in LANGUAGE_MODELS and not settings.model.endswith(".gguf")


def check_precision(settings: TeacherSettings) -> None:
    """Check that `quantize` can be used for one of the teachers and on this machine.

    Raises RecipeError if it applies to no teacher, ModelError if the GPU or bitsandbytes is missing.
    """
    if not settings.quantize:
        return
    models = [model_of(settings, "point"), model_of(settings, "pair")]
    if not any(can_quantize(model, teacher_kind(model)) for model in models):
        names = " and ".join(dict.fromkeys(repr(model.model) for model in models))
        raise RecipeError(f"teacher.quantize works for language models in safetensors, not for {names}. Leave it out.")
    if not torch.cuda.is_available():
        raise ModelError(
            f"teacher.quantize={settings.quantize} needs a GPU (for bitsandbytes), but this machine has none. Leave it "
            "out."
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ModelError("teacher.quantize needs the package bitsandbytes. Run `pip install 'pdadapt[gpu]'`.") from None


def groups_by_document(settings: TeacherSettings, task: Task) -> bool:
    """Whether the teacher encodes a document once for all its questions, so that these should be asked together."""
    kind = teacher_kind(model_of(settings, task))
    likelihood = settings.point.scoring == "query_likelihood"
    return task == "point" and (kind in ("bi_encoder", "multi_vector") or likelihood)

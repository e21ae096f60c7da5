"""Which teacher judges what: its kind, the key of its labels, and the loaded model."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from pdadapt.device import dtype_here, release
from pdadapt.errors import DataError, ModelError, RecipeError
from pdadapt.labels import is_labeled
from pdadapt.models import ModelSource, architectures, has_modules, is_colbert, loading, read_config, resolve_model
from pdadapt.outline import check_complete, check_encoder, check_offsets, check_vocabulary, outline, positions
from pdadapt.progress import Progress
from pdadapt.prompt import LIKELIHOOD_FIELDS, PAIR_FIELDS, POINT_FIELDS, load_prompt
from pdadapt.recipe import ModelSettings, PairSettings, PointSettings, TeacherSettings
from pdadapt.teachers import Chunk, Scores, Task

READING = 2  # of how texts become a model's input, and its output a score: labels of two ways are not mixed
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


def check_teacher(settings: TeacherSettings, task: Task, queries: Collection[str], store: Path) -> None:
    """Find before any work what would stop the teacher in the middle of it, or make its labels worth nothing.

    Label words against its tokenizer, marked texts in its prompt, the longest queries against its length, a server by
    one question, an imported teacher by what the label store holds; weights are not loaded. Raises RecipeError,
    ModelError or DataError.
    """
    check_precision(settings)
    model = model_of(settings, task)
    kind = teacher_kind(model)
    asked = asked_of(settings, task)
    labeled = is_labeled(store, teacher_key(settings, task))
    if kind == "imported" and not labeled:
        own = store if store.exists() else Path("labels.sqlite")
        raise DataError(
            f"{store} holds no {task} labels of {model.model}; bring them with `pdadapt labels import FILE --store "
            f"{own} --name {model.model.removeprefix(IMPORTED)}`, and use that store with --set label_store={own}."
        )
    if kind == "endpoint" and not labeled:
        teacher = load_endpoint(model, settings, [task])
        teacher.check(queries)
    if kind in (*LANGUAGE_MODELS, "cross_encoder", "bi_encoder", "multi_vector"):
        check_architecture(model, kind)
    from pdadapt.teachers.language_model import asking, load_tokenizer

    with loading(f"Teacher {model.model!r} cannot be asked"):  # its chat template may be no good
        if kind in LANGUAGE_MODELS:
            encode = asking(load_tokenizer(model.model), kind, model, asked).encode
            encode.check_queries(queries)
            encode.check()
        if kind == "cross_encoder":
            from pdadapt.teachers.cross_encoder import check_prompt

            check_prompt(model, task, queries)
        source = resolve_model(model.model) if kind in ("bi_encoder", "multi_vector") else None
        if source and source.is_local and (Path(source.path) / "tokenizer_config.json").is_file():
            from pdadapt.teachers.marks import marks

            marks(load_tokenizer(model.model), 1)


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


def teacher_key(settings: TeacherSettings, task: Task) -> str:
    """What a label depends on besides its texts, as JSON: the label store's key.

    Raises RecipeError or ModelError when the teacher cannot do what is asked; nothing is loaded.
    """
    model = model_of(settings, task)
    if model.endpoints and not model.model.startswith(("http://", "https://")):
        raise RecipeError(
            f"Teacher {model.model!r} is not served, so teacher.endpoints says nothing; leave --endpoint out, or name "
            "the model behind it (--endpoint http://HOST/v1#NAME)."
        )
    kind = teacher_kind(model)
    pairwise = kind == "cross_encoder" and read_config(resolve_model(model.model)).get(TASK) == "pair"
    if task == "point" and pairwise:
        raise RecipeError(
            f"The cross_encoder {model.model!r} was trained to judge pairs only; give it with --pair-teacher, and "
            "another one with --point-teacher."
        )
    if task == "pair" and kind not in PAIR_KINDS and not pairwise:
        raise RecipeError(
            f"The {kind} {model.model!r} judges documents one by one only; pairs need one of the kinds "
            f"{', '.join(PAIR_KINDS)}. To adapt, give such a one with --pair-teacher, derive the pairs from the points "
            "(--set teacher.pair.scoring=derived), or leave them out (--set teacher.pair.per_query=0)."
        )
    key: dict[str, Any] = {"task": task, "kind": kind}
    if kind == "imported":
        return json.dumps({**key, "model": model.model.removeprefix(IMPORTED)}, sort_keys=True)
    if kind == "endpoint":
        from pdadapt.teachers.endpoint import addresses, served_model

        addresses(model)
        key |= {"model": served_model(model.model)}
    else:
        key |= {
            "model": resolve_model(model.model).identity(),
            "dtype": dtype_here(model.dtype),
            "quantize": model.quantize if has_bits(model, kind) else None,
            "max_length": model.max_length,
        }
    if kind == "endpoint":
        key |= {"max_length": model.max_length}
    key |= {"max_document_length": model.max_document_length, "reading": READING}
    if kind in LANGUAGE_MODELS or kind == "endpoint":
        key |= _prompt_key(settings, task, kind)
    return json.dumps(key, sort_keys=True)


def _prompt_key(settings: TeacherSettings, task: Task, kind: str) -> dict[str, Any]:
    if task == "pair":
        prompt = load_prompt(settings.pair.prompt, PAIR_FIELDS)
        return {"scoring": "labels", "prompt": prompt.sha256, "labels": list(settings.pair.labels)}
    likelihood = settings.point.scoring == "query_likelihood"
    if likelihood and kind != "causal":
        raise RecipeError(
            f"teacher.point.scoring: query_likelihood needs a decoder-only teacher, and this one is {kind}; use "
            "--set teacher.point.scoring=labels --set teacher.point.prompt=yes-no."
        )
    if likelihood and settings.point.prompt == PointSettings().prompt:
        raise RecipeError(
            "teacher.point.scoring: query_likelihood needs a prompt of its own; add "
            "--set teacher.point.prompt=query-likelihood."
        )
    prompt = load_prompt(settings.point.prompt, LIKELIHOOD_FIELDS if likelihood else POINT_FIELDS)
    labels = None if likelihood else list(settings.point.labels)
    return {"scoring": settings.point.scoring, "prompt": prompt.sha256, "labels": labels}


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


class ImportedTeacher:
    """Labels made elsewhere: what was not imported has no answer."""

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        for chunk in chunks:
            yield [(question, None) for question in chunk.asked]

    score_pairs = score_points


class Teachers:
    """Loads the teacher of a task when it is first asked; one model at a time is in memory."""

    def __init__(
        self, settings: TeacherSettings, tasks: Collection[Task] = ("point", "pair"), progress: Progress | None = None
    ):
        """tasks: those that may be asked."""
        self.progress = progress or Progress()
        self.settings = settings
        self.tasks = tasks
        self._loaded: tuple[ModelSettings, Any] | None = None

    def __call__(self, task: Task) -> Any:
        """A PointTeacher for `point`, a PairTeacher for `pair`. Raises ModelError when it does not load."""
        model = model_of(self.settings, task)
        if self._loaded is None or self._loaded[0] != model:
            self.free()
            with self.progress.task("load teacher", 1, "model") as advance:
                self._loaded = model, self._load(model)
                advance(1)
        return self._loaded[1]

    def free(self) -> None:
        """Give the memory back."""
        self._loaded = None
        release()

    def _load(self, model: ModelSettings) -> Any:
        check_precision(self.settings)
        kind = teacher_kind(model)
        if kind == "imported":
            return ImportedTeacher()
        if kind == "cross_encoder":
            from pdadapt.teachers.cross_encoder import CrossEncoderTeacher

            return CrossEncoderTeacher(model)
        if kind in ("bi_encoder", "multi_vector"):
            from pdadapt.teachers.bi_encoder import BiEncoderTeacher, MultiVectorTeacher

            return (BiEncoderTeacher if kind == "bi_encoder" else MultiVectorTeacher)(model)
        asked = [task for task in self.tasks if model_of(self.settings, task) == model]
        if kind == "endpoint":
            return load_endpoint(model, self.settings, asked, self.progress)
        point = self.settings.point if "point" in asked else None
        pair = self.settings.pair if "pair" in asked else None
        if kind == "seq2seq":
            from pdadapt.teachers.seq2seq import Seq2SeqTeacher

            return Seq2SeqTeacher(model, point, pair)
        from pdadapt.teachers.causal import CausalTeacher

        return CausalTeacher(model, point, pair)


def load_endpoint(
    model: ModelSettings, settings: TeacherSettings, tasks: Collection[Task], progress: Progress | None = None
) -> Any:
    from pdadapt.teachers.endpoint import EndpointTeacher

    say = (progress or Progress()).say
    point = settings.point if "point" in tasks else None
    return EndpointTeacher(model, point, settings.pair if "pair" in tasks else None, say)

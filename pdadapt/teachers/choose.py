"""Which teacher judges what: its kind, the key of its labels, and the loaded model."""

from __future__ import annotations

import gc
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from pdadapt.device import default_device, pick_dtype
from pdadapt.errors import ModelError, RecipeError
from pdadapt.models import has_modules, is_colbert, read_config, resolve_model
from pdadapt.progress import Progress
from pdadapt.prompt import LIKELIHOOD_FIELDS, PAIR_FIELDS, POINT_FIELDS, load_prompt
from pdadapt.recipe import ModelSettings, TeacherSettings
from pdadapt.teachers import Pair, Point, Scores, Task

TASK = "pdadapt_task"  # in a cross-encoder's config.json: point, also when it is not there, or pair
LANGUAGE_MODELS = ("seq2seq", "causal")
PAIR_KINDS = ("seq2seq", "causal", "endpoint", "imported")
IMPORTED = "imported:"


def model_of(settings: TeacherSettings, task: Task) -> ModelSettings:
    """The model that judges points or pairs: the task's own, or the teacher's."""
    own = settings.point if task == "point" else settings.pair
    shared = settings.model_dump(include=set(ModelSettings.model_fields))
    if own.model:
        shared |= {"model": own.model, "kind": own.kind}
    elif own.kind != "auto":
        shared |= {"kind": own.kind}
    return ModelSettings.model_validate(shared)


def teacher_kind(settings: ModelSettings) -> str:
    """As set, or as the name and the configuration say; weights are not loaded."""
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
    architectures = " ".join(config.get("architectures") or [])
    if "ForSequenceClassification" in architectures:
        return "cross_encoder"
    generates = "ForCausalLM" in architectures or "LMHeadModel" in architectures
    encodes_and_decodes = config.get("is_encoder_decoder") and "EncoderModel" not in architectures
    if (generates or encodes_and_decodes) and not has_modules(source):
        return "seq2seq" if encodes_and_decodes else "causal"
    return "multi_vector" if is_colbert(source) else "bi_encoder"


def teacher_key(settings: TeacherSettings, task: Task) -> str:
    """What a label depends on besides its texts, as JSON: the label store's key.

    Raises RecipeError or ModelError when the teacher cannot do what is asked; nothing is loaded.
    """
    model = model_of(settings, task)
    kind = teacher_kind(model)
    pairwise = kind == "cross_encoder" and read_config(resolve_model(model.model)).get(TASK) == "pair"
    if task == "point" and pairwise:
        raise RecipeError(
            f"The cross_encoder {model.model!r} was trained to judge pairs only; give it with --pair-teacher, and "
            "another one with --point-teacher."
        )
    if task == "pair" and kind not in PAIR_KINDS and not pairwise:
        raise RecipeError(
            f"The {kind} {model.model!r} judges documents one by one only; give a teacher of pairs "
            f"({', '.join(PAIR_KINDS)}) with --pair-teacher, derive the pairs from the points with "
            "--set teacher.pair.scoring=derived, or leave them out with --set teacher.pair.per_query=0."
        )
    key: dict[str, Any] = {"task": task, "kind": kind}
    if kind == "imported":
        return json.dumps({**key, "model": model.model.removeprefix(IMPORTED)}, sort_keys=True)
    if kind == "endpoint":
        from pdadapt.teachers.endpoint import served_model

        key |= {"model": served_model(model.model)}
    else:
        check_precision(model, kind)
        key |= {
            "model": resolve_model(model.model).identity(),
            "dtype": str(pick_dtype(model.dtype, default_device())).removeprefix("torch."),
            "quantize": model.quantize,
            "max_length": model.max_length,
        }
    key |= {"max_document_length": model.max_document_length}
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
    prompt = load_prompt(settings.point.prompt, LIKELIHOOD_FIELDS if likelihood else POINT_FIELDS)
    labels = None if likelihood else list(settings.point.labels)
    return {"scoring": settings.point.scoring, "prompt": prompt.sha256, "labels": labels}


def check_precision(settings: ModelSettings, kind: str) -> None:
    """Raises RecipeError or ModelError when the weights cannot be loaded as asked."""
    if not settings.quantize:
        return
    if kind not in LANGUAGE_MODELS or settings.model.endswith(".gguf"):
        raise RecipeError(f"teacher.quantize works for language models in safetensors, not for {settings.model!r}.")
    if not torch.cuda.is_available():
        raise ModelError(
            f"teacher.quantize={settings.quantize} needs a GPU (bitsandbytes), and there is none; leave it out."
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ModelError("teacher.quantize needs bitsandbytes; run `pip install 'pdadapt[gpu]'`.") from None


class ImportedTeacher:
    """Labels made elsewhere: what was not imported has no answer."""

    def score_points(self, points: Sequence[Point]) -> Iterator[Scores]:
        yield [(index, None) for index in range(len(points))]

    def score_pairs(self, pairs: Sequence[Pair]) -> Iterator[Scores]:
        yield [(index, None) for index in range(len(pairs))]


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
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self, model: ModelSettings) -> Any:
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
        point = self.settings.point if "point" in asked else None
        pair = self.settings.pair if "pair" in asked else None
        if kind == "endpoint":
            from pdadapt.teachers.endpoint import EndpointTeacher

            return EndpointTeacher(model, point, pair)
        if kind == "seq2seq":
            from pdadapt.teachers.seq2seq import Seq2SeqTeacher

            return Seq2SeqTeacher(model, point, pair)
        from pdadapt.teachers.causal import CausalTeacher

        return CausalTeacher(model, point, pair)

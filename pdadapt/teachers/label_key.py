"""The key of a teacher in the label store: labels are comparable if the keys of their teachers are equal.

A label is found by this key and the hashes of its texts (labeling/store.py, text_hash).
"""

from __future__ import annotations

import json
from typing import Any

from pdadapt.data.bm25_index import WORDS_VERSION
from pdadapt.data.corpus import Corpus
from pdadapt.errors import RecipeError
from pdadapt.models.device import dtype_name
from pdadapt.models.source import (
    read_config,
    resolve_model,
)
from pdadapt.settings.prompt import LIKELIHOOD_FIELDS, PAIR_FIELDS, POINT_FIELDS, load_prompt
from pdadapt.settings.schema import PointSettings, Recipe, TeacherSettings
from pdadapt.teachers.base import Task
from pdadapt.teachers.bm25 import corpus_of_bm25
from pdadapt.teachers.kind import (
    IMPORTED_PREFIX,
    LANGUAGE_MODELS,
    PAIR_KINDS,
    TASK_KEY,
    can_quantize,
    model_of,
    teacher_kind,
)


def teacher_keys(recipe: Recipe, corpus: Corpus | None = None) -> dict[Task, str]:
    """Return the label store's keys of the tasks for which teachers are asked."""
    tasks: list[Task] = ["point", "pair"] if recipe.teacher.pair.asks_teacher else ["point"]
    return {task: teacher_key(recipe.teacher, task, corpus) for task in tasks}


# Increase this when the code changes how texts become a model's input, or its output a score. Labels of two versions
# are never mixed.
READING_VERSION = 2


def teacher_key(settings: TeacherSettings, task: Task, corpus: Corpus | None = None) -> str:
    """Return the label store's key as JSON. It holds everything that a label depends on, except the texts.

    corpus: what BM25 scores with. Other teachers need none. Loads no model. Raises RecipeError or ModelError if the
    teacher cannot be used for the task.
    """
    model = model_of(settings, task)
    if model.endpoints and not model.model.startswith(("http://", "https://")):
        raise RecipeError(
            f"teacher.endpoints has no effect, since teacher {model.model!r} is not behind a server. Leave --endpoint "
            "out, or name the model behind it (--endpoint http://HOST/v1#NAME)."
        )
    kind = teacher_kind(model)
    pairwise = kind == "cross_encoder" and read_config(resolve_model(model.model)).get(TASK_KEY) == "pair"
    if task == "point" and pairwise:
        raise RecipeError(
            f"The cross_encoder {model.model!r} was trained to judge pairs only. Name it with --pair-teacher, and "
            "another teacher with --point-teacher."
        )
    if task == "pair" and kind not in PAIR_KINDS and not pairwise:
        raise RecipeError(
            f"Teacher {model.model!r} ({kind}) can judge single documents, but not pairs. A pair teacher has one of "
            f"the kinds {', '.join(PAIR_KINDS)}. Name one with --pair-teacher, derive the pairs from the points (--set "
            "teacher.pair.scoring=derived), or leave pairs out (--set teacher.pair.per_query=0)."
        )
    key: dict[str, Any] = {"task": task, "kind": kind}
    if kind == "imported":
        return json.dumps({**key, "model": model.model.removeprefix(IMPORTED_PREFIX)}, sort_keys=True)
    if kind == "bm25":
        fingerprint = corpus_of_bm25(corpus).fingerprint
        return json.dumps({**key, "words": WORDS_VERSION, "corpus": fingerprint}, sort_keys=True)
    if kind == "endpoint":
        from pdadapt.teachers.endpoint import served_model, server_urls

        server_urls(model)
        key |= {"model": served_model(model.model)}
    else:
        key |= {
            "model": resolve_model(model.model).identity(),
            "dtype": dtype_name(model.dtype),
            "quantize": model.quantize if can_quantize(model, kind) else None,
            "max_length": model.max_length,
        }
    if kind == "endpoint":
        key |= {"max_length": model.max_length}
    key |= {"max_document_length": model.max_document_length, "reading": READING_VERSION}
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
            "teacher.point.scoring=query_likelihood needs a decoder-only teacher, but the kind of this teacher is "
            f"{kind}. Use --set teacher.point.scoring=labels --set teacher.point.prompt=yes-no."
        )
    if likelihood and settings.point.prompt == PointSettings().prompt:
        raise RecipeError(
            "teacher.point.scoring=query_likelihood needs a prompt of its own. Add "
            "--set teacher.point.prompt=query-likelihood."
        )
    prompt = load_prompt(settings.point.prompt, LIKELIHOOD_FIELDS if likelihood else POINT_FIELDS)
    labels = None if likelihood else list(settings.point.labels)
    return {"scoring": settings.point.scoring, "prompt": prompt.sha256, "labels": labels}

"""Check before any work whether a teacher can be asked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pdadapt.data.corpus import Corpus
from pdadapt.errors import DataError
from pdadapt.labeling.store import is_labeled
from pdadapt.models.source import resolve_model, translate_errors
from pdadapt.settings.schema import TeacherSettings
from pdadapt.teachers.base import Task
from pdadapt.teachers.kind import (
    IMPORTED_PREFIX,
    LANGUAGE_MODELS,
    check_architecture,
    check_precision,
    model_of,
    task_settings,
    teacher_kind,
)
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import load_endpoint


def check_teacher(
    settings: TeacherSettings, task: Task, queries: Collection[str], store: Path, corpus: Corpus | None = None
) -> None:
    """Find problems that would stop the teacher during its work, or make its labels useless. No weights are loaded.

    The label words are checked against the tokenizer, the texts marked in the prompt, and the longest queries against
    the maximum length. A server is asked one question. An imported teacher needs labels in the label store. corpus:
    what BM25 scores with. Raises RecipeError, ModelError or DataError.
    """
    check_precision(settings)
    model = model_of(settings, task)
    kind = teacher_kind(model)
    prompt_settings = task_settings(settings, task)
    labeled = is_labeled(store, teacher_key(settings, task, corpus))
    if kind == "imported" and not labeled:
        target = store if store.exists() else Path("labels.sqlite")
        name = model.model.removeprefix(IMPORTED_PREFIX)
        raise DataError(
            f"{store} holds no {task} labels of {model.model}. Import them with `pdadapt labels import FILE --store "
            f"{target} --name {name}`, and use that store with --set label_store={target}."
        )
    if kind == "endpoint" and not labeled:
        teacher = load_endpoint(model, settings, [task])
        teacher.check(queries)
    if kind in (*LANGUAGE_MODELS, "cross_encoder", "bi_encoder", "multi_vector"):
        check_architecture(model, kind)
    from pdadapt.teachers.language_model import load_tokenizer, task_prompt

    with translate_errors(f"Teacher {model.model!r} cannot be asked"):  # a chat template can fail
        if kind in LANGUAGE_MODELS:
            encode = task_prompt(load_tokenizer(model.model), kind, model, prompt_settings).encode
            encode.check_queries(queries)
            encode.check()
        if kind == "cross_encoder":
            from pdadapt.teachers.cross_encoder import check_prompt

            check_prompt(model, task, queries)
        source = resolve_model(model.model) if kind in ("bi_encoder", "multi_vector") else None
        if source and source.is_local and (Path(source.path) / "tokenizer_config.json").is_file():
            from pdadapt.teachers.marks import mark_words

            mark_words(load_tokenizer(model.model), 1)

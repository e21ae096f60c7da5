"""Find before any work what would stop a teacher in the middle of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pdadapt.errors import DataError
from pdadapt.labeling.store import is_labeled
from pdadapt.models.source import (
    resolve_model,
    translate_errors,
)
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


def check_teacher(settings: TeacherSettings, task: Task, queries: Collection[str], store: Path) -> None:
    """Find before any work what would stop the teacher in the middle of it, or make its labels worth nothing.

    Label words against its tokenizer, marked texts in its prompt, the longest queries against its length, a server by
    one question, an imported teacher by what the label store holds; weights are not loaded. Raises RecipeError,
    ModelError or DataError.
    """
    check_precision(settings)
    model = model_of(settings, task)
    kind = teacher_kind(model)
    asked = task_settings(settings, task)
    labeled = is_labeled(store, teacher_key(settings, task))
    if kind == "imported" and not labeled:
        own = store if store.exists() else Path("labels.sqlite")
        name = model.model.removeprefix(IMPORTED_PREFIX)
        raise DataError(
            f"{store} holds no {task} labels of {model.model}; bring them with `pdadapt labels import FILE --store "
            f"{own} --name {name}`, and use that store with --set label_store={own}."
        )
    if kind == "endpoint" and not labeled:
        teacher = load_endpoint(model, settings, [task])
        teacher.check(queries)
    if kind in (*LANGUAGE_MODELS, "cross_encoder", "bi_encoder", "multi_vector"):
        check_architecture(model, kind)
    from pdadapt.teachers.language_model import load_tokenizer, task_prompt

    with translate_errors(f"Teacher {model.model!r} cannot be asked"):  # its chat template may be no good
        if kind in LANGUAGE_MODELS:
            encode = task_prompt(load_tokenizer(model.model), kind, model, asked).encode
            encode.check_queries(queries)
            encode.check()
        if kind == "cross_encoder":
            from pdadapt.teachers.cross_encoder import check_prompt

            check_prompt(model, task, queries)
        source = resolve_model(model.model) if kind in ("bi_encoder", "multi_vector") else None
        if source and source.is_local and (Path(source.path) / "tokenizer_config.json").is_file():
            from pdadapt.teachers.marks import mark_words

            mark_words(load_tokenizer(model.model), 1)

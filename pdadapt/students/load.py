"""Load and save students."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

    from pdadapt.settings.schema import StudentSettings


def load_student(name: str, settings: StudentSettings, sample_texts: Sequence[str] = ()) -> MultiVectorEncoder:
    """Load the model `name` as a student with the settings of a recipe.

    settings: `settings.model` is ignored, since a checkpoint of a run is loaded with the same settings.
    sample_texts: documents of the corpus, to which a projection is fitted.
    Raises ModelError if the student cannot be loaded.
    """
    return load_student_as(name, **settings.model_dump(exclude={"model"}), sample_texts=sample_texts)


def load_student_as(
    name: str,
    kind: Literal["colbert", "dense"] = "colbert",
    query_length: int | None = None,
    document_length: int | None = None,
    pooling: str | None = None,
    similarity: str | None = None,
    projection: int = 0,
    dtype: str = "float32",
    sample_texts: Sequence[str] = (),
) -> MultiVectorEncoder:
    """Load the model `name` as a student of this kind. The checkpoint decides about every option that is None.

    The options are those of StudentSettings. Raises ModelError if the student cannot be loaded.
    """
    if kind == "dense":
        from pdadapt.students.dense import load_dense

        return load_dense(name, query_length, document_length, pooling, similarity, dtype)
    from pdadapt.students.colbert import load_colbert

    return load_colbert(name, query_length, document_length, projection, sample_texts, dtype)


def save_student(model: MultiVectorEncoder, folder: Path) -> None:
    """Write the student as a checkpoint (safetensors) to `folder`, which appears complete or not at all."""
    from pdadapt.students.dense import OneVector, save_dense
    from pdadapt.students.pylate import save_colbert

    (save_dense if isinstance(model[-1], OneVector) else save_colbert)(model, folder)

"""Load and save students."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

    from pdadapt.settings.schema import StudentSettings


def load_student(
    name: str,
    kind: Literal["colbert", "dense"] = "colbert",
    query_length: int | None = None,
    document_length: int | None = None,
    pooling: str | None = None,
    similarity: str | None = None,
    projection: int = 0,
    dtype: str = "float32",
    passages: Sequence[str] = (),
) -> MultiVectorEncoder:
    """The student that recipe.StudentSettings describe, whose names these are; `passages` are a sample
    of the corpus, for a projection.

    Raises ModelError when it does not load.
    """
    if kind == "dense":
        from pdadapt.students.dense import load_dense

        return load_dense(name, query_length, document_length, pooling, similarity, dtype)
    from pdadapt.students.colbert import load_colbert

    return load_colbert(name, query_length, document_length, projection, passages, dtype)


def load_configured(name: str, settings: StudentSettings, passages: Sequence[str] = ()) -> MultiVectorEncoder:
    """The student of this name, with the settings of a recipe. Raises ModelError when it does not load."""
    return load_student(name, **settings.model_dump(exclude={"model"}), passages=passages)


def save_student(model: MultiVectorEncoder, folder: Path) -> None:
    """Write the student as a checkpoint (safetensors) to `folder`, which appears whole or not at all."""
    from pdadapt.students.dense import OneVector, save_dense
    from pdadapt.students.pylate import save_colbert

    (save_dense if isinstance(model[-1], OneVector) else save_colbert)(model, folder)

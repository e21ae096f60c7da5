"""Which engine a name means: BM25, or a model, which says itself what kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pdadapt.engines import Engine
from pdadapt.errors import ModelError
from pdadapt.models import model_type, resolve_model
from pdadapt.students import load_student

BASELINE = "bm25"


def load_engine(
    name: str,
    student: Mapping[str, Any],
    passages: Sequence[str],
    batch_size: int,
    lengths: Mapping[str, int] | None = None,
) -> Engine:
    """The engine of `bm25` or of a model: a ColBERT, a dense or sparse model of sentence-transformers, an encoder.

    student: settings of recipe.StudentSettings that were asked for; without a kind, it is as the model says, and a
    plain encoder is a ColBERT. passages: a sample of the corpus, for a projection. lengths: of a ColBERT's queries
    and documents, where `student` says nothing.

    Raises ModelError when the model does not load.
    """
    if name == BASELINE:
        from pdadapt.engines.bm25 import BM25

        return BM25()
    kind = model_type(resolve_model(name))
    if kind == "sparse" and "kind" not in student:
        return _load_sparse(name, batch_size)
    from pdadapt.engines.exact import Exact

    settings = {"kind": "dense" if kind == "dense" else "colbert", **student}
    if settings["kind"] == "colbert":
        settings = {**(lengths or {}), **settings}
    return Exact(load_student(name, **settings, passages=passages), batch_size)


def _load_sparse(name: str, batch_size: int) -> Engine:
    from sentence_transformers import SparseEncoder

    from pdadapt.engines.sparse import Sparse

    source = resolve_model(name)
    weights = {"use_safetensors": True, "dtype": torch.float32}
    try:
        return Sparse(SparseEncoder(source.path, revision=source.revision, model_kwargs=weights), batch_size)
    except (OSError, ValueError, KeyError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"Model {name!r} does not load as a sparse encoder: {first_line}") from error

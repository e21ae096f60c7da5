"""Which engine a name means: BM25, or a model, which says itself what kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pdadapt.data.corpus import Corpus, Dataset
from pdadapt.errors import ModelError
from pdadapt.models.encoders import prepare_encoder
from pdadapt.models.outline import check_encoder
from pdadapt.models.source import encoder_type, first_module_type, resolve_model, translate_errors
from pdadapt.retrieval.engines.base import Engine
from pdadapt.retrieval.engines.colbert import Colbert
from pdadapt.retrieval.engines.environment import interpreter
from pdadapt.retrieval.engines.exact import Encode, Exact
from pdadapt.retrieval.engines.plaid import Plaid
from pdadapt.runtime.names import hashed_name
from pdadapt.settings.schema import RetrieveSettings
from pdadapt.students.colbert import check_lengths
from pdadapt.students.dense import OneVector
from pdadapt.students.load import load_student

BASELINE = "bm25"


def load_engine(
    name: str,
    student: Mapping[str, Any],
    passages: Sequence[str],
    settings: RetrieveSettings,
    lengths: Mapping[str, int] | None = None,
) -> Engine:
    """The engine of `bm25` or of a model: a ColBERT, a dense or sparse model of sentence-transformers, an encoder.

    student: settings of recipe.StudentSettings that were asked for; without a kind, it is as the model says, and a
    plain encoder is a ColBERT. passages: a sample of the corpus, for a projection. lengths: of a ColBERT's queries
    and documents, where `student` says nothing.

    Raises ModelError when the model does not load.
    """
    kind, limit = _look_at(name, student, settings)
    if kind == BASELINE:
        from pdadapt.retrieval.engines.bm25 import BM25

        return BM25()
    if kind == "sparse":
        return _load_sparse(name)
    chosen = {**student, "kind": kind}
    if kind == "colbert":
        chosen = {**{key: min(length, limit) for key, length in (lengths or {}).items()}, **chosen}
    return make_engine(load_student(name, **chosen, passages=passages), settings)


def check_model(name: str, student: Mapping[str, Any], settings: RetrieveSettings) -> str:
    """What load_engine will take a model for: bm25, sparse, dense or colbert; weights are not loaded.

    Raises ModelError when it is not there, cannot be used as that, or the engine cannot search it.
    """
    return _look_at(name, student, settings)[0]


def _look_at(name: str, student: Mapping[str, Any], settings: RetrieveSettings) -> tuple[str, int]:
    """The same, and how many tokens it reads of a text."""
    if name == BASELINE:
        return BASELINE, 0
    source = resolve_model(name)
    if source.gguf_file:
        raise ModelError(f"Model {name!r} is a GGUF file, which cannot be a student; give an encoder's folder.")
    found = encoder_type(source)
    source.check()
    kind = student.get("kind") or {"plain": "colbert"}.get(found, found)
    if kind == "sparse":
        if first_module_type(source) != "Router":  # of a transformer and a table of its own
            check_encoder(source, "Model", "AutoModelForMaskedLM", unused=("pooler",))
        return kind, 0
    _check_engine(settings, kind == "dense")
    limit = check_encoder(source, "Student")
    check_lengths(limit, student.get("query_length"), student.get("document_length"))
    return kind, limit


def _check_engine(settings: RetrieveSettings, dense: bool) -> None:
    if settings.engine != "exact" and dense != (settings.engine == "faiss"):
        vectors, others = ("one vector", "exact or faiss") if dense else ("many vectors", "exact, plaid or colbert")
        raise ModelError(f"retrieve.engine={settings.engine}: this student has {vectors} a text; use {others}.")
    if settings.engine in ("plaid", "colbert"):
        interpreter(settings.engine)


def index_folder(root: Path, dataset: Dataset, name: str, settings: RetrieveSettings) -> Path:
    """Where under `root` the index of a corpus by a model is kept: a folder of its own for each that is named."""
    engine = BASELINE if name == BASELINE else settings.engine
    corpus = (dataset.source.corpus, dataset.source.passages or "") if dataset.source else ()
    return root / hashed_name(f"{dataset.name}-{name}-{engine}", dataset.name, name, *corpus)


def identity(name: str) -> str:
    """What ranks under this name, however it is named. Raises ModelError when it is not there."""
    if name != BASELINE:
        return resolve_model(name).identity()
    from pdadapt.retrieval.engines.bm25 import WORDS_VERSION

    return f"{BASELINE}, words {WORDS_VERSION}"


def index_origin(
    name: str,
    corpus: Corpus,
    student: Mapping[str, Any],
    settings: RetrieveSettings,
    lengths: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What an index is made from: it serves again where all of this is the same. The arguments are load_engine's."""
    origin: dict[str, Any] = {"corpus": corpus.fingerprint, "model": identity(name)}
    if name == BASELINE:
        return origin
    of_engine = {"plaid": settings.bits, "colbert": settings.bits, "faiss": settings.faiss}.get(settings.engine)
    return origin | {
        "student": {**(lengths or {}), **student},
        "engine": [settings.engine, of_engine],
    }


def make_engine(model: Any, settings: RetrieveSettings, encode: Encode | None = None) -> Engine:
    """The engine that the settings ask for, of a student. encode: who encodes documents for `exact` and `faiss`.

    Raises ModelError when it cannot search this student, or is not installed.
    """
    _check_engine(settings, isinstance(model[-1], OneVector))
    if settings.engine == "exact":
        return Exact(model, settings.batch_tokens, encode)
    if settings.engine == "plaid":
        return Plaid(model, settings.bits, settings.batch_tokens)
    if settings.engine == "colbert":
        return Colbert(model, settings.bits)
    try:
        from pdadapt.retrieval.engines.faiss import Faiss
    except ImportError:
        raise ModelError(
            "retrieve.engine=faiss needs a package; run `pip install 'pdadapt[cpu]'` (or [gpu])."
        ) from None
    return Faiss(Exact(model, settings.batch_tokens, encode), settings.faiss, settings.nprobe)


def _load_sparse(name: str) -> Engine:
    from sentence_transformers import SparseEncoder

    from pdadapt.retrieval.engines.sparse import Sparse

    source = resolve_model(name)
    weights = {"use_safetensors": True, "dtype": torch.float32}
    with translate_errors(f"Model {name!r} does not load as a sparse encoder"):
        model = SparseEncoder(source.place, revision=source.commit, model_kwargs=weights)
    if first_module_type(source) != "Router":
        prepare_encoder(model, source, "Model")
    return Sparse(model)

"""Load the engine for a name: `bm25`, or a model whose files tell what kind of retriever it is."""

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
from pdadapt.retrieval.engines.exact import EncodeShards, Exact
from pdadapt.retrieval.engines.plaid import Plaid
from pdadapt.runtime.names import hashed_name
from pdadapt.settings.schema import RetrieveSettings
from pdadapt.students.colbert import check_lengths
from pdadapt.students.dense import OneVector
from pdadapt.students.load import load_student_as

BASELINE = "bm25"


def load_engine(
    name: str,
    student: Mapping[str, Any],
    sample_texts: Sequence[str],
    settings: RetrieveSettings,
    lengths: Mapping[str, int] | None = None,
) -> Engine:
    """Return the engine of `bm25` or of a model: a ColBERT, a dense or sparse sentence-transformers model, an encoder.

    student: the fields of StudentSettings that the user asked for. Without `kind` the model decides; a plain encoder is
    a ColBERT.
    sample_texts: documents of the corpus, to which a projection is fitted.
    lengths: the query and document lengths of a ColBERT for which `student` has none.
    Raises ModelError if the model cannot be loaded.
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
    return make_engine(load_student_as(name, **chosen, sample_texts=sample_texts), settings)


def check_model(name: str, student: Mapping[str, Any], settings: RetrieveSettings) -> str:
    """Return the kind that load_engine will load: bm25, sparse, dense or colbert. Loads no weights.

    Raises ModelError if the model is missing, does not fit its kind, or cannot be searched by the engine.
    """
    return _look_at(name, student, settings)[0]


def _look_at(name: str, student: Mapping[str, Any], settings: RetrieveSettings) -> tuple[str, int]:
    """Return the model's kind (see check_model), and how many tokens of a text it reads (0 if unknown)."""
    if name == BASELINE:
        return BASELINE, 0
    source = resolve_model(name)
    if source.gguf_file:
        raise ModelError(f"Model {name!r} is a GGUF file, which cannot be a student. Name the folder of an encoder.")
    detected = encoder_type(source)
    source.check()
    kind = student.get("kind") or {"plain": "colbert"}.get(detected, detected)
    if kind == "sparse":
        if (
            first_module_type(source) != "Router"
        ):  # a Router reads queries with a table and documents with a transformer
            check_encoder(source, "Model", "AutoModelForMaskedLM", unused=("pooler",))
        return kind, 0
    _check_engine(settings, kind == "dense")
    limit = check_encoder(source, "Student")
    check_lengths(limit, student.get("query_length"), student.get("document_length"))
    return kind, limit


def _check_engine(settings: RetrieveSettings, dense: bool) -> None:
    if settings.engine != "exact" and dense != (settings.engine == "faiss"):
        vectors, engines = ("one vector", "exact or faiss") if dense else ("many vectors", "exact, plaid or colbert")
        raise ModelError(
            f"retrieve.engine={settings.engine} cannot search this student: it has {vectors} per text. Use {engines}."
        )
    if settings.engine in ("plaid", "colbert"):
        interpreter(settings.engine)


def index_folder(root: Path, dataset: Dataset, name: str, settings: RetrieveSettings) -> Path:
    """Return the folder under `root` for the index of a corpus by a model. Each corpus and model has its own."""
    engine = BASELINE if name == BASELINE else settings.engine
    corpus = (dataset.source.corpus, dataset.source.passages or "") if dataset.source else ()
    return root / hashed_name(f"{dataset.name}-{name}-{engine}", dataset.name, name, *corpus)


def identity(name: str) -> str:
    """Return a retriever's identity: equal for two names of the same model. Raises ModelError if it is missing."""
    if name != BASELINE:
        return resolve_model(name).identity()
    from pdadapt.data.bm25_index import WORDS_VERSION

    return f"{BASELINE}, words {WORDS_VERSION}"


def index_origin(
    name: str,
    corpus: Corpus,
    student: Mapping[str, Any],
    settings: RetrieveSettings,
    lengths: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return everything that an index depends on. An index is used again if all of it is equal.

    The arguments are those of load_engine.
    """
    origin: dict[str, Any] = {"corpus": corpus.fingerprint, "model": identity(name)}
    if name == BASELINE:
        return origin
    option = {"plaid": settings.bits, "colbert": settings.bits, "faiss": settings.faiss}.get(settings.engine)
    return origin | {"student": {**(lengths or {}), **student}, "engine": [settings.engine, option]}


def make_engine(model: Any, settings: RetrieveSettings, encode: EncodeShards | None = None) -> Engine:
    """Return the engine of the settings for a loaded student.

    encode: encodes documents elsewhere for `exact` and `faiss` (see Exact).
    Raises ModelError if the engine cannot search this student or is not installed.
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
            "retrieve.engine=faiss needs the package faiss. Run `pip install 'pdadapt[cpu]'` (or [gpu])."
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

"""Index a corpus and search it."""

from __future__ import annotations

import functools
import itertools
import json
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pdadapt.data.corpus import Corpus, Dataset, Queries
from pdadapt.data.passages import rank_by_best_passage
from pdadapt.data.run_file import Ranked, Ranking
from pdadapt.retrieval.engines.base import Engine
from pdadapt.retrieval.engines.load import index_folder, index_origin, load_engine
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.locks import locked
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import RetrieveSettings
from pdadapt.students.colbert import PROJECTION_SAMPLE

INDEX_FORMAT = 1  # the version of an index's files
ID_CACHE_SIZE = 1_000_000  # document ids kept in memory while rankings are written


def sample_queries(queries: Queries, most: int | None, seed: int) -> Queries:
    """Return at most `most` queries, drawn with the seed, in their original order. None means all."""
    if most is None or len(queries) <= most:
        return queries
    chosen = set(random.Random(seed).sample(sorted(queries), most))
    return {query_id: text for query_id, text in queries.items() if query_id in chosen}


def index_corpus(
    engine: Engine, corpus: Corpus, folder: Path, progress: Progress, origin: Mapping[str, Any] | None = None
) -> None:
    """Make the corpus searchable in `folder`.

    origin: what the index is made from (hashes of corpus and model), written to `folder`/index.json. An index of the
    same origin is kept, and completed if indexing was interrupted. An index of another origin is removed first.
    """
    file = folder / "index.json"
    content = json.dumps({"format": INDEX_FORMAT, **(origin or {})}, indent=2, sort_keys=True) + "\n"
    if not file.exists() or file.read_text(encoding="utf-8") != content:
        file.unlink(missing_ok=True)  # first, so that a partly removed index is not taken for a complete one
        if folder.exists():
            shutil.rmtree(folder)
        write_atomic(file, content)
    with progress.task("index", len(corpus), "documents") as advance:
        engine.index(corpus.documents, folder, advance)


def open_index(
    name: str,
    dataset: Dataset,
    student: Mapping[str, Any],
    settings: RetrieveSettings,
    root: Path,
    progress: Progress,
) -> tuple[Engine, Path]:
    """Return the engine of a model (or `bm25`) and the folder of its index of the corpus.

    The index is kept under `root`, and made if it is missing.
    student: the student's settings that the user asked for (see load_engine).
    Raises ModelError if the model cannot be loaded.
    """
    corpus = dataset.corpus
    engine = load_engine(name, student, corpus.sample(PROJECTION_SAMPLE), settings, dataset.lengths)
    folder = index_folder(root, dataset, name, settings)
    with locked(root):
        index_corpus(engine, corpus, folder, progress, index_origin(name, corpus, student, settings, dataset.lengths))
    return engine, folder


def retrieve(engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress) -> Ranking:
    """Return the k best documents (or passages) of each query, best first, without the query's own document."""
    return {query_id: ranked for query_id, ranked, _ in search(engine, corpus, queries, folder, k, progress)}


def search(
    engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress
) -> Iterator[tuple[str, Ranked, bool]]:
    """Yield (query id, its k best documents, whether the engine found fewer than it was asked for), query by query.

    A query's own document is left out (see own_document_ids).
    """
    own = {query_id: own_document_ids(corpus, query_id, text) for query_id, text in queries.items()}
    depth = min(k + max(map(len, own.values()), default=0), len(corpus))
    doc_id_at = functools.lru_cache(ID_CACHE_SIZE)(lambda position: corpus.documents[position].doc_id)
    with progress.task("search", len(queries) * len(corpus), "scores") as advance:
        hits = engine.search(list(queries.values()), folder, len(corpus), depth, advance)
        for query_id, (positions, scores) in zip(queries, hits, strict=True):
            ranked = zip(map(doc_id_at, positions), scores, strict=True)
            best = [(doc_id, score) for doc_id, score in ranked if doc_id not in own[query_id]][:k]
            yield query_id, best, len(positions) < depth


def retrieve_documents(
    engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress
) -> Ranking:
    """Return the k best documents of each query, best first.

    If the corpus is split into passages, a document's score is that of its best passage. The search depth is doubled
    until there are passages of k documents.
    """
    if corpus.unsplit is corpus:
        return retrieve(engine, corpus, queries, folder, k, progress)
    needed, depth = min(k, len(corpus.unsplit)), k
    ranking: Ranking = {}
    remaining = queries
    while remaining:
        depth = min(2 * depth, len(corpus))
        exhausted = set()
        for query_id, ranked, ended in search(engine, corpus, remaining, folder, depth, progress):
            ranking |= rank_by_best_passage({query_id: ranked}, k)
            if ended:
                exhausted.add(query_id)
        short = {query_id for query_id in remaining if len(ranking[query_id]) < needed} - exhausted
        remaining = {query_id: text for query_id, text in remaining.items() if query_id in short}
        if depth == len(corpus):
            break
    return {query_id: ranking[query_id] for query_id in queries}


def without_own_documents(ranking: Mapping[str, Ranked], corpus: Corpus, queries: Queries) -> tuple[Ranking, int]:
    """Return a ranking without the queries' own documents (see own_document_ids), and the number of changed queries.

    Rankings made here never contain them; rankings read from a file may.
    """
    kept: Ranking = {}
    changed = 0
    for query_id, ranked in ranking.items():
        own = own_document_ids(corpus.unsplit, query_id, queries.get(query_id, ""))
        kept[query_id] = [entry for entry in ranked if entry[0] not in own] if own else ranked
        changed += len(kept[query_id]) < len(ranked)
    return kept, changed


def own_document_ids(corpus: Corpus, query_id: str, query: str) -> set[str]:
    """Return the ids of a query's own document, or of all its passages. In ArguAna and Quora queries are documents.

    The document must have the query's id and its text, since ids alone may be equal by chance.
    """
    if query_id not in corpus.unsplit:
        return set()
    document = corpus.unsplit[query_id]
    if query.split() not in (document.text.split(), document.contents.split()):
        return set()
    if corpus.unsplit is corpus:
        return {query_id}
    passages = itertools.takewhile(corpus.__contains__, (f"{query_id}#{number}" for number in itertools.count()))
    return set(passages)

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
from pdadapt.students.colbert import PCA_DOCUMENTS

FORMAT = 1  # of the files of an index
IDS = 1_000_000  # of documents kept while their rankings are written


def sample_queries(queries: Queries, most: int | None, seed: int) -> Queries:
    """At most so many queries, drawn by the seed, in their own order."""
    if most is None or len(queries) <= most:
        return queries
    chosen = set(random.Random(seed).sample(sorted(queries), most))
    return {query_id: text for query_id, text in queries.items() if query_id in chosen}


def index_corpus(
    engine: Engine, corpus: Corpus, folder: Path, progress: Progress, origin: Mapping[str, Any] | None = None
) -> None:
    """Make the corpus searchable in `folder`, which is an index of this origin from then on.

    origin: what the index is made from, such as hashes of corpus and model. What is there of the same origin, whole or
    left by a kill, is kept and gone on with; of another it is removed first.
    """
    file = folder / "index.json"
    wanted = json.dumps({"format": FORMAT, **(origin or {})}, indent=2, sort_keys=True) + "\n"
    if not file.exists() or file.read_text(encoding="utf-8") != wanted:
        file.unlink(missing_ok=True)  # first, so that no torso is taken for an index
        if folder.exists():
            shutil.rmtree(folder)
        write_atomic(file, wanted)
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
    """The engine of a model (or `bm25`), and its index of the corpus: the one kept under `root`, or one made now.

    student: settings of the student that were asked for. Raises ModelError when the model does not load.
    """
    corpus = dataset.corpus
    engine = load_engine(name, student, corpus.sample(PCA_DOCUMENTS), settings, dataset.lengths)
    folder = index_folder(root, dataset, name, settings)
    with locked(root):
        index_corpus(engine, corpus, folder, progress, index_origin(name, corpus, student, settings, dataset.lengths))
    return engine, folder


def retrieve(engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress) -> Ranking:
    """The k best documents (or passages) of each query, best first, without the query itself."""
    return {query_id: ranked for query_id, ranked, _ in search(engine, corpus, queries, folder, k, progress)}


def search(
    engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress
) -> Iterator[tuple[str, Ranked, bool]]:
    """The same, a query at a time; and whether the engine found fewer than it was asked for: all it finds."""
    own = {query_id: itself(corpus, query_id, text) for query_id, text in queries.items()}
    depth = min(k + max(map(len, own.values()), default=0), len(corpus))
    doc_id_at = functools.lru_cache(IDS)(lambda position: corpus.documents[position].doc_id)
    with progress.task("search", len(queries) * len(corpus), "scores") as advance:
        found = engine.search(list(queries.values()), folder, len(corpus), depth, advance)
        for query_id, (positions, scores) in zip(queries, found, strict=True):
            ranked = zip(map(doc_id_at, positions), scores, strict=True)
            best = [(doc_id, score) for doc_id, score in ranked if doc_id not in own[query_id]][:k]
            yield query_id, best, len(positions) < depth


def retrieve_documents(
    engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress
) -> Ranking:
    """The k best documents; of a corpus split into passages each document's best passage, searched deeper as needed."""
    if corpus.unsplit is corpus:
        return retrieve(engine, corpus, queries, folder, k, progress)
    wanted, depth = min(k, len(corpus.unsplit)), k
    ranking: Ranking = {}
    left = queries
    while left:
        depth = min(2 * depth, len(corpus))
        exhausted = set()
        for query_id, ranked, ended in search(engine, corpus, left, folder, depth, progress):
            ranking |= rank_by_best_passage({query_id: ranked}, k)
            if ended:
                exhausted.add(query_id)
        short = {query_id for query_id in left if len(ranking[query_id]) < wanted} - exhausted
        left = {query_id: left[query_id] for query_id in left if query_id in short} if depth < len(corpus) else {}
    return {query_id: ranking[query_id] for query_id in queries}


def without_itself(ranking: Mapping[str, Ranked], corpus: Corpus, queries: Queries) -> tuple[Ranking, int]:
    """A ranking of documents that was given, without the queries themselves (see `itself`), as a retriever's is; and
    for how many queries something was left out.
    """
    kept: Ranking = {}
    found = 0
    for query_id, ranked in ranking.items():
        own = itself(corpus.unsplit, query_id, queries.get(query_id, ""))
        kept[query_id] = [entry for entry in ranked if entry[0] not in own] if own else ranked
        found += len(kept[query_id]) < len(ranked)
    return kept, found


def itself(corpus: Corpus, query_id: str, query: str) -> set[str]:
    """The ids of what is the query (ArguAna, Quora): the document of its id and text, or all passages of that one.

    Ids alone may meet by chance.
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

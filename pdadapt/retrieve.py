"""Stage: engine -> Ranking. Index the corpus, search it with every query."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdadapt.corpus import Corpus, Document, Queries
from pdadapt.engines import Engine
from pdadapt.passages import best_passages
from pdadapt.progress import Progress
from pdadapt.run import Ranking, write_atomic


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
    file, wanted = folder / "index.json", json.dumps(origin or {}, indent=2, sort_keys=True) + "\n"
    if not file.exists() or file.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        write_atomic(file, wanted)
    with progress.task("index", len(corpus), "documents") as advance:
        engine.index(corpus.documents, folder, advance)


def retrieve(engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress) -> Ranking:
    """The k best documents of each query, best first, without the query itself."""
    with progress.task("search", len(queries) * len(corpus), "scores") as advance:
        depth = min(k + 1, len(corpus))
        results = list(engine.search(list(queries.values()), folder, len(corpus), depth, advance))
    ranking: Ranking = {}
    for query_id, (positions, scores) in zip(queries, results, strict=True):
        ranked = [(corpus.documents[i], score) for i, score in zip(positions, scores, strict=True)]
        ranking[query_id] = [(d.doc_id, score) for d, score in ranked if not is_itself(d, query_id, queries[query_id])][
            :k
        ]
    return ranking


def retrieve_documents(
    engine: Engine, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress
) -> Ranking:
    """The k best documents; of a corpus split into passages each document's best passage, searched deeper as needed."""
    if corpus.split_from is None:
        return retrieve(engine, corpus, queries, folder, k, progress)
    wanted, depth = min(k, corpus.split_from), k
    ranking: Ranking = {}
    left = queries
    while left:
        depth = min(2 * depth, len(corpus))
        ranking |= best_passages(retrieve(engine, corpus, left, folder, depth, progress), k)
        short = {query_id for query_id in left if len(ranking[query_id]) < wanted}
        left = {query_id: left[query_id] for query_id in short} if depth < len(corpus) else {}
    return {query_id: ranking[query_id] for query_id in queries}


def is_itself(document: Document, query_id: str, query: str) -> bool:
    """Whether the query is this document (ArguAna, Quora): the same id and text; ids alone may meet by chance."""
    return document.doc_id == query_id and query.strip() in (document.text.strip(), document.contents.strip())

"""Stage: student -> Ranking. Encode the corpus, search it with every query."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from pdadapt.corpus import Corpus, Document, Queries
from pdadapt.engines import exact
from pdadapt.passages import best_passages
from pdadapt.progress import Progress
from pdadapt.run import Ranking

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder


def sample_queries(queries: Queries, most: int | None, seed: int) -> Queries:
    """At most so many queries, drawn by the seed, in their own order."""
    if most is None or len(queries) <= most:
        return queries
    chosen = set(random.Random(seed).sample(sorted(queries), most))
    return {query_id: text for query_id, text in queries.items() if query_id in chosen}


def index_corpus(model: MultiVectorEncoder, corpus: Corpus, folder: Path, batch_size: int, progress: Progress) -> None:
    """Encode the corpus into `folder`; goes on where a killed indexing stopped."""
    with progress.task("encode", len(corpus), "documents") as advance:
        exact.index(model, corpus.documents, folder, batch_size, advance)


def retrieve(
    model: MultiVectorEncoder, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress
) -> Ranking:
    """The k best documents of each query by exact MaxSim, best first, without the query itself."""
    with progress.task("search", len(queries) * len(corpus), "scores") as advance:
        depth = min(k + 1, len(corpus))
        results = list(exact.search(model, list(queries.values()), folder, len(corpus), depth, advance))
    ranking: Ranking = {}
    for query_id, (positions, scores) in zip(queries, results, strict=True):
        ranked = [(corpus.documents[i], score) for i, score in zip(positions, scores, strict=True)]
        ranking[query_id] = [(d.doc_id, score) for d, score in ranked if not is_itself(d, query_id, queries[query_id])][
            :k
        ]
    return ranking


def retrieve_documents(
    model: MultiVectorEncoder, corpus: Corpus, queries: Queries, folder: Path, k: int, progress: Progress
) -> Ranking:
    """The k best documents; of a corpus split into passages each document's best passage, searched deeper as needed."""
    if corpus.split_from is None:
        return retrieve(model, corpus, queries, folder, k, progress)
    wanted, depth = min(k, corpus.split_from), k
    ranking: Ranking = {}
    left = queries
    while left:
        depth = min(2 * depth, len(corpus))
        ranking |= best_passages(retrieve(model, corpus, left, folder, depth, progress), k)
        short = {query_id for query_id in left if len(ranking[query_id]) < wanted}
        left = {query_id: left[query_id] for query_id in short} if depth < len(corpus) else {}
    return {query_id: ranking[query_id] for query_id in queries}


def is_itself(document: Document, query_id: str, query: str) -> bool:
    """Whether the query is this document (ArguAna, Quora): the same id and text; ids alone may meet by chance."""
    return document.doc_id == query_id and query.strip() in (document.text.strip(), document.contents.strip())

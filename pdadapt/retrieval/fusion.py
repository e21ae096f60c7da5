"""Reciprocal rank fusion of several rankings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pdadapt.data.run_file import Ranked
from pdadapt.settings.schema import RetrieveSettings

RRF_K = 60  # of reciprocal rank fusion, as in the paper


def fuse(rankings: Sequence[Ranked], k: int) -> Ranked:
    """The k best documents of several rankings of one query, by reciprocal rank fusion: a document's score is the sum
    of 1 / (60 + rank) over the rankings that hold it (Cormack, Clarke and Buettcher, SIGIR 2009).

    Of equal scores the document of the earlier ranking stands first, then that of the better rank in it.
    """
    scores: dict[str, float] = {}
    for ranked in rankings:
        for rank, (doc_id, _) in enumerate(ranked, 1):
            scores[doc_id] = scores.get(doc_id, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])[:k]


def fuse_sources(
    found: Iterable[tuple[str, Ranked]], bm25: Mapping[str, Ranked], settings: RetrieveSettings
) -> Iterator[tuple[str, Ranked]]:
    """The candidates of queries: what the student found, fused with BM25's rankings, in the order of the sources."""
    for query_id, ranked in found:
        by_source = {"student": ranked, "bm25": bm25.get(query_id, [])}
        yield query_id, fuse([by_source[source] for source in settings.sources], settings.k)

"""Fuse several rankings of a query by reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pdadapt.data.run_file import Ranked
from pdadapt.settings.schema import RetrieveSettings

RRF_K = 60  # the constant of the paper


def fuse(rankings: Sequence[Ranked], k: int) -> Ranked:
    """Return the k best documents of several rankings of one query, best first.

    A document's score is the sum of 1 / (60 + rank) over the rankings that contain it (Cormack, Clarke and Buettcher,
    SIGIR 2009). Documents with equal scores are sorted by the first ranking that contains them, then by their rank in
    it.
    """
    scores: dict[str, float] = {}
    for ranked in rankings:
        for rank, (doc_id, _) in enumerate(ranked, 1):
            scores[doc_id] = scores.get(doc_id, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])[:k]


def fuse_sources(
    student: Iterable[tuple[str, Ranked]], bm25: Mapping[str, Ranked], settings: RetrieveSettings
) -> Iterator[tuple[str, Ranked]]:
    """Yield each query's candidates: the student's ranking fused with BM25's, in the order of retrieve.sources."""
    for query_id, ranked in student:
        by_source = {"student": ranked, "bm25": bm25.get(query_id, [])}
        yield query_id, fuse([by_source[source] for source in settings.sources], settings.k)

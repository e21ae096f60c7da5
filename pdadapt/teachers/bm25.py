"""BM25 as the point teacher. It knows which words are rare in the corpus, and needs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pdadapt.data.bm25_index import index_words, words_of
from pdadapt.data.corpus import Corpus, hash_id
from pdadapt.errors import ModelError
from pdadapt.teachers.base import Chunk, Point, Scores


class BM25Teacher:
    """A point teacher whose score is BM25 in the corpus (see retrieval/engines/bm25.py)."""

    def __init__(self, corpus: Corpus):
        """Index the corpus in memory. Raises DataError if it has no words."""
        self.index = index_words(corpus.documents, lambda _: None)
        self.documents = len(corpus)
        self.places = {hash_id(document.contents): place for place, document in enumerate(corpus)}

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the scores of a chunk at once. A document of another corpus gets no score."""
        for chunk in chunks:
            by_query: dict[str, list[Point]] = {}
            for point in chunk.asked:
                by_query.setdefault(point.query, []).append(point)
            scores: Scores = []
            for query, points in by_query.items():
                words = [word for word in words_of(query) if word in self.index.vocab_dict]
                found = self.index.get_scores(words) if words else np.zeros(self.documents)
                places = [self.places.get(hash_id(point.document)) for point in points]
                scores += [
                    (point, None if place is None else float(found[place]))
                    for point, place in zip(points, places, strict=True)
                ]
            yield scores


def corpus_of_bm25(corpus: Corpus | None) -> Corpus:
    """Return the corpus. Raises ModelError if there is none."""
    if corpus is None:
        raise ModelError(
            "Teacher bm25 cannot be asked here, without the corpus. Run `pdadapt adapt`, which asks it within seconds."
        )
    return corpus

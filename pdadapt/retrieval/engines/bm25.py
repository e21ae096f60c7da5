"""BM25 by bm25s: the baseline for every retriever."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import bm25s

from pdadapt.data.bm25_index import index_words, split_words
from pdadapt.data.corpus import Document
from pdadapt.retrieval.engines.base import Advance, Hits


class BM25:
    """Lucene's variant with k1 0.9 and b 0.4 over title and text, as in BEIR's baselines.

    English stop words are left out, and English endings removed. Scripts without spaces are split as by Lucene's
    CJKAnalyzer (see data/bm25_index.py). Words of other languages are not changed.
    """

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Write `folder`/bm25, which appears complete or not at all. Raises DataError if the corpus has no words."""
        target, temporary = folder / "bm25", folder / "bm25.part"
        if target.exists():
            advance(len(documents), earlier=True)
            return
        shutil.rmtree(temporary, ignore_errors=True)
        index_words(documents, advance).save(temporary)
        os.replace(temporary, target)

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """See Engine.search. Documents that share no word with the query are left out."""
        retriever = bm25s.BM25.load(folder / "bm25", mmap=True)
        for query in queries:
            positions, scores = retriever.retrieve(split_words([query]), k=min(k, documents), show_progress=False)
            kept = [(int(i), float(score)) for i, score in zip(positions[0], scores[0], strict=True) if score > 0]
            advance(documents)
            yield [i for i, _ in kept], [score for _, score in kept]

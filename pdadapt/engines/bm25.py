"""BM25, through bm25s: the baseline that every retriever should be measured against."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer

from pdadapt.corpus import Document
from pdadapt.engines import Advance, Hits
from pdadapt.errors import DataError

BLOCK = 10_000  # documents tokenised at once


class BM25:
    """Lucene's variant with k1 0.9 and b 0.4 over title and text, as BEIR's baselines have it; English words."""

    def __init__(self) -> None:
        self._stemmer = Stemmer.Stemmer("english")

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Leaves `folder`/bm25, which appears whole or not at all."""
        target, temporary = folder / "bm25", folder / "bm25.part"
        if target.exists():
            advance(len(documents), earlier=True)
            return
        shutil.rmtree(temporary, ignore_errors=True)
        vocabulary: dict[str, int] = {}
        tokens: list[np.ndarray] = []
        for start in range(0, len(documents), BLOCK):
            block = self._tokenize([document.contents for document in documents[start : start + BLOCK]])
            words = sorted(block.vocab, key=block.vocab.__getitem__)
            ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], dtype=np.int32)
            tokens += [ids[np.array(found, dtype=np.int64)] for found in block.ids]
            advance(len(block.ids))
        if not vocabulary:
            raise DataError(
                "BM25 finds no word in the corpus but stop words; leave it out (evaluate: --no-bm25; adapt: --set "
                "retrieve.sources=[student]; for queries that are written: --set generate.round_trip=student)."
            )
        retriever = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        retriever.index((tokens, vocabulary), show_progress=False)
        retriever.save(temporary)
        os.replace(temporary, target)

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """Documents that share no word with the query are left out."""
        retriever = bm25s.BM25.load(folder / "bm25", mmap=True)
        for query in queries:
            found, scores = retriever.retrieve(self._tokenize([query]), k=min(k, documents), show_progress=False)
            kept = [(int(i), float(score)) for i, score in zip(found[0], scores[0], strict=True) if score > 0]
            advance(documents)
            yield [i for i, _ in kept], [score for _, score in kept]

    def _tokenize(self, texts: Sequence[str]) -> Any:
        return bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)

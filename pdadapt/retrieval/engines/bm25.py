"""BM25 by bm25s: the baseline for every retriever."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import regex
import Stemmer

from pdadapt.data.corpus import Document
from pdadapt.errors import DataError
from pdadapt.retrieval.engines.base import Advance, Hits

TOKENIZE_BLOCK = 10_000  # documents tokenised at once
WORDS_VERSION = 2  # increase it when texts are split into words differently: older indexes are then made again

# Scripts that put no space between words, and Hangul, which appends particles to words.
BM25_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}\p{Line_Break=Complex_Context}ー"
WIDE_FORMS = regex.compile(r"[\uff01-\uffef]+")  # full-width Latin, half-width kana and Hangul
UNSPACED_RUN = regex.compile(
    rf"(?V1)[[{BM25_UNSPACED}]&&[\p{{L}}\p{{N}}]][[{BM25_UNSPACED}\p{{M}}]&&[\p{{L}}\p{{N}}\p{{M}}]]*"
)
CHARACTER = regex.compile(r".\p{M}*")
# Unicode blocks of scripts whose words contain combining marks
MARKED_BLOCKS = ((0x590, 0x1AB0), (0x1B00, 0x1DC0), (0xA800, 0xAC00), (0x10A00, 0x12000))
COMBINING_MARKS = "".join(
    chr(code) for block in MARKED_BLOCKS for code in range(*block) if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
TOKEN_PATTERN = r"(?u)\b\w\w+\b"  # bm25s' own pattern: a mark ends a word
MARKED_TOKEN_PATTERN = rf"(?u)\w[\w{COMBINING_MARKS}]+"  # equal to TOKEN_PATTERN on texts without marks, but slower
ANY_MARK = re.compile(f"[{COMBINING_MARKS}]")


class BM25:
    """Lucene's variant with k1 0.9 and b 0.4 over title and text, as in BEIR's baselines.

    English stop words are left out, and English endings removed. Scripts without spaces are split as by Lucene's
    CJKAnalyzer (see split_unspaced). Words of other languages are not changed.
    """

    def __init__(self) -> None:
        self._stemmer = Stemmer.Stemmer("english")

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Write `folder`/bm25, which appears complete or not at all. Raises DataError if the corpus has no words."""
        target, temporary = folder / "bm25", folder / "bm25.part"
        if target.exists():
            advance(len(documents), earlier=True)
            return
        shutil.rmtree(temporary, ignore_errors=True)
        vocabulary: dict[str, int] = {}
        tokens: list[np.ndarray] = []
        for start in range(0, len(documents), TOKENIZE_BLOCK):
            block = self._tokenize([document.contents for document in documents[start : start + TOKENIZE_BLOCK]])
            words = sorted(block.vocab, key=block.vocab.__getitem__)
            ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], dtype=np.int32)
            tokens += [ids[np.array(block_ids, dtype=np.int64)] for block_ids in block.ids]
            advance(len(block.ids))
        if not vocabulary:
            raise DataError(
                "BM25 cannot index the corpus, since it contains only stop words. Leave BM25 out (evaluate: --no-bm25; "
                "adapt: --set retrieve.sources=[student]; generated queries: --set generate.round_trip=student)."
            )
        retriever = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        retriever.index((tokens, vocabulary), show_progress=False)
        retriever.save(temporary)
        os.replace(temporary, target)

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """See Engine.search. Documents that share no word with the query are left out."""
        retriever = bm25s.BM25.load(folder / "bm25", mmap=True)
        for query in queries:
            positions, scores = retriever.retrieve(self._tokenize([query]), k=min(k, documents), show_progress=False)
            kept = [(int(i), float(score)) for i, score in zip(positions[0], scores[0], strict=True) if score > 0]
            advance(documents)
            yield [i for i, _ in kept], [score for _, score in kept]

    def _tokenize(self, texts: Sequence[str]) -> Any:
        texts = [text if text.isascii() else split_unspaced(text) for text in texts]
        pattern = (
            MARKED_TOKEN_PATTERN
            if any(not text.isascii() and ANY_MARK.search(text) for text in texts)
            else TOKEN_PATTERN
        )
        return bm25s.tokenize(texts, token_pattern=pattern, stopwords="en", stemmer=self._stemmer, show_progress=False)


def split_unspaced(text: str) -> str:
    """Return the text with overlapping pairs of characters as words if its script has no spaces: 東京都 is 東京, 京都.

    A single character stays alone. Full-width and half-width forms become the usual ones.
    """
    text = WIDE_FORMS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return UNSPACED_RUN.sub(lambda match: f" {' '.join(_bigrams(match[0]))} ", text)


def _bigrams(run: str) -> list[str]:
    characters = CHARACTER.findall(unicodedata.normalize("NFC", run))
    if len(characters) > 1:
        return [first + second for first, second in itertools.pairwise(characters)]
    return [f"{run}_" if len(run) == 1 else run]  # bm25s drops words of one character, so `_` is added

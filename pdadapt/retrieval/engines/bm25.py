"""BM25, through bm25s: the baseline that every retriever should be measured against."""

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

BLOCK = 10_000  # documents tokenised at once
WORDS_VERSION = 2  # of what a word is: an index serves again where it is the same

# Scripts that put no space between words, and Hangul, which hangs its particles onto them.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}\p{Line_Break=Complex_Context}ー"
WIDE = regex.compile(r"[\uff01-\uffef]+")  # full-width Latin, half-width kana and Hangul
RUN = regex.compile(rf"(?V1)[[{UNSPACED}]&&[\p{{L}}\p{{N}}]][[{UNSPACED}\p{{M}}]&&[\p{{L}}\p{{N}}\p{{M}}]]*")
CHARACTER = regex.compile(r".\p{M}*")
MARKED = ((0x590, 0x1AB0), (0x1B00, 0x1DC0), (0xA800, 0xAC00), (0x10A00, 0x12000))  # scripts with marks within words
MARKS = "".join(
    chr(code) for block in MARKED for code in range(*block) if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
WORD = r"(?u)\b\w\w+\b"  # as bm25s has it: a mark ends a word
MARKED_WORD = rf"(?u)\w[\w{MARKS}]+"  # the same where there are no marks, and slower
ANY_MARK = re.compile(f"[{MARKS}]")


class BM25:
    """Lucene's variant with k1 0.9 and b 0.4 over title and text, as BEIR's baselines have it.

    Words are English ones: stop words are left out, and endings cut off. Scripts without spaces are split as Lucene's
    CJKAnalyzer does (see split_unspaced); words of other scripts are taken as they are.
    """

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
        texts = [text if text.isascii() else split_unspaced(text) for text in texts]
        pattern = MARKED_WORD if any(not text.isascii() and ANY_MARK.search(text) for text in texts) else WORD
        return bm25s.tokenize(texts, token_pattern=pattern, stopwords="en", stemmer=self._stemmer, show_progress=False)


def split_unspaced(text: str) -> str:
    """The text with overlapping pairs of characters for words, where its script puts no space between words: 東京都 is
    東京 and 京都. A character alone stays so. Full-width and half-width forms become the usual ones.
    """
    text = WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return RUN.sub(lambda found: f" {' '.join(_pairs(found[0]))} ", text)


def _pairs(run: str) -> list[str]:
    characters = CHARACTER.findall(unicodedata.normalize("NFC", run))
    if len(characters) > 1:
        return [first + second for first, second in itertools.pairwise(characters)]
    return [f"{run}_" if len(run) == 1 else run]  # bm25s drops words of one letter, and `_` is one more

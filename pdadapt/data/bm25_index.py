"""BM25 by bm25s: how texts are split into words, and the weights of a corpus' words."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import bm25s
import numpy as np
import regex
import Stemmer

from pdadapt.data.corpus import Document
from pdadapt.errors import DataError

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
STEMMER = Stemmer.Stemmer("english")


def index_words(documents: Sequence[Document], advance: Callable[[int], None]) -> bm25s.BM25:
    """Return the BM25 index of the documents' titles and texts: Lucene's variant with k1 0.9 and b 0.4.

    Raises DataError if the documents have no words.
    """
    vocabulary: dict[str, int] = {}
    tokens: list[np.ndarray] = []
    for start in range(0, len(documents), TOKENIZE_BLOCK):
        block = split_words([document.contents for document in documents[start : start + TOKENIZE_BLOCK]])
        words = sorted(block.vocab, key=block.vocab.__getitem__)
        ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], dtype=np.int32)
        tokens += [ids[np.array(block_ids, dtype=np.int64)] for block_ids in block.ids]
        advance(len(block.ids))
    if not vocabulary:
        raise DataError(
            "BM25 cannot index the corpus, since it contains only stop words. Leave BM25 out (evaluate: --no-bm25; "
            "adapt: --set retrieve.sources=[student]; generated queries: --set generate.round_trip=student)."
        )
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index((tokens, vocabulary), show_progress=False)
    return index


def split_words(texts: Sequence[str]) -> Any:
    """Return the words of the texts as bm25s' Tokenized. Scripts without spaces are split by split_unspaced."""
    texts = [text if text.isascii() else split_unspaced(text) for text in texts]
    pattern = (
        MARKED_TOKEN_PATTERN if any(not text.isascii() and ANY_MARK.search(text) for text in texts) else TOKEN_PATTERN
    )
    return bm25s.tokenize(texts, token_pattern=pattern, stopwords="en", stemmer=STEMMER, show_progress=False)


def words_of(text: str) -> list[str]:
    """Return the words of one text in their order, repeated as in the text."""
    found = split_words([text])
    words = {number: word for word, number in found.vocab.items()}
    return [words[number] for number in found.ids[0]]


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

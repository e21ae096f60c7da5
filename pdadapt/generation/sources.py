"""Which documents queries are written about: a sample without copies and boilerplate, spread over the corpus."""

from __future__ import annotations

import os
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from pdadapt.data.corpus import Document
from pdadapt.data.words import split_words, word_limit_factor
from pdadapt.retrieval.engines.base import Advance
from pdadapt.students.encoding import document_batches

READ = 2_000  # characters of a document that are looked at
FEWEST_WORDS = 8
SHINGLE = 5  # words
KEYS = 8  # of a document: its shingles of the lowest hashes, of which a copy has some too
ALIKE = 0.8  # of the shingles of two documents, that makes one a copy of the other
MANY = 10  # documents, in which a shingle is boilerplate
SAMPLED, MOST_SAMPLED = 20, 50_000  # documents for each query wanted; in all, but for the next line
LEAST_SAMPLED = 4  # documents for each query wanted, since not every query is kept
MOST_CLUSTERS = 300
PART = 1_024  # documents, whose vectors make one file


def draw(documents: int, wanted: int, seed: int) -> list[int]:
    """Positions of the documents that are looked at for so many queries, in the corpus' order."""
    most = max(min(SAMPLED * wanted, MOST_SAMPLED), LEAST_SAMPLED * wanted)
    return sorted(random.Random(seed).sample(range(documents), min(documents, most)))


def left_out(texts: Iterable[str], advance: Callable[[int], object] = lambda number: None) -> list[str | None]:
    """Why each document is none to write about; None where it is one.

    `too short`; `boilerplate`: most of its shingles (runs of five words) stand in more than ten documents; `near copy`
    of one before it, with which it shares four fifths of their shingles. advance: told of each text that was read.
    """
    short: list[bool] = []
    shingled: list[np.ndarray] = []
    for text in texts:
        found = split_words(text[:READ])
        short.append(len(found) < FEWEST_WORDS * word_limit_factor(found))
        shingled.append(shingles(found))
        advance(1)
    common = share_common(shingled)
    holders: dict[int, list[int]] = {}  # documents by their keys
    reasons: list[str | None] = []
    for number, own in enumerate(shingled):
        keys = own[:KEYS].tolist()
        like = Counter(other for key in keys for other in holders.get(key, ()))
        if short[number]:
            reasons.append("too short")
        elif common[number] > 0.5:
            reasons.append("boilerplate")
        elif like and overlap(own, shingled[like.most_common(1)[0][0]]) >= ALIKE:
            reasons.append("near copy")
        else:
            reasons.append(None)
            for key in keys:
                holders.setdefault(key, []).append(number)
    return reasons


def shingles(found: Sequence[str]) -> np.ndarray:
    """Hashes of a text's runs of five words, each once, in ascending order."""
    size = SHINGLE * word_limit_factor(found)
    runs = (" ".join(found[start : start + size]) for start in range(len(found) - size + 1))
    return np.unique(np.array([zlib.crc32(run.encode()) for run in runs], dtype=np.uint32))


def share_common(shingled: Sequence[np.ndarray]) -> list[float]:
    """Which share of each document's shingles stands in MANY others too."""
    every = np.sort(np.concatenate(shingled)) if shingled else np.empty(0, dtype=np.uint32)
    common = np.unique(every[MANY:][every[MANY:] == every[: max(0, len(every) - MANY)]])
    if not len(common):
        return [0.0] * len(shingled)
    at = [common[np.searchsorted(common, own).clip(max=len(common) - 1)] == own for own in shingled]
    return [float(found.mean()) if len(found) else 0.0 for found in at]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The Jaccard similarity of two documents' shingles."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def embed(
    student: Any,
    documents: Sequence[Document],
    positions: Sequence[int],
    folder: Path,
    batch_tokens: int | None,
    advance: Advance,
) -> np.ndarray:
    """(N, dim) float32 of the documents at these N positions: the mean of the token embeddings, of unit length.

    The vectors of every PART documents are kept in `folder`, so that a killed call goes on.
    """
    parts = []
    for start in range(0, len(positions), PART):
        part, file = positions[start : start + PART], folder / f"vectors-{start // PART}.npy"
        if file.exists():
            advance(len(part), earlier=True)
        else:
            means: dict[int, torch.Tensor] = {}
            texts = [documents[position].contents for position in part]
            for rows, matrices in document_batches(student, texts, batch_tokens):
                means.update((row, matrix.float().mean(0)) for row, matrix in zip(rows, matrices, strict=True))
                advance(len(rows))
            temporary = file.with_suffix(".part")
            with open(temporary, "wb") as content:
                np.save(content, torch.stack([means[row] for row in range(len(part))]).cpu().numpy())
            os.replace(temporary, file)
        parts.append(np.load(file))
    vectors = np.concatenate(parts)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


def spread(vectors: np.ndarray, clusters: int, seed: int) -> list[int]:
    """The rows of (N, dim) vectors, one of each cluster in turn, until all have had theirs."""
    found = MiniBatchKMeans(min(clusters, MOST_CLUSTERS, len(vectors)), random_state=seed, n_init=3).fit_predict(
        vectors
    )
    rows = list(range(len(vectors)))
    random.Random(seed).shuffle(rows)
    taken: Counter[int] = Counter()
    turns = {}
    for row in rows:
        turns[row] = taken[found[row]]
        taken[found[row]] += 1
    return sorted(rows, key=turns.__getitem__)

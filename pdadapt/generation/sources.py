"""Which documents queries are written about: a sample without copies and boilerplate, spread over the corpus."""

from __future__ import annotations

import os
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from pdadapt.corpus import Document
from pdadapt.engines import Advance
from pdadapt.generation.words import words
from pdadapt.students.encoding import document_batches

READ = 2_000  # characters of a document that are looked at
FEWEST_WORDS = 8
SHINGLE = 5  # words
KEYS = 8  # of a document: its shingles of the lowest hashes, of which a copy has some too
ALIKE = 0.8  # of the shingles of two documents, that makes one a copy of the other
MANY = 10  # documents, in which a shingle is boilerplate
SAMPLED, MOST_SAMPLED = 20, 50_000  # documents for each query wanted; in all
MOST_CLUSTERS = 300
PART = 1_024  # documents, whose vectors make one file


def draw(documents: int, wanted: int, seed: int) -> list[int]:
    """Positions of the documents that are looked at for so many queries, in the corpus' order."""
    return sorted(random.Random(seed).sample(range(documents), min(documents, SAMPLED * wanted, MOST_SAMPLED)))


def left_out(texts: Iterable[str]) -> list[str | None]:
    """Why each document is none to write about; None where it is one.

    `too short`; `boilerplate`: most of its shingles (runs of five words) stand in more than ten documents; `near copy`
    of one before it, with which it shares four fifths of their shingles.
    """
    read = [words(text[:READ]) for text in texts]
    shingled = [shingles(found) for found in read]
    common = share_common(shingled)
    holders: dict[int, list[int]] = {}  # documents by their keys
    reasons: list[str | None] = []
    for number, (found, own) in enumerate(zip(read, shingled, strict=True)):
        keys = own[:KEYS].tolist()
        like = Counter(other for key in keys for other in holders.get(key, ()))
        if len(found) < FEWEST_WORDS:
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
    runs = (" ".join(found[start : start + SHINGLE]) for start in range(len(found) - SHINGLE + 1))
    return np.unique(np.array([zlib.crc32(run.encode()) for run in runs], dtype=np.uint32))


def share_common(shingled: Sequence[np.ndarray]) -> list[float]:
    """Which share of each document's shingles stands in MANY others too."""
    if not shingled:
        return []
    _, where, documents = np.unique(np.concatenate(shingled), return_inverse=True, return_counts=True)
    common = np.split((documents > MANY)[where], np.cumsum([len(own) for own in shingled])[:-1])
    return [float(found.mean()) if len(found) else 0.0 for found in common]


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

"""Choose the documents to write queries about: a sample without copies and boilerplate, spread over clusters."""

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

READ_CHARACTERS = 2_000  # so many characters at the start of a document are compared
MIN_DOCUMENT_WORDS = 8
SHINGLE_WORDS = 5  # a shingle is a run of so many words
KEYS_PER_DOCUMENT = 8  # the shingles with the lowest hashes; copies of a document have some of them too
COPY_OVERLAP = 0.8  # documents with this Jaccard similarity of shingles are copies
BOILERPLATE_DOCUMENTS = 10  # a shingle in more documents than this is boilerplate
SAMPLED_PER_QUERY, MAX_SAMPLED = 20, 50_000  # documents sampled per query to write, and at most
MIN_SAMPLED_PER_QUERY = 4  # takes precedence over MAX_SAMPLED, since not every query is kept
MAX_CLUSTERS = 300
VECTORS_PER_FILE = 1_024


def draw_documents(documents: int, wanted: int, seed: int) -> list[int]:
    """Return the positions of a sample of the documents, in order. wanted: the number of queries to write."""
    most = max(min(SAMPLED_PER_QUERY * wanted, MAX_SAMPLED), MIN_SAMPLED_PER_QUERY * wanted)
    return sorted(random.Random(seed).sample(range(documents), min(documents, most)))


def reasons_left_out(texts: Iterable[str], advance: Callable[[int], object] = lambda number: None) -> list[str | None]:
    """Return, for each document, the reason not to write about it, or None.

    `too short`: fewer than MIN_DOCUMENT_WORDS words. `boilerplate`: most of its shingles are in more than
    BOILERPLATE_DOCUMENTS documents. `near copy`: its overlap with an earlier document is at least COPY_OVERLAP.
    advance: called with 1 for each text.
    """
    short: list[bool] = []
    shingled: list[np.ndarray] = []
    for text in texts:
        text_words = split_words(text[:READ_CHARACTERS])
        short.append(len(text_words) < MIN_DOCUMENT_WORDS * word_limit_factor(text_words))
        shingled.append(shingles(text_words))
        advance(1)
    common = share_common(shingled)
    holders: dict[int, list[int]] = {}  # the documents with a key
    reasons: list[str | None] = []
    for number, hashes in enumerate(shingled):
        keys = hashes[:KEYS_PER_DOCUMENT].tolist()
        similar = Counter(other for key in keys for other in holders.get(key, ()))
        if short[number]:
            reasons.append("too short")
        elif common[number] > 0.5:
            reasons.append("boilerplate")
        elif similar and overlap(hashes, shingled[similar.most_common(1)[0][0]]) >= COPY_OVERLAP:
            reasons.append("near copy")
        else:
            reasons.append(None)
            for key in keys:
                holders.setdefault(key, []).append(number)
    return reasons


def shingles(text_words: Sequence[str]) -> np.ndarray:
    """Return the distinct hashes (uint32) of a text's runs of SHINGLE_WORDS words, in ascending order."""
    size = SHINGLE_WORDS * word_limit_factor(text_words)
    runs = (" ".join(text_words[start : start + size]) for start in range(len(text_words) - size + 1))
    return np.unique(np.array([zlib.crc32(run.encode()) for run in runs], dtype=np.uint32))


def share_common(shingled: Sequence[np.ndarray]) -> list[float]:
    """Return the share of each document's shingles that are in more than BOILERPLATE_DOCUMENTS documents."""
    hashes = np.sort(np.concatenate(shingled)) if shingled else np.empty(0, dtype=np.uint32)
    later = hashes[BOILERPLATE_DOCUMENTS:]
    common = np.unique(later[later == hashes[: len(later)]])
    if not len(common):
        return [0.0] * len(shingled)
    are_common = [common[np.searchsorted(common, each).clip(max=len(common) - 1)] == each for each in shingled]
    return [float(mask.mean()) if len(mask) else 0.0 for mask in are_common]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Jaccard similarity of two documents' shingles."""
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
    """Return the mean token embeddings (N, dim) float32 of the documents at N positions, scaled to unit length.

    The vectors of every VECTORS_PER_FILE documents are kept in a file of `folder`. After a kill, the same call uses
    them.
    """
    parts = []
    for start in range(0, len(positions), VECTORS_PER_FILE):
        part, file = positions[start : start + VECTORS_PER_FILE], folder / f"vectors-{start // VECTORS_PER_FILE}.npy"
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


def spread_over_clusters(vectors: np.ndarray, clusters: int, seed: int) -> list[int]:
    """Return the rows of (N, dim) vectors in an order that takes one row of each cluster in turn."""
    kmeans = MiniBatchKMeans(min(clusters, MAX_CLUSTERS, len(vectors)), random_state=seed, n_init=3)
    cluster_of = kmeans.fit_predict(vectors)
    rows = list(range(len(vectors)))
    random.Random(seed).shuffle(rows)
    taken: Counter[int] = Counter()
    turns = {}
    for row in rows:
        turns[row] = taken[cluster_of[row]]
        taken[cluster_of[row]] += 1
    return sorted(rows, key=turns.__getitem__)

"""The protocol of an engine, which makes a corpus searchable on disk and searches it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pdadapt.data.corpus import Document

Hits = tuple[list[int], list[float]]  # positions in the corpus and their scores, best first


class Advance(Protocol):
    """Reports progress. Progress.task yields such a function."""

    def __call__(self, units: int, /, *, note: str = "", earlier: bool = False) -> None:
        """Add units that are done. note: shown beside the bar. earlier: an earlier call did them."""


class Engine(Protocol):
    """Retrieves documents: a model with its index, or BM25."""

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Make the documents searchable in `folder`, which exists. Interrupted indexing is continued.

        advance: called with numbers of documents.
        """

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """Yield the k best documents of each query.

        documents: the size of the corpus. advance: called with numbers of (query, document) scores.
        """

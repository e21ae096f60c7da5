"""What an engine is: a corpus made searchable on disk, and searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pdadapt.data.corpus import Document

Advance = Callable[..., None]
Hits = tuple[list[int], list[float]]  # positions in the corpus, and their scores, best first


class Engine(Protocol):
    """What retrieves: a model with its index, or BM25."""

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Make the documents searchable under `folder`, which exists; what a killed call left there is gone on with.

        advance: told how many documents more are done (`earlier=True`: by a call before this one).
        """

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """For each query its k best of so many documents.

        advance: told how many (query, document) scores more are done.
        """

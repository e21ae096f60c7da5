"""The paper's own engine: colbert-ai's indexing and PLAID search, of a ColBERT in Stanford's form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sentence_transformers import MultiVectorEncoder

from pdadapt.data.corpus import Document
from pdadapt.errors import ModelError
from pdadapt.retrieval.engines.base import Advance, Hits
from pdadapt.retrieval.engines.environment import work
from pdadapt.runtime.files import write_atomic
from pdadapt.students.stanford import save_stanford


class Colbert:
    """colbert-ai encodes, clusters and searches; it is handed files, and its answer is a file."""

    def __init__(self, model: MultiVectorEncoder, bits: int):
        """bits: of each dimension's residual; the paper's indexes have 2.

        Raises ModelError when colbert-ai cannot pack them into bytes.
        """
        dimensions: Any = model.get_embedding_dimension()
        if dimensions % (8 * bits):
            raise ModelError(f"retrieve.bits={bits}: colbert-ai needs dimensions by {8 * bits}; this has {dimensions}.")
        self.model = model
        self.bits = bits

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Leaves `folder`/checkpoint, collection.tsv and index.

        Raises ModelError when the student is not one that colbert-ai computes alike.
        """
        checkpoint, collection, done = folder / "checkpoint", folder / "collection.tsv", folder / "colbert.done"
        if done.exists():
            advance(len(documents), earlier=True)
            return
        if not checkpoint.exists():
            save_stanford(self.model, checkpoint)
        if not collection.exists():
            write_atomic(collection, _lines(document.contents for document in documents))
        arguments = ["index", checkpoint, collection, folder, self.bits]
        work("colbert", arguments, folder / "colbert.log", advance)
        write_atomic(done, "")

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """colbert-ai's order; fewer than k where it finds fewer."""
        asked, answered = folder / "queries.tsv", folder / "ranking.tsv"
        write_atomic(asked, _lines(queries))
        arguments = ["search", folder, asked, min(k, documents), answered]
        work("colbert", arguments, folder / "colbert.log", lambda done: advance(done * documents))
        with open(answered, encoding="utf-8") as lines:
            rows = (line.split() for line in lines)
            found = {
                int(query): [(int(position), float(score)) for _, position, score in hits]
                for query, hits in groupby(rows, key=lambda row: row[0])
            }
        for number in range(len(queries)):
            hits = found.get(number, [])
            yield [position for position, _ in hits], [score for _, score in hits]


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Number and text a line, whatever line breaks and tabs the text has."""
    return (f"{number}\t{' '.join(text.split())}\n" for number, text in enumerate(texts))

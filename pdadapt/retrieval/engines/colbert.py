"""The paper's own engine: colbert-ai's indexing and PLAID search. It needs a ColBERT that colbert-ai can load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sentence_transformers import MultiVectorEncoder

from pdadapt.data.corpus import Document
from pdadapt.errors import ModelError
from pdadapt.retrieval.engines.base import Advance, Hits
from pdadapt.retrieval.engines.environment import run_worker
from pdadapt.runtime.files import write_atomic
from pdadapt.students.stanford import save_stanford


class Colbert:
    """Lets colbert-ai encode, cluster and search, in an environment of its own. Data is exchanged in files."""

    def __init__(self, model: MultiVectorEncoder, bits: int):
        """Prepare the engine.

        bits: per dimension of the residuals; the paper's indexes have 2.
        Raises ModelError if colbert-ai cannot pack the residuals of this student into bytes.
        """
        dimensions: Any = model.get_embedding_dimension()
        if dimensions % (8 * bits):
            raise ModelError(
                f"retrieve.bits={bits}: colbert-ai needs a multiple of {8 * bits} dimensions, but this student has "
                f"{dimensions}. Lower retrieve.bits, or use retrieve.engine=exact or plaid."
            )
        self.model = model
        self.bits = bits

    def index(self, documents: Sequence[Document], folder: Path, advance: Advance) -> None:
        """Write checkpoint, collection.tsv and index into `folder`.

        Raises ModelError if colbert-ai would compute other embeddings than the student.
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
        run_worker("colbert", arguments, folder / "colbert.log", advance)
        write_atomic(done, "")

    def search(self, queries: Sequence[str], folder: Path, documents: int, k: int, advance: Advance) -> Iterator[Hits]:
        """See Engine.search. colbert-ai may find fewer than k documents."""
        queries_file, ranking_file = folder / "queries.tsv", folder / "ranking.tsv"
        write_atomic(queries_file, _lines(queries))
        arguments = ["search", folder, queries_file, min(k, documents), ranking_file]
        run_worker("colbert", arguments, folder / "colbert.log", lambda done: advance(done * documents))
        with open(ranking_file, encoding="utf-8") as lines:
            rows = (line.split() for line in lines)
            hits_by_query = {
                int(query): [(int(position), float(score)) for _, position, score in hits]
                for query, hits in groupby(rows, key=lambda row: row[0])
            }
        for number in range(len(queries)):
            ranked = hits_by_query.get(number, [])
            yield [position for position, _ in ranked], [score for _, score in ranked]


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield lines of number and text. Line breaks and tabs in a text become spaces."""
    return (f"{number}\t{' '.join(text.split())}\n" for number, text in enumerate(texts))

"""Split long documents into passages. Passages are indexed and judged; a document ranks by its best passage (MaxP)."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from pdadapt.data.corpus import Corpus, Dataset, DatasetSource, Document
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import Ranking
from pdadapt.errors import DataError

NON_SPACE = re.compile(r"\S+")


class Passages(Sequence[Document]):
    """The passages of documents, as a sequence of documents.

    A passage is a window of `words` words of a document's text, with the document's title. Neighbouring passages share
    `overlap` words. The id of a passage is DOC_ID#NUMBER, counted from 0. Texts are read from the documents on access.
    """

    def __init__(self, documents: Sequence[Document], words: int, overlap: int):
        self.documents = documents
        self.words = words
        self.overlap = overlap
        self._last: tuple[int, Document, list[tuple[int, int]]] | None = None
        """The document that was read last: (its position, the document, its windows)."""
        self._first = array("Q", [0])
        """The position of each document's first passage, and at the end the number of all passages."""
        for document in documents:
            self._first.append(self._first[-1] + len(self._windows(document)))

    def __len__(self) -> int:
        return self._first[-1]

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        row = bisect_right(self._first, position) - 1
        if self._last is None or self._last[0] != row:
            document = self.documents[row]
            self._last = row, document, self._windows(document)
        _, document, windows = self._last
        number = position - self._first[row]
        start, end = windows[number]
        return Document(f"{document.doc_id}#{number}", document.title, document.text[start:end])

    def _windows(self, document: Document) -> list[tuple[int, int]]:
        """(start, end) of each passage as character positions in the text. There is at least one passage."""
        spans = [match.span() for match in NON_SPACE.finditer(document.text)]
        step = self.words - self.overlap
        firsts = range(0, max(1, len(spans) - self.overlap), step)
        groups = [spans[first : first + self.words] for first in firsts]
        return [(group[0][0], group[-1][1]) if group else (0, 0) for group in groups]


def split_documents(dataset: Dataset, text: str) -> Dataset:
    """The dataset with passages in place of documents.

    text: the value of --passages, `words=180,overlap=30`. Raises DataError if it has another form.
    """
    try:
        options = {key: int(value) for key, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        options = {}
    words, overlap = options.get("words", 0), options.get("overlap", 0)
    if not set(options) <= {"words", "overlap"} or not 0 <= overlap < words:
        raise DataError(
            f"--passages {text!r} is not of the form words=N,overlap=M with M less than N. Write words=180,overlap=30, "
            "for example."
        )
    unsplit = dataset.corpus
    source = dataset.source and dataset.source._replace(passages=text)
    return replace(dataset, corpus=Corpus(Passages(unsplit.documents, words, overlap), unsplit=unsplit), source=source)


def reload_dataset(source: DatasetSource) -> Dataset:
    """Read a dataset again from its source. Raises DataError if its files no longer exist."""
    dataset = load_dataset(source.corpus, Path(source.queries) if source.queries else None, source.split)
    return split_documents(dataset, source.passages) if source.passages else dataset


def document_id_of(passage_id: str) -> str:
    """The id of the document that a passage belongs to."""
    return passage_id.rpartition("#")[0]


def rank_by_best_passage(ranking: Ranking, k: int) -> Ranking:
    """The top k documents of a ranking of passages (MaxP). A document's score is that of its best passage."""
    documents: Ranking = {}
    for query_id, ranked in ranking.items():
        best: dict[str, float] = {}
        for passage_id, score in ranked:
            best.setdefault(document_id_of(passage_id), score)
        documents[query_id] = list(best.items())[:k]
    return documents

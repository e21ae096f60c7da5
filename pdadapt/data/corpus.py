"""Documents, queries and datasets.

Ids are strings. A document's text for every model, student or teacher, is `Document.contents`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pdadapt.data.notices import Notices
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError

Queries = dict[str, str]  # query_id -> text


class Document(NamedTuple):
    doc_id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """Title and text, joined the one way that students and teachers both see."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


class Corpus:
    """Documents in the order of their file, found again by id.

    `documents` may be a sequence that reads a document from its file when asked; of the ids a hash is kept.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        id_hashes: Sequence[int] | np.ndarray | None = None,
        unsplit: Corpus | None = None,
    ):
        """id_hashes: hash_id of each document's id, in order; None: the documents are asked for their ids.

        unsplit: of passages, the documents that they were split from.
        """
        self.documents = documents
        self.unsplit = unsplit or self
        if id_hashes is None:
            id_hashes = array("Q", (hash_id(document.doc_id) for document in documents))
        hashes = np.asarray(id_hashes, dtype=np.uint64)
        self._order = hashes.argsort(kind="stable")
        self._sorted = hashes[self._order]

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __contains__(self, doc_id: str) -> bool:
        return any(document.doc_id == doc_id for document in self._candidates(doc_id))

    def __getitem__(self, doc_id: str) -> Document:
        for document in self._candidates(doc_id):
            if document.doc_id == doc_id:
                return document
        raise KeyError(doc_id)

    def _candidates(self, doc_id: str) -> Iterator[Document]:
        """Documents whose id has the same hash: nearly always the one, or none."""
        wanted = np.uint64(hash_id(doc_id))
        first, last = np.searchsorted(self._sorted, wanted, "left"), np.searchsorted(self._sorted, wanted, "right")
        return (self.documents[int(position)] for position in self._order[first:last])

    def missing_ids(self, doc_ids: Iterable[str]) -> list[str]:
        """Those of the ids that no document has; the documents are not read."""
        ids = list(doc_ids)
        hashes = np.fromiter(map(hash_id, ids), np.uint64, len(ids))
        places = np.searchsorted(self._sorted, hashes).clip(max=len(self._sorted) - 1)
        found = self._sorted[places] == hashes if len(self._sorted) else np.zeros(len(ids), bool)
        return [doc_id for doc_id, known in zip(ids, found, strict=True) if not known]

    def repeated_id(self) -> int | None:
        """The position of the first document whose id another had before it; None: all ids differ."""
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        repeated = []
        for rank in same:
            before, position = int(self._order[rank]), int(self._order[rank + 1])
            if self.documents[before].doc_id == self.documents[position].doc_id:
                repeated.append(position)
        return min(repeated, default=None)

    @property
    def texts_differ(self) -> bool:
        """Whether two documents differ: else there is no order of them to be learned."""
        first = self.documents[0].contents.split()
        return any(document.contents.split() != first for document in self)

    @cached_property
    def fingerprint(self) -> str:
        """Of all documents, in order."""
        return fingerprint((document.doc_id, document.contents) for document in self)

    def sample(self, most: int) -> list[str]:
        """Contents of at most so many documents, spread evenly."""
        step = max(1, len(self) // most)
        return [self.documents[i].contents for i in range(0, len(self), step)][:most]


def hash_id(doc_id: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(doc_id.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class DatasetSource(NamedTuple):
    """Where a dataset is read from: what load_dataset, and passages.split_documents, were told."""

    corpus: str
    queries: str | None = None
    split: str = "test"
    passages: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A corpus with the queries to adapt on, and, where there are judgments, the queries to test on."""

    name: str
    corpus: Corpus
    queries: Queries  # their text is all that adaptation reads
    test_queries: Queries
    qrels: Qrels  # of the test queries
    read_train_qrels: Callable[[], Qrels] = dict  # of some of the queries; called by supervised training only
    queries_from: str = ""  # where the queries were found
    qrels_from: str = ""
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)  # to open-domain questions, by query id
    lengths: dict[str, int] = field(default_factory=dict)  # query_length, document_length that the field measures with
    source: DatasetSource | None = None
    notices: Notices = field(default_factory=Notices, compare=False)  # of what was left out; may grow (train_qrels)

    @cached_property
    def train_qrels(self) -> Qrels:
        """Without blank documents."""
        blank = self.notices.blank["document"]
        return {
            query_id: {doc_id: grade for doc_id, grade in grades.items() if doc_id not in blank}
            for query_id, grades in self.read_train_qrels().items()
        }

    def without_blank(self, ranking: Mapping[str, list[tuple[str, float]]]) -> dict[str, list[tuple[str, float]]]:
        """A run, as of another system, without the queries and documents that were left out."""
        gone = self.notices.blank["query"] - self.queries.keys() - self.test_queries.keys()
        blank = self.notices.blank["document"]
        kept = {
            query_id: [entry for entry in ranked if entry[0] not in blank]
            for query_id, ranked in ranking.items()
            if query_id not in gone
        }
        return {query_id: ranked for query_id, ranked in kept.items() if ranked}

    @property
    def summary(self) -> str:
        """What was found, and where."""
        whole = self.corpus.unsplit
        passages = f" in {len(self.corpus):,} passages" if whole is not self.corpus else ""
        found = [f"{self.name}: {len(whole):,} documents{passages}"]
        if self.queries:
            found.append(f"{len(self.queries):,} queries to adapt on (the text of {self.queries_from})")
        if self.test_queries:
            found.append(f"{len(self.test_queries):,} to test on ({self.qrels_from})")
        return "; ".join(found) + "."


def fingerprint(texts: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (id, text) in order: 16 hex digits."""
    digest = hashlib.sha256()
    for key, text in texts:
        digest.update(f"{key}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def data_hashes(dataset: Dataset, queries: Queries) -> dict[str, str]:
    """What tells whether a run goes on with the data that it was begun with; the whole corpus is read."""
    return {"corpus_sha256": dataset.corpus.fingerprint, "queries_sha256": fingerprint(queries.items())}


def relevant_documents(dataset: Dataset, queries: Queries) -> dict[str, list[str]]:
    """What people labeled relevant to those of the queries that have labels; reads the training qrels.

    Raises DataError when the corpus does not hold such a document.
    """
    graded = ((query_id, dataset.train_qrels.get(query_id, {})) for query_id in queries)
    relevant = {
        query_id: found for query_id, grades in graded if (found := [doc for doc, grade in grades.items() if grade > 0])
    }
    unknown = [doc_id for doc_ids in relevant.values() for doc_id in doc_ids if doc_id not in dataset.corpus]
    if unknown:
        raise DataError(
            f"The training qrels name document {unknown[0]!r}, which the corpus does not hold; remove their line, or "
            "give the corpus that they are of."
        )
    return relevant

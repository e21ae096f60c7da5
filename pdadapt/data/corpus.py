"""Documents, corpora and datasets in memory.

Ids are strings. Every model, student or teacher, reads `Document.contents` as the text of a document.
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
    """One document of a corpus, or one passage of a document (see `passages.py`)."""

    doc_id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """Title and text, joined by a space. Students and teachers read the same string."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


class Corpus:
    """Documents in file order, with access by id.

    `documents` may be a sequence that reads each document from disk on access. The corpus keeps only a 64-bit hash of
    each id in memory.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        id_hashes: Sequence[int] | np.ndarray | None = None,
        unsplit: Corpus | None = None,
    ):
        """id_hashes: `hash_id` of each document's id, in order. None computes them from the documents.
        unsplit: the corpus that these passages were split from. None if the documents are not passages.
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
        """Documents whose id has the same hash. With few exceptions this is one document or none."""
        key = np.uint64(hash_id(doc_id))
        first, last = np.searchsorted(self._sorted, key, "left"), np.searchsorted(self._sorted, key, "right")
        return (self.documents[int(position)] for position in self._order[first:last])

    def missing_ids(self, doc_ids: Iterable[str]) -> list[str]:
        """Those of the ids that no document has. This compares hashes and reads no document."""
        ids = list(doc_ids)
        hashes = np.fromiter(map(hash_id, ids), np.uint64, len(ids))
        places = np.searchsorted(self._sorted, hashes).clip(max=len(self._sorted) - 1)
        is_known = self._sorted[places] == hashes if len(self._sorted) else np.zeros(len(ids), bool)
        return [doc_id for doc_id, known in zip(ids, is_known, strict=True) if not known]

    def repeated_id(self) -> int | None:
        """The position of the first document that repeats an earlier id. None if all ids differ."""
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        repeated = []
        for rank in same:
            before, position = int(self._order[rank]), int(self._order[rank + 1])
            if self.documents[before].doc_id == self.documents[position].doc_id:
                repeated.append(position)
        return min(repeated, default=None)

    @property
    def texts_differ(self) -> bool:
        """Whether at least two documents have different texts. Otherwise no ranking can be learned."""
        first = self.documents[0].contents.split()
        return any(document.contents.split() != first for document in self)

    @cached_property
    def fingerprint(self) -> str:
        """`fingerprint` of all documents in order: 16 hex digits."""
        return fingerprint((document.doc_id, document.contents) for document in self)

    def sample(self, limit: int) -> list[str]:
        """Contents of at most `limit` documents at equal distances in the corpus."""
        step = max(1, len(self) // limit)
        return [self.documents[i].contents for i in range(0, len(self), step)][:limit]


def hash_id(doc_id: str) -> int:
    """A 64-bit hash of a document id (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(doc_id.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class DatasetSource(NamedTuple):
    """Where a dataset was read from: the arguments of `load_dataset` and `passages.split_documents`."""

    corpus: str
    queries: str | None = None
    split: str = "test"
    passages: str | None = None
    """The value of --passages, `words=180,overlap=30`. None if documents are not split."""


@dataclass(frozen=True)
class Dataset:
    """A corpus with training queries, and with test queries and qrels if there are judgments."""

    name: str
    corpus: Corpus
    queries: Queries
    """Training queries. Adaptation reads only their text."""
    test_queries: Queries
    qrels: Qrels
    """Judgments of the test queries."""
    read_train_qrels: Callable[[], Qrels] = dict
    """Reads the judgments of training queries. Only supervised training calls it."""
    queries_from: str = ""
    """The file or dataset that the training queries came from."""
    qrels_from: str = ""
    """The file or dataset that the test judgments came from."""
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Accepted answers to open-domain questions, by query id."""
    lengths: dict[str, int] = field(default_factory=dict)
    """`query_length` and `document_length` in tokens that published results on this corpus use. May be empty."""
    source: DatasetSource | None = None
    notices: Notices = field(default_factory=Notices, compare=False)
    """What was left out of the files. Reading `train_qrels` may add to it."""

    @cached_property
    def train_qrels(self) -> Qrels:
        """Judgments of training queries, without blank documents."""
        blank = self.notices.blank["document"]
        return {
            query_id: {doc_id: grade for doc_id, grade in grades.items() if doc_id not in blank}
            for query_id, grades in self.read_train_qrels().items()
        }

    def without_blank(self, ranking: Mapping[str, list[tuple[str, float]]]) -> dict[str, list[tuple[str, float]]]:
        """A ranking, possibly made by another system, without the dataset's blank queries and blank documents."""
        blank_queries = self.notices.blank["query"] - self.queries.keys() - self.test_queries.keys()
        blank_documents = self.notices.blank["document"]
        kept = {
            query_id: [entry for entry in ranked if entry[0] not in blank_documents]
            for query_id, ranked in ranking.items()
            if query_id not in blank_queries
        }
        return {query_id: ranked for query_id, ranked in kept.items() if ranked}

    @property
    def summary(self) -> str:
        """The numbers of documents, training queries and test queries, and where the queries came from."""
        unsplit = self.corpus.unsplit
        passages = f" in {len(self.corpus):,} passages" if unsplit is not self.corpus else ""
        parts = [f"{self.name}: {len(unsplit):,} documents{passages}"]
        if self.queries:
            parts.append(f"{len(self.queries):,} queries to adapt on (the text of {self.queries_from})")
        if self.test_queries:
            parts.append(f"{len(self.test_queries):,} to test on ({self.qrels_from})")
        return "; ".join(parts) + "."


def fingerprint(texts: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (id, text) pairs in order, shortened to 16 hex digits."""
    digest = hashlib.sha256()
    for key, text in texts:
        digest.update(f"{key}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def data_hashes(dataset: Dataset, queries: Queries) -> dict[str, str]:
    """Hashes of corpus and queries. A resumed run compares them with its first start. Reads the whole corpus."""
    return {"corpus_sha256": dataset.corpus.fingerprint, "queries_sha256": fingerprint(queries.items())}


def relevant_documents(dataset: Dataset, queries: Queries) -> dict[str, list[str]]:
    """The documents that the training qrels judge relevant (grade > 0), by query id. Queries without any are left out.

    Raises DataError if the corpus lacks one of these documents.
    """
    graded = ((query_id, dataset.train_qrels.get(query_id, {})) for query_id in queries)
    relevant = {
        query_id: found for query_id, grades in graded if (found := [doc for doc, grade in grades.items() if grade > 0])
    }
    unknown = [doc_id for doc_ids in relevant.values() for doc_id in doc_ids if doc_id not in dataset.corpus]
    if unknown:
        raise DataError(
            f"The training qrels name document {unknown[0]!r}, which is not in the corpus. Remove that line, or use "
            "the corpus that the qrels were made for."
        )
    return relevant

"""Documents, queries and judgments.

Ids are strings. A document's text for every model, student or teacher, is `Document.contents`.
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from pdadapt.errors import DataError
from pdadapt.readers import (
    HUB,
    SHOWN,
    LineFile,
    Row,
    check_file,
    check_text,
    on_disk,
    open_text,
    read_id,
    read_rows,
    read_text,
    text_files,
)

Queries = dict[str, str]  # query_id -> text
Qrels = dict[str, dict[str, int]]  # query_id -> doc_id -> relevance

SHIPPED = {name: Path(__file__).parent / name for name in ("demo", "general")}  # corpora inside the package
GRADE = re.compile(r"-?[0-9]{1,9}")  # of relevance


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
        self, documents: Sequence[Document], id_hashes: Sequence[int] | None = None, whole: Corpus | None = None
    ):
        """id_hashes: hash_id of each document's id, in order; None: the documents are asked for their ids.

        whole: of passages, the documents that they were split from.
        """
        self.documents = documents
        self.whole = whole or self
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
    def varied(self) -> bool:
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
    return int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest(), "little")


class Source(NamedTuple):
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
    source: Source | None = None

    @cached_property
    def train_qrels(self) -> Qrels:
        return self.read_train_qrels()

    @property
    def summary(self) -> str:
        """What was found, and where."""
        whole = self.corpus.whole
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


def load_dataset(source: str, queries_file: Path | None = None, split: str = "test") -> Dataset:
    """Read what `--corpus` and `--queries` name.

    source: `demo` or `general`; a BEIR folder (`corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`); a folder with MS
    MARCO's files (`collection.tsv`, `queries.train.tsv`) or of .txt and .md files; a JSONL, TSV, CSV (`.gz` too) or
    Parquet file of documents; `hf:NAME` (see hub_rows); or, where there is no such path, a name of catalog.py.
    `queries_file` replaces the queries to adapt on.

    Raises DataError when a file is missing or malformed.
    """
    path = SHIPPED.get(source, Path(source))
    name = path.name.split(".")[0]
    if not source or not os.path.exists(path):
        dataset = _load_named(source, split)
    elif not path.is_dir():
        dataset = Dataset(name, read_corpus(path), {}, {}, {})
    elif (path / "collection.tsv").exists():
        dataset = _load_msmarco(name, path, split)
    elif not _is_beir(path) and (files := [file for file in text_files(path) if not _same(path / file, queries_file)]):
        dataset = Dataset(path.resolve().name, read_folder(path, files), {}, {}, {})
    else:
        dataset = _load_beir(name, path, split)
    dataset = replace(dataset, source=Source(source if source in SHIPPED else _absolute(source), None, split))
    return dataset if queries_file is None else with_queries(dataset, queries_file)


def with_queries(dataset: Dataset, file: Path) -> Dataset:
    """The dataset with the queries of this file to adapt on. Raises DataError when it is missing or malformed.

    Where a query names the document that it was written about, as `pdadapt queries` has it, that is its label.
    """
    source = dataset.source and dataset.source._replace(queries=_absolute(str(file)))
    return replace(
        dataset,
        queries=read_queries(file),
        read_train_qrels=lambda: read_sources(file),
        queries_from=str(file),
        source=source,
    )


def _absolute(name: str) -> str:
    """A path that says the same elsewhere, where it is one."""
    return str(Path(name).resolve()) if os.path.exists(name) else name


def _same(file: Path, other: Path | None) -> bool:
    return other is not None and file.resolve() == other.resolve()


def _load_named(name: str, split: str) -> Dataset:
    from pdadapt import catalog

    if name.startswith(HUB):
        return Dataset(name.removeprefix(HUB), catalog.read_hub_corpus(name), {}, {}, {})
    dataset = catalog.load_named(name, split)
    if dataset is None:
        hint = f" ({', '.join(near)}?)" if (near := catalog.near(name)) else ""
        raise DataError(
            f"Corpus {name!r} was not found: give `demo`, a folder in BEIR layout or of .txt files, a .jsonl, .tsv or "
            f".csv file (.gz too), .parquet, hf:NAME, or a name that `pdadapt datasets` lists{hint}."
        )
    return dataset


def _is_beir(folder: Path) -> bool:
    return (folder / "qrels").exists() or any(folder.glob("corpus.*")) or any(folder.glob("queries.jsonl*"))


def _load_beir(name: str, folder: Path, split: str) -> Dataset:
    """The queries to adapt on are those that `qrels/<split>.tsv` does not list."""
    corpus = read_corpus(_one_of(folder, "corpus"))
    queries_file = _one_of(folder, "queries")
    queries, answers = read_questions(queries_file)
    qrels_file = folder / "qrels" / f"{split}.tsv"
    test_queries, qrels = _judged(qrels_file, queries, corpus)
    train_queries = {query_id: text for query_id, text in queries.items() if query_id not in test_queries}
    train_file = folder / "qrels" / "train.tsv"

    def train_qrels() -> Qrels:
        return _judged(train_file, train_queries, corpus)[1] if split != "train" else {}

    return Dataset(
        name, corpus, train_queries, test_queries, qrels, train_qrels, queries_file.name, f"qrels/{split}.tsv", answers
    )


def _load_msmarco(name: str, folder: Path, split: str) -> Dataset:
    """The official files; the test is `dev.small` unless another split is asked for."""
    split = "dev.small" if split == "test" else split
    corpus = read_corpus(folder / "collection.tsv")
    queries = read_queries(folder / "queries.train.tsv")
    test_file, qrels_file = folder / f"queries.{split}.tsv", folder / f"qrels.{split}.tsv"
    test_queries, qrels = _judged(qrels_file, read_queries(test_file), corpus) if test_file.exists() else ({}, {})

    def train_qrels() -> Qrels:
        return _judged(folder / "qrels.train.tsv", queries, corpus)[1]

    return Dataset(name, corpus, queries, test_queries, qrels, train_qrels, "queries.train.tsv", qrels_file.name)


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


def judge(dataset: Dataset, qrels_file: Path) -> Dataset:
    """The dataset with these judgments instead of its own. Raises DataError when they judge none of its queries."""
    queries = dataset.queries | dataset.test_queries
    if not queries:
        raise DataError(
            f"Corpus {dataset.name!r} brings no queries that {qrels_file} could judge; give --queries FILE."
        )
    check_file(qrels_file)
    test_queries, qrels = _judged(qrels_file, queries, dataset.corpus)
    return replace(dataset, test_queries=test_queries, qrels=qrels, qrels_from=str(qrels_file))


def read_judged(qrels_file: Path) -> Dataset:
    """Judgments alone, of queries and documents whose texts are not known. Raises DataError when there are none."""
    qrels = read_qrels(qrels_file)
    return Dataset(qrels_file.stem, Corpus([]), {}, dict.fromkeys(qrels, ""), qrels, qrels_from=str(qrels_file))


def _judged(qrels_file: Path, queries: Queries, corpus: Corpus) -> tuple[Queries, Qrels]:
    """Those of the queries that the file judges, and how; nothing when there is no such file.

    Raises DataError when it names none of the queries, or none of the documents: it is of something else.
    """
    if not qrels_file.exists():
        return {}, {}
    qrels = {query_id: judged for query_id, judged in read_qrels(qrels_file).items() if query_id in queries}
    if not qrels:
        raise DataError(f"{qrels_file} names none of the queries; check its query ids, or give other qrels.")
    if not any(doc_id in corpus for judged in qrels.values() for doc_id in judged):
        raise DataError(f"{qrels_file} names none of the documents; check its document ids, or give other qrels.")
    return {query_id: queries[query_id] for query_id in qrels}, qrels


def read_corpus(path: Path) -> Corpus:
    """Read documents: JSONL (`_id`, `title`, `text`), TSV (id, text[, title]: MS MARCO's order) or CSV with a header.

    Of an uncompressed JSONL or TSV file the texts stay on disk until they are asked for. Empty documents are kept, so
    that ids stay complete. Raises DataError, with file and line, on what cannot be read.
    """
    if on_disk(path):
        lines = LineFile(path, to_document)
        corpus = Corpus(lines, array("Q", (hash_id(document.doc_id) for document in lines.read())))
    else:
        corpus = Corpus([to_document(row, where) for row, where in read_rows(path, "document")])
    if not len(corpus):
        raise DataError(f"{path} holds no documents; give the file that does.")
    if (repeated := corpus.repeated_id()) is not None:
        where = next(where for i, (_, where) in enumerate(read_rows(path, "document")) if i == repeated)
        raise DataError(
            f"{where}: the document id {corpus.documents[repeated].doc_id!r} stands twice; remove or rename one."
        )
    return corpus


def read_folder(folder: Path, files: Sequence[Path]) -> Corpus:
    """A document a file; its id is the file's path within the folder, with %20 for a space. Raises DataError."""
    documents = []
    for file in files:
        with open_text(folder / file) as lines:
            text = check_text(lines.read(), str(folder / file))
        doc_id = re.sub(r"[\s%]", lambda found: quote(found[0]), file.as_posix().removesuffix(".gz"))
        documents.append(Document(doc_id, "", text))
    return Corpus(documents)


def to_document(row: Row, where: str) -> Document:
    title = row.get("title") or ""
    if isinstance(title, (list, dict)):
        raise DataError(f"{where}: the title is no text; write it as one, or leave it out.")
    title = str(title)
    return Document(read_id(row, "document", where), check_text(title, where), read_text(row, where))


def read_queries(path: Path) -> Queries:
    """Read queries: one a line (.txt; ids are q1, q2, ...), TSV (id, text), JSONL (`_id`, `text`) or CSV.

    Raises DataError, with file and line, on what cannot be read, on empty queries and on an empty file.
    """
    return read_questions(path)[0]


def read_questions(path: Path) -> tuple[Queries, dict[str, tuple[str, ...]]]:
    """What read_queries reads, and the answers of those that bring some, as a list of texts in a field `answers`."""
    queries: Queries = {}
    answers: dict[str, tuple[str, ...]] = {}
    for row, where in read_rows(path, "query"):
        query_id = read_id(row, "query", where)
        if query_id in queries:
            raise DataError(f"{where}: the query id {query_id!r} stands twice; remove or rename one.")
        queries[query_id] = read_text(row, where).strip()
        if not queries[query_id]:
            raise DataError(f"{where}: query {query_id!r} is empty; remove the line.")
        if isinstance(found := row.get("answers"), list):
            answers[query_id] = tuple(map(str, found))
    if not queries:
        raise DataError(f"{path} holds no queries; give the file that does.")
    return queries, answers


def read_sources(path: Path) -> Qrels:
    """Of queries with an `_id` and a `doc_id`, the document that each was written about, as relevant."""
    rows = (row for row, _ in read_rows(path, "query"))
    return {str(row["_id"]): {str(row["doc_id"]): 1} for row in rows if row.get("_id") and row.get("doc_id")}


def read_qrels(path: Path) -> Qrels:
    """Read judgments: BEIR's TSV (query-id, corpus-id, score; one header line) or TREC's four columns.

    Raises DataError, with file and line, on what is no judgment, and when there are none.
    """
    qrels: Qrels = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields or (number == 1 and not GRADE.fullmatch(fields[-1])):
                continue
            if len(fields) == 4:
                fields = [fields[0], *fields[2:]]
            if len(fields) != 3 or not GRADE.fullmatch(fields[2]):
                raise DataError(
                    f"{path}:{number}: expected `query-id corpus-id score`, or TREC's four columns, the score a whole "
                    f"number; got {line.strip()[:SHOWN]!r}."
                )
            qrels.setdefault(fields[0], {})[fields[1]] = int(fields[2])
    if not qrels:
        raise DataError(f"{path} holds no judgments; give the file that does.")
    return qrels


def _one_of(folder: Path, stem: str) -> Path:
    for ending in (".jsonl", ".jsonl.gz", ".tsv", ".tsv.gz", ".csv", ".csv.gz", ".parquet"):
        if (folder / f"{stem}{ending}").exists():
            return folder / f"{stem}{ending}"
    raise DataError(
        f"{folder} has no {stem}.jsonl: a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv; a folder "
        "of documents .txt or .md files."
    )

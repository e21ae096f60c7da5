"""Documents, queries and judgments.

Ids are strings. A document's text for every model, student or teacher, is `Document.contents`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from pdadapt.columns import Row, values
from pdadapt.errors import DataError
from pdadapt.folders import DEFAULT, QRELS, check_split, find_qrels, needed, one_of
from pdadapt.lines import check_file, ending, is_packed, open_text
from pdadapt.notices import Notices
from pdadapt.readers import (
    HUB,
    Kept,
    LineFile,
    check_text,
    has_value,
    read_id,
    read_rows,
    read_text,
    read_title,
    text_files,
)
from pdadapt.trec import Qrels, read_qrels

Queries = dict[str, str]  # query_id -> text

UNSAFE = re.compile(r"[\s%\x00-\x1f\x7f\ud800-\udfff]")  # in an id: what runs cannot carry, or no terminal can show
SHIPPED = {name: Path(__file__).parent / name for name in ("demo", "general")}  # corpora inside the package


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
        whole: Corpus | None = None,
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

    def lacking(self, doc_ids: Iterable[str]) -> list[str]:
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
    return int.from_bytes(hashlib.blake2b(doc_id.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


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


def load_dataset(source: str, queries_file: Path | None = None, split: str = "test", strict: bool = False) -> Dataset:
    """Read what `--corpus` and `--queries` name.

    source: `demo` or `general`; a BEIR folder (`corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`); a folder with MS
    MARCO's files (`collection.tsv`, `queries.train.tsv`) or of .txt and .md files; a JSONL, TSV, CSV (`.gz` too) or
    Parquet file of documents; `hf:NAME` (see hub_rows); or, where there is no such path, a name of catalog.py.
    `queries_file` replaces the queries to adapt on. What cannot be used, such as blank documents, is left out, and
    stands in the dataset's `notices`; strict: it is refused.

    Raises DataError when a file is missing or malformed.
    """
    path = SHIPPED.get(source, Path(source))
    notices = Notices(strict)
    if not source or not os.path.exists(path):
        dataset = _load_named(source, split, notices)
    elif not path.is_dir():
        dataset = Dataset(_name(path).split(".")[0] or _name(path), read_corpus(path, notices), {}, {}, {})
    elif one_of(path, "collection", (".tsv",)):
        dataset = _load_msmarco(path, split, notices)
    elif not _is_beir(path) and (files := [file for file in text_files(path) if not _same(path / file, queries_file)]):
        dataset = Dataset(_name(path), read_folder(path, files, notices), {}, {}, {})
    else:
        dataset = _load_beir(path, split, notices)
    where = Source(source if source in SHIPPED else _absolute(source), None, split)
    if split != DEFAULT and not dataset.qrels:
        raise DataError(f"Corpus {source!r} has no judgments for split {split!r}. Leave out --split (evaluate.split).")
    dataset = replace(dataset, source=where, notices=notices)
    return dataset if queries_file is None else with_queries(dataset, queries_file)


def with_queries(dataset: Dataset, file: Path) -> Dataset:
    """The dataset with the queries of this file to adapt on. Raises DataError when it is missing or malformed.

    Where a query names the document that it was written about, as `pdadapt queries` has it, that is its label.
    """
    source = dataset.source and dataset.source._replace(queries=_absolute(str(file)))
    queries = read_queries(file, dataset.notices)

    def train_qrels() -> Qrels:
        qrels = {query_id: found for query_id, found in read_sources(file).items() if query_id in queries}
        return match_qrels(qrels, str(file), queries, dataset.corpus, dataset.notices, "training")[1] if qrels else {}

    return replace(
        dataset,
        queries=queries,
        read_train_qrels=train_qrels,
        queries_from=path_text(file),
        source=source,
    )


def _name(path: Path) -> str:
    """Of a file or folder, even if it is given as `.`."""
    return path_text(os.path.basename(os.path.abspath(path))) or "corpus"


def path_text(name: str | Path) -> str:
    """A file's name as text, with \\x.. for bytes that are not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _absolute(name: str) -> str:
    """A path that says the same elsewhere, where it is one."""
    return str(Path(name).resolve()) if os.path.exists(name) else name


def _same(file: Path, other: Path | None) -> bool:
    return other is not None and file.resolve() == other.resolve()


def _load_named(name: str, split: str, notices: Notices) -> Dataset:
    from pdadapt import catalog

    if name.startswith(HUB):
        return Dataset(name.removeprefix(HUB), catalog.read_hub_corpus(name, notices), {}, {}, {})
    dataset = catalog.load_named(name, split, notices)
    if dataset is None:
        hint = f" ({', '.join(near)}?)" if (near := catalog.near(name)) else ""
        raise DataError(
            f"Corpus {name!r} was not found: give `demo`, a folder in BEIR layout or of .txt files, a .jsonl, .tsv or "
            f".csv file (.gz too), .parquet, hf:NAME, or a name that `pdadapt datasets` lists{hint}."
        )
    return dataset


def _is_beir(folder: Path) -> bool:
    return (folder / "qrels").exists() or any(folder.glob("corpus.*")) or any(folder.glob("queries.jsonl*"))


def _load_beir(folder: Path, split: str, notices: Notices) -> Dataset:
    """The queries to adapt on are those that the qrels of the split do not list."""
    corpus_file, queries_file = needed(folder, "corpus"), needed(folder, "queries")
    check_split(folder, split, split != DEFAULT, notices)
    corpus = read_corpus(corpus_file, notices)
    queries, answers = read_questions(queries_file, notices)
    qrels_file, train_file = find_qrels(folder, split), find_qrels(folder, "train")
    test_queries, qrels = read_judgments_of(qrels_file, queries, corpus, notices)
    train_queries = {query_id: text for query_id, text in queries.items() if query_id not in test_queries}

    def train_qrels() -> Qrels:
        found = read_judgments_of(train_file, queries, corpus, notices, "training")[1] if split != "train" else {}
        return {query_id: judged for query_id, judged in found.items() if query_id in train_queries}

    return Dataset(
        _name(folder),
        corpus,
        train_queries,
        test_queries,
        qrels,
        train_qrels,
        queries_file.name,
        str(qrels_file.relative_to(folder)) if qrels_file else "",
        answers,
    )


def _load_msmarco(folder: Path, split: str, notices: Notices) -> Dataset:
    """The official files; the test is `dev.small` unless another split is asked for."""
    asked, split = split != DEFAULT, "dev.small" if split == DEFAULT else split
    check_split(folder, split, asked, notices)
    corpus = read_corpus(one_of(folder, "collection", (".tsv",)) or folder / "collection.tsv", notices)
    queries_file = one_of(folder, "queries.train") or folder / "queries.train.tsv"
    queries = read_queries(queries_file, notices)
    test_file, qrels_file = one_of(folder, f"queries.{split}"), find_qrels(folder, split)
    if qrels_file and not test_file:
        found = f"{qrels_file} judges queries whose text is not there. Add queries.{split}.tsv"
        if asked:
            raise DataError(f"{found}, or leave out --split (evaluate.split).")
        notices.add("split", f"{found}, to measure with them.", f"{found}, or leave out --strict.")
    test_queries, qrels = (
        read_judgments_of(qrels_file, read_queries(test_file, notices), corpus, notices) if test_file else ({}, {})
    )

    def train_qrels() -> Qrels:
        return read_judgments_of(one_of(folder, "qrels.train", QRELS), queries, corpus, notices, "training")[1]

    qrels_from = str(qrels_file.relative_to(folder)) if qrels_file else ""
    return Dataset(_name(folder), corpus, queries, test_queries, qrels, train_qrels, queries_file.name, qrels_from)


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
    dataset.notices.discard("split")
    test_queries, qrels = read_judgments_of(qrels_file, queries, dataset.corpus, dataset.notices)
    return replace(dataset, test_queries=test_queries, qrels=qrels, qrels_from=path_text(qrels_file))


def read_judged(qrels_file: Path, strict: bool = False) -> Dataset:
    """Judgments alone, of queries and documents whose texts are not known. Raises DataError when there are none."""
    notices = Notices(strict)
    qrels = read_qrels(qrels_file, notices)
    name, qrels_from = path_text(qrels_file.stem), path_text(qrels_file)
    return Dataset(name, Corpus([]), {}, dict.fromkeys(qrels, ""), qrels, qrels_from=qrels_from, notices=notices)


def read_judgments_of(
    file: Path | None, queries: Queries, corpus: Corpus, notices: Notices, kind: str = "test"
) -> tuple[Queries, Qrels]:
    """Those of the queries that the file judges, and how; nothing when there is no such file."""
    return match_qrels(read_qrels(file, notices), str(file), queries, corpus, notices, kind) if file else ({}, {})


def match_qrels(
    qrels: Qrels, source: str, queries: Queries, corpus: Corpus, notices: Notices, kind: str = "test"
) -> tuple[Queries, Qrels]:
    """Those of the queries that are judged, and how; judged queries and documents that are not there are noted.

    source, kind: what the judgments are called. Raises DataError when they name none of the queries, or none of the
    documents: they are of something else.
    """
    known = {query_id: judged for query_id, judged in qrels.items() if query_id in queries}
    if not known:
        raise DataError(f"{source} names none of the queries; check its query ids, or give other qrels.")
    judged = dict.fromkeys(doc_id for grades in known.values() for doc_id in grades)
    lacking = corpus.lacking(judged)
    if len(lacking) == len(judged):
        raise DataError(f"{source} names none of the documents; check its document ids, or give other qrels.")
    foreign = [query_id for query_id in qrels if query_id not in queries]
    if kind == "training" and lacking:  # a test counts them, for recall
        gone = set(lacking)
        kept = (
            (query_id, {doc: grade for doc, grade in grades.items() if doc not in gone})
            for query_id, grades in known.items()
        )
        known = {query_id: grades for query_id, grades in kept if grades}
    _note_missing(
        notices,
        f"{kind} queries",
        f"{source}: left out, for want of their text,",
        "judged queries",
        foreign,
        len(qrels),
    )
    _note_missing(notices, f"{kind} documents", f"{source}: the corpus lacks", "judged documents", lacking, len(judged))
    return {query_id: queries[query_id] for query_id in known}, known


def _note_missing(notices: Notices, key: str, problem: str, what: str, missing: Sequence[str], total: int) -> None:
    """What is judged, and not there."""
    notices.discard(key)
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        found = f"{problem} {len(missing):,} of {total:,} {what}: {missing[0]!r}{more}."
        notices.add(key, found, f"{found} Add what is missing, remove its judgments, or leave out --strict.")


def read_corpus(path: Path, notices: Notices | None = None) -> Corpus:
    """Read documents: JSONL (`_id`, `title`, `text`), TSV (id, text[, title]: MS MARCO's order) or CSV with a header.

    Of a JSONL or TSV file the texts stay on disk until they are asked for. Blank documents are left out, and noted.
    Raises DataError, with file and line, on what cannot be read.
    """
    notices = notices or Notices()
    if ending(path) not in (".jsonl", ".json", ".tsv"):
        documents = [to_document(row, where) for row, where in read_rows(path, "document")]

        def where_of(place: int) -> str:
            return next(itertools.islice((where for _, where in read_rows(path, "document")), place, None))

        return gather(documents, scan(documents), where_of, str(path), notices)
    lines = LineFile(path, to_document)
    corpus = gather(lines, scan(lines.read()), lines.where, str(path), notices)
    if (tsv := lines.rows.tsv) and tsv.joined:
        found = f"{tsv.first_joined}: the text holds a tab" + f", as in {tsv.joined - 1:,} more" * (tsv.joined > 1)
        notices.add(
            f"tabs of {path}",
            f"{found}: read as white space, since not every row has another column.",
            f"{found}. Put a space in its place, name all columns in a header, or leave out --strict.",
        )
    return corpus


def read_folder(folder: Path, files: Sequence[Path], notices: Notices | None = None) -> Corpus:
    """A document a file; its id is the file's path within the folder, with %20 for a space, and so for control
    characters and for bytes that are not UTF-8. Blank documents are left out, and noted. Raises DataError.
    """
    documents = []
    for file in files:
        with open_text(folder / file) as lines:
            text = check_text(lines.read(), str(folder / file))
        name = file.as_posix()[: -len(".gz")] if is_packed(file) else file.as_posix()
        documents.append(Document(UNSAFE.sub(_quoted, name), "", text))
    return gather(
        documents, scan(documents), lambda place: str(folder / files[place]), str(folder), notices or Notices()
    )


def _quoted(found: re.Match[str]) -> str:
    return quote(found[0], errors="surrogateescape")


def scan(documents: Iterable[Document]) -> tuple[array[int], array[int]]:
    """(the hash of each document's id, the places of those that are blank)."""
    hashes, blank = array("Q"), array("Q")
    for place, document in enumerate(documents):
        hashes.append(hash_id(document.doc_id))
        if is_blank(document):
            blank.append(place)
    return hashes, blank


def is_blank(document: Document) -> bool:
    return not document.text.strip() and not document.title.strip()


def gather(
    documents: Sequence[Document],
    scanned: tuple[array[int], array[int]],
    where: Callable[[int], str],
    source: str,
    notices: Notices,
) -> Corpus:
    """The corpus of these documents, without the blank ones.

    scanned: what scan says of them. where: "file:line" of the document at a place. Raises DataError when an id stands
    twice, or no document is left.
    """
    hashes, blank = scanned
    corpus = Corpus(documents, hashes)
    if (repeated := corpus.repeated_id()) is not None:
        raise DataError(
            f"{where(repeated)}: the document id {documents[repeated].doc_id!r} stands twice; remove or rename one."
        )
    if blank:
        notices.leave_out("document", source, [documents[place].doc_id for place in blank], where(blank[0]))
        kept = np.delete(np.arange(len(documents)), blank)
        rest = documents.keep(kept) if isinstance(documents, LineFile) else Kept(documents, kept)
        corpus = Corpus(rest, np.asarray(hashes, np.uint64)[kept])
    if not len(corpus):
        raise DataError(
            f"{source} holds no documents{' that are not blank' if blank else ''}; give the file that does."
        )
    return corpus


def to_document(row: Row, where: str) -> Document:
    return Document(read_id(row, "document", where), read_title(row, where), read_text(row, where))


def read_queries(path: Path, notices: Notices | None = None) -> Queries:
    """Read queries: one a line (.txt; ids are q1, q2, ...), TSV (id, text), JSONL (`_id`, `text`) or CSV.

    Blank queries are left out, and noted. Raises DataError, with file and line, on what cannot be read, and when no
    query is left.
    """
    return read_questions(path, notices)[0]


def read_questions(path: Path, notices: Notices | None = None) -> tuple[Queries, dict[str, tuple[str, ...]]]:
    """What read_queries reads, and the answers of those that bring some, as a list of texts in a field `answers`."""
    queries: Queries = {}
    answers: dict[str, tuple[str, ...]] = {}
    blank: dict[str, str] = {}  # query_id -> where
    for row, where in read_rows(path, "query"):
        query_id = read_id(row, "query", where)
        if query_id in queries or query_id in blank:
            raise DataError(f"{where}: the query id {query_id!r} stands twice; remove or rename one.")
        if not (text := read_text(row, where, "query").strip()):
            blank[query_id] = where
            continue
        queries[query_id] = text
        if isinstance(found := row.get("answers"), list):
            answers[query_id] = tuple(map(str, found))
    notices = notices or Notices()
    notices.leave_out("query", path, list(blank), next(iter(blank.values()), ""))
    if queries and ending(path) == ".txt" and all("\t" in text for text in queries.values()):
        found = (
            f"{path}: every line holds a tab, and is read as one query. If it is an id and a text, name the file .tsv"
        )
        notices.add(f"tabs of {path}", f"{found}.", f"{found}, or leave out --strict.")
    if not queries:
        raise DataError(f"{path} holds no queries{' that are not blank' if blank else ''}; give the file that does.")
    return queries, answers


def read_sources(path: Path) -> Qrels:
    """Of queries with an id and the id of a document, the document that each was written about, as relevant."""
    return {
        read_id(row, "source", where): {read_id(row, "source", where, "document"): 1}
        for row, where in read_rows(path, "query")
        if all(any(has_value(value) for _, value in values(row, "source", part)) for part in ("id", "document"))
    }

"""Documents, queries and judgments, and the readers of their files.

Ids are strings. A document's text for every model, student or teacher, is `Document.contents`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from pdadapt.errors import DataError

Queries = dict[str, str]  # query_id -> text
Qrels = dict[str, dict[str, int]]  # query_id -> doc_id -> relevance

ID_FIELDS = ("_id", "id", "doc_id", "docid", "query_id", "qid", "pid")
TEXT_FIELDS = ("text", "contents", "body", "query", "passage")
DEMO_FOLDER = Path(__file__).parent / "demo"


class Document(NamedTuple):
    doc_id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        """Title and text, joined the one way that students and teachers both see."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


class Corpus:
    """Documents in the order of their file, found again by id."""

    def __init__(self, documents: list[Document]):
        self.documents = documents
        self._position = {document.doc_id: i for i, document in enumerate(documents)}

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self._position

    def __getitem__(self, doc_id: str) -> Document:
        return self.documents[self._position[doc_id]]


class Dataset(NamedTuple):
    """A corpus with the queries to adapt on, and, where there are judgments, the queries to test on."""

    name: str
    corpus: Corpus
    queries: Queries  # unlabeled: their text is all that adaptation reads
    test_queries: Queries
    qrels: Qrels


def fingerprint(texts: Mapping[str, str]) -> str:
    """SHA-256 over ids and texts in order: 16 hex digits."""
    digest = hashlib.sha256()
    for key, text in texts.items():
        digest.update(f"{key}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def load_dataset(source: str, queries_file: Path | None = None, split: str = "test") -> Dataset:
    """Read what `--corpus` and `--queries` name.

    source: `demo`; a BEIR folder (`corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`); or a JSONL, TSV or CSV
    file (`.gz` too) of documents. Of a BEIR folder the queries to adapt on are those that `qrels/<split>.tsv` does
    not list; `queries_file` replaces them.

    Raises DataError when a file is missing or malformed.
    """
    path = DEMO_FOLDER if source == "demo" else Path(source)
    if not path.exists():
        raise DataError(
            f"Corpus {source!r} was not found: give `demo`, a folder in BEIR layout, or a .jsonl, .tsv or .csv file "
            "(.gz too)."
        )
    queries: Queries = {}
    test_queries: Queries = {}
    qrels: Qrels = {}
    if path.is_dir():
        corpus = read_corpus(_one_of(path, "corpus"))
        known = read_queries(_one_of(path, "queries"))
        qrels_file = path / "qrels" / f"{split}.tsv"
        if qrels_file.exists():
            qrels = read_qrels(qrels_file)
            test_queries = {query_id: known[query_id] for query_id in qrels if query_id in known}
            qrels = {query_id: qrels[query_id] for query_id in test_queries}
            if not test_queries:
                raise DataError(f"{qrels_file} names no query of {path}/queries.jsonl: check the query ids.")
        queries = {query_id: text for query_id, text in known.items() if query_id not in test_queries}
    else:
        corpus = read_corpus(path)
    if queries_file is not None:
        queries = read_queries(queries_file)
    name = source if source == "demo" else path.name.split(".")[0]
    return Dataset(name, corpus, queries, test_queries, qrels)


def read_corpus(path: Path) -> Corpus:
    """Read documents: JSONL (`_id`, `title`, `text`), TSV (id, text[, title]: MS MARCO's order) or CSV with a header.

    Empty documents are kept, so that ids stay complete. Raises DataError, with file and line, on what cannot be read.
    """
    documents: list[Document] = []
    for doc_id, row, where in _rows(path, "document"):
        title, text = row.get("title") or "", _text(row, where)
        documents.append(Document(doc_id, str(title), text))
    if not documents:
        raise DataError(f"{path} holds no documents.")
    return Corpus(documents)


def read_queries(path: Path) -> Queries:
    """Read queries: one a line (.txt; ids are q1, q2, ...), TSV (id, text), JSONL (`_id`, `text`) or CSV.

    Raises DataError, with file and line, on what cannot be read, on empty queries and on an empty file.
    """
    queries: Queries = {}
    for query_id, row, where in _rows(path, "query"):
        queries[query_id] = _text(row, where).strip()
        if not queries[query_id]:
            raise DataError(f"{where}: query {query_id!r} is empty; remove the line.")
    if not queries:
        raise DataError(f"{path} holds no queries.")
    return queries


def read_qrels(path: Path) -> Qrels:
    """Read judgments: BEIR's TSV (query-id, corpus-id, score; one header line) or TREC's four columns."""
    qrels: Qrels = {}
    with _open(path) as lines:
        try:
            numbered = list(enumerate(lines, 1))
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be read as UTF-8 text ({error}); convert the file and try again.") from None
        for number, line in numbered:
            fields = line.split()
            if not fields or (number == 1 and not fields[-1].lstrip("-").isdigit()):
                continue
            if len(fields) == 4:
                fields = [fields[0], *fields[2:]]
            if len(fields) != 3 or not fields[2].lstrip("-").isdigit():
                raise DataError(
                    f"{path}:{number}: expected `query-id corpus-id score`, or TREC's four columns; "
                    f"got {line.strip()!r}."
                )
            qrels.setdefault(fields[0], {})[fields[1]] = int(fields[2])
    return qrels


def _one_of(folder: Path, stem: str) -> Path:
    for ending in (".jsonl", ".jsonl.gz", ".tsv", ".tsv.gz", ".csv", ".csv.gz"):
        if (folder / f"{stem}{ending}").exists():
            return folder / f"{stem}{ending}"
    raise DataError(
        f"{folder} has no {stem}.jsonl: a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv."
    )


def _open(path: Path) -> IO[str]:
    if not path.is_file():
        raise DataError(f"File {path} was not found.")
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _rows(path: Path, kind: str) -> Iterator[tuple[str, dict[str, object], str]]:
    """Yield (id, fields, "file:line") of every record; the ids are checked to be there and unique."""
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    readers: dict[str, Callable[[IO[str], Path], Iterator[tuple[int, dict[str, object]]]]] = {
        ".jsonl": _jsonl,
        ".json": _jsonl,
        ".csv": _csv,
        ".tsv": _tsv,
        ".txt": _lines,
    }
    if ending not in readers or (ending == ".txt" and kind == "document"):
        raise DataError(
            f"{path}: cannot tell the format of {ending or 'a file without an ending'}; use .jsonl, .tsv or .csv."
        )
    seen: set[str] = set()
    try:
        with _open(path) as lines:
            for number, row in readers[ending](lines, path):
                where = f"{path}:{number}"
                found = next((row[field] for field in ID_FIELDS if row.get(field) not in (None, "")), None)
                if found is None:
                    raise DataError(f"{where}: the {kind} has no id; name it in a field `_id`.")
                record_id = str(found)
                if any(character.isspace() for character in record_id):
                    raise DataError(
                        f"{where}: the id {record_id!r} holds white space, which TREC run files cannot carry."
                    )
                if record_id in seen:
                    raise DataError(f"{where}: the {kind} id {record_id!r} stands twice; ids must be unique.")
                seen.add(record_id)
                yield record_id, row, where
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); convert the file and try again.") from None


def _text(row: dict[str, object], where: str) -> str:
    for field in TEXT_FIELDS:
        value = row.get(field)
        if isinstance(value, str):
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise DataError(
                    f"{where}: the text holds half of a surrogate pair (\\ud800 to \\udfff), which is no text."
                )
            return value
    raise DataError(f"{where}: no text; name it in a field `text`.")


def _jsonl(lines: IO[str], path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON ({error.msg}); one object a line is expected.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object with `_id` and `text`, got {type(row).__name__}.")
        yield number, row


def _tsv(lines: IO[str], path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if len(fields) < 2:
            raise DataError(f"{path}:{number}: expected id<TAB>text, found no tab.")
        if number == 1 and fields[0].lower() in ID_FIELDS:
            continue
        yield number, {"_id": fields[0], "text": fields[1], "title": fields[2] if len(fields) > 2 else ""}


def _csv(lines: IO[str], path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    csv.field_size_limit(2**30)
    reader = csv.DictReader(lines)
    if not set(ID_FIELDS) & set(reader.fieldnames or ()) or not set(TEXT_FIELDS) & set(reader.fieldnames or ()):
        raise DataError(f"{path}:1: a CSV file needs a header with an id (`_id`) and a `text` column.")
    for row in reader:
        yield reader.line_num, dict(row)


def _lines(lines: IO[str], path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, {"_id": f"q{number}", "text": line.strip()}

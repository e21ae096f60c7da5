"""Records of JSONL, TSV, CSV and text files: fields by name, and errors that name file and line."""

from __future__ import annotations

import csv
import gzip
import json
import mmap
import os
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload

from pdadapt.errors import DataError, reason

Row = dict[str, object]
T = TypeVar("T")

ID_FIELDS = ("_id", "id", "doc_id", "docid", "query_id", "qid", "pid")
TEXT_FIELDS = ("text", "contents", "body", "query", "passage")
HUB = "hf:"
JSON_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
SHOWN = 80  # characters of what is wrong
LONGEST = 10_000_000  # characters of a text: a longer document is a whole corpus, and is not tokenised at once


def read_rows(path: Path, kind: str) -> Iterator[tuple[Row, str]]:
    """Yield (fields, "file:line") of every record of a `document` or `query` file.

    Raises DataError, with file and line, on what cannot be read.
    """
    if str(path).startswith(HUB):
        yield from ((row, f"{path}: row {number}") for number, row in enumerate(hub_rows(str(path)), 1))
        return
    check_file(path)
    ending = _ending(path)
    if ending not in (*LINE_READERS, ".csv", ".parquet") or (ending == ".txt" and kind == "document"):
        plain = ".txt, " * (kind == "query")
        raise DataError(
            f"{path}: cannot tell the format of {ending or 'a file without an ending'}; use {plain}.jsonl, .tsv, .csv "
            "or .parquet."
        )
    if ending == ".parquet":
        yield from parquet_rows(path)
        return
    with open_text(path) as lines:
        if ending == ".csv":
            yield from _csv(lines, path)
            return
        read_line = _tsv_query if (ending, kind) == (".tsv", "query") else LINE_READERS[ending]
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            if (row := read_line(line, number, where)) is not None:
                yield row, where


def read_id(row: Row, kind: str, where: str) -> str:
    found = next((row[field] for field in ID_FIELDS if row.get(field) not in (None, "")), None)
    if found is None:
        raise DataError(f"{where}: the {kind} has no id; name it in a field `_id`.")
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise DataError(f"{where}: the id of the {kind} is neither a text nor a whole number; write it as a text.")
    record_id = check_text(str(found), where)
    if any(character.isspace() for character in record_id):
        raise DataError(
            f"{where}: the id {record_id[:SHOWN]!r} holds white space, which TREC run files cannot carry; put `_` in "
            "its place."
        )
    return record_id


def read_text(row: Row, where: str) -> str:
    for field in TEXT_FIELDS:
        value = row.get(field)
        if isinstance(value, str):
            return check_text(value, where)
    for field in TEXT_FIELDS:
        if (value := row.get(field)) is not None:
            kind = next((name for of, name in JSON_KINDS.items() if isinstance(value, of)), type(value).__name__)
            raise DataError(f"{where}: `{field}` is no text but {kind}; write it as a text, in quotes.")
    raise DataError(f"{where}: no text; name it in a field `text`.")


def check_text(text: str, where: str) -> str:
    """The text. Raises DataError when it is none, or too long."""
    if len(text) > LONGEST:
        raise DataError(f"{where}: {len(text):,} characters in one text, and at most {LONGEST:,} are read; split it.")
    if "\0" in text:
        raise DataError(f"{where}: holds a NUL byte: convert the file to UTF-8 if it is UTF-16, else remove it.")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{where}: holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; remove it.")
    return text


def check_file(path: Path) -> None:
    """Raises DataError when there is no such file."""
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; give a file.")
    if not os.path.isfile(path):
        raise DataError(f"File {path} was not found; check its name.")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A file of UTF-8 text, `.gz` too. Raises DataError when it is missing, or turns out to be something else."""
    check_file(path)
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); convert the file and try again.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as gzip ({reason(error)}); fetch or pack it anew.") from None


def on_disk(path: Path) -> bool:
    """Whether LineFile can read it: uncompressed, and a record is a line."""
    return path.suffix.lower() in (".jsonl", ".json", ".tsv")


class LineFile(Sequence[T], Generic[T]):
    """The records of a file, each read from it when asked for: in memory are eight bytes a record.

    read() must have gone through the file once: it finds the records, and checks them.
    """

    def __init__(self, path: Path, build: Callable[[Row, str], T]):
        """build: what a record is, of its fields and "file:line". Raises DataError when the file is missing."""
        check_file(path)
        self.path = path
        self.build = build
        self._starts = array("Q")
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""

    def read(self) -> Iterator[T]:
        """Yield every record, from the first. Raises DataError, with file and line, on what cannot be read."""
        self._starts = array("Q")
        start, number = 0, 1
        while start < len(self._bytes):
            record = self._record(start, number)
            if record is not None:
                self._starts.append(start)
                yield record
            start, number = self._end(start) + 1, number + 1

    def keep(self, records: Iterable[int]) -> None:
        """These alone, by their places."""
        self._starts = array("Q", (self._starts[record] for record in records))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self._record(self._starts[index])
        assert record is not None, "the file has changed"
        return record

    def _record(self, start: int, number: int = 0) -> T | None:
        """Of the line that starts here; None when it is blank or a header."""
        where = f"{self.path}:{number}" if number else str(self.path)
        try:
            line = self._bytes[start : self._end(start)].decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 text ({error}); convert the file and try again.") from None
        row = LINE_READERS[_ending(self.path)](line.removeprefix("\ufeff") if not start else line, number, where)
        return None if row is None else self.build(row, where)

    def _end(self, start: int) -> int:
        newline = self._bytes.find(b"\n", start)
        return len(self._bytes) if newline < 0 else newline


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _jsonl(line: str, number: int, where: str) -> Row | None:
    return parse_object(line, where) if line.strip() else None


def parse_object(line: str, where: str) -> Row:
    """The JSON object of a line. Raises DataError when it is something else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # also of numbers too long, and brackets too deep
        check_text(line, where)  # a NUL byte is named
        problem = error.msg if isinstance(error, json.JSONDecodeError) else reason(error)
        raise DataError(f"{where}: not valid JSON ({problem}); one object a line is expected.") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, and found a {type(row).__name__}; write one object a line.")
    return row


def _tsv(line: str, number: int, where: str, columns: tuple[str, ...] = ("_id", "text", "title")) -> Row | None:
    fields = line.rstrip("\r\n").split("\t")
    if fields == [""] or (number == 1 and fields[0].lower() in ID_FIELDS):
        return None
    if len(fields) < 2:
        raise DataError(f"{where}: expected id<TAB>text, and found no tab; put one between them.")
    if len(fields) > len(columns):
        expected = "id<TAB>text" + "[<TAB>title]" * (len(columns) > 2)
        raise DataError(
            f"{where}: expected {expected}, and found {len(fields)} columns; remove the others, or put a space in "
            "place of each tab within the text."
        )
    return dict(zip(columns, fields, strict=False))


def _tsv_query(line: str, number: int, where: str) -> Row | None:
    return _tsv(line, number, where, ("_id", "text"))


def _plain(line: str, number: int, where: str) -> Row | None:
    return {"_id": f"q{number}", "text": line.strip()} if line.strip() else None


LINE_READERS: dict[str, Callable[[str, int, str], Row | None]] = {
    ".jsonl": _jsonl,
    ".json": _jsonl,
    ".tsv": _tsv,
    ".txt": _plain,
}


def parquet_rows(path: Path) -> Iterator[tuple[Row, str]]:
    """(fields, "file: row N") of every record. Raises DataError when it is no Parquet file."""
    import pyarrow.parquet
    from pyarrow import ArrowException

    check_file(path)
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield row, f"{path}: row {number}"
    except (ArrowException, OSError, ValueError, OverflowError) as error:  # also of text that is not UTF-8, odd dates
        raise DataError(f"{path} cannot be read as Parquet ({reason(error)}); write the file anew.") from None


def hub_rows(name: str) -> Any:
    """The rows of `hf:NAME[:CONFIG][@SPLIT]`, a Hugging Face dataset: a sequence of dicts, kept on disk.

    Without a split the only one, or `train`. Nothing of the dataset's own code is run. Raises DataError when it cannot
    be had.
    """
    import datasets

    source, _, split = name.removeprefix(HUB).partition("@")
    source, _, config = source.partition(":")
    try:
        found = datasets.load_dataset(source, config or None, split=split or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{name}: the dataset cannot be had ({reason(error)}); hf:NAME:CONFIG@SPLIT names it."
        ) from error
    if isinstance(found, dict):
        if len(found) > 1 and "train" not in found:
            raise DataError(f"{name}: give one of its splits, {', '.join(found)}, as hf:NAME:CONFIG@SPLIT.")
        found = found.get("train", next(iter(found.values())))
    return found


def text_files(folder: Path) -> list[Path]:
    """The .txt and .md files (.gz too) under a folder, in the order of their paths; hidden ones are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if _ending(path) in (".txt", ".md"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


def _csv(lines: IO[str], path: Path) -> Iterator[tuple[Row, str]]:
    csv.field_size_limit(2**30)
    reader = csv.DictReader(lines, strict=True)
    start = 1
    try:
        if not set(ID_FIELDS) & set(reader.fieldnames or ()) or not set(TEXT_FIELDS) & set(reader.fieldnames or ()):
            raise DataError(f"{path}:1: a CSV file needs a header with an id (`_id`) and a `text` column; add one.")
        start = reader.line_num + 1
        for row in reader:
            if None in row:
                raise DataError(f"{path}:{start}: more fields than the header has; quote a text that holds commas.")
            yield dict(row), f"{path}:{start}"
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: not valid CSV ({error}); a quote inside a text is doubled, and the text quoted."
        ) from None

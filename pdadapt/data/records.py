"""Records of JSONL, TSV, CSV, Parquet and text files: fields by name, and errors that name file and line."""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload

from pdadapt.data import columns
from pdadapt.data.columns import FIELD_NAMES, Fields, RecordKind
from pdadapt.data.lines import Lines, check_file, file_ending, open_text
from pdadapt.data.tsv import TsvLayout
from pdadapt.errors import DataError, reason

RecordT = TypeVar("RecordT")

HUB_PREFIX = "hf:"
LINE_FORMATS = (".jsonl", ".json", ".tsv", ".txt")  # of files whose records are lines
JSON_TYPE_NAMES = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
SHOWN_CHARACTERS = 80  # characters of what is wrong
MAX_TEXT_CHARACTERS = (
    10_000_000  # characters of a text: a longer document is a whole corpus, and is not tokenised at once
)


def read_rows(path: Path, kind: RecordKind) -> Iterator[tuple[Fields, str]]:
    """Yield (fields, "file:line") of every record of a file.

    Raises DataError, with file and line, on what cannot be read.
    """
    if str(path).startswith(HUB_PREFIX):
        yield from ((row, f"{path}: row {number}") for number, row in enumerate(hub_rows(str(path)), 1))
        return
    check_file(path)
    found = file_ending(path)
    if found not in (*LINE_FORMATS, ".csv", ".parquet") or (found == ".txt" and kind != "query"):
        plain = ".txt, " * (kind == "query")
        raise DataError(
            f"{path}: cannot tell the format of {found or 'a file without an ending'}; use {plain}.jsonl, .tsv, .csv "
            "or .parquet."
        )
    if found == ".parquet":
        yield from parquet_rows(path)
    elif found == ".csv":
        with open_text(path) as lines:
            yield from _csv_rows(lines, path, kind)
    else:
        yield from ((row, where) for _, row, where in RowLines(path, kind))


def read_id(row: Fields, kind: RecordKind, where: str, part: str = "id") -> str:
    """The id that a record has, or, of a judgment or a ranking, the one in this part of it."""
    name = kind if part == "id" else part
    present = {key: value for key, value in columns.field_values(row, kind, part) if has_value(value)}
    columns.check_rivals(present, kind, part, where)
    found = next(iter(present.values()), None)
    if found is None:
        raise DataError(f"{where}: the {name} has no id; name it in a field `{FIELD_NAMES[kind][part][0]}`.")
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise DataError(f"{where}: the id of the {name} is neither a text nor a whole number; write it as a text.")
    return check_id(str(found), name, where)


def check_id(record_id: str, name: str, where: str) -> str:
    """The id. Raises DataError when it is empty, or holds what files of ids cannot carry."""
    if not check_text(record_id, where):
        raise DataError(f"{where}: the {name} has no id. Write one.")
    if record_id.split() != [record_id]:
        raise DataError(
            f"{where}: the id {record_id[:SHOWN_CHARACTERS]!r} holds white space, which TREC run files cannot carry; "
            "put `_` in its place."
        )
    return record_id


def read_text(row: Fields, where: str, kind: RecordKind = "document") -> str:
    """The record's first text that is not blank; else empty, where it has a field for it (null, NaN)."""
    fields = columns.text_fields(row, kind)
    written = [value for _, value in fields if isinstance(value, str)]
    if written:
        return check_text(next((text for text in written if text.strip()), written[0]), where)
    for field, value in fields:
        if not is_missing(value):
            raise DataError(f"{where}: `{field}` is no text but {_type_name(value)}; write it as a text, in quotes.")
    if not fields:
        raise DataError(f"{where}: no text; name it in a field `text`.")
    return ""


def read_title(row: Fields, where: str) -> str:
    """Empty where there is none; numbers are titles too."""
    value = next((value for _, value in columns.field_values(row, "document", "title") if not is_missing(value)), "")
    if not isinstance(value, (str, int, float)) and value:
        raise DataError(f"{where}: the title is no text; write it as one, or leave it out.")
    return check_text(str(value), where) if value or type(value) in (int, float) else ""


def is_missing(value: object) -> bool:
    """Whether it is what files hold in place of a value: null, or NaN as pandas writes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def has_value(value: object) -> bool:
    """Whether a field holds something: 0 is an id too."""
    return value != "" and not is_missing(value)


def _type_name(value: object) -> str:
    return next((name for of, name in JSON_TYPE_NAMES.items() if isinstance(value, of)), type(value).__name__)


def check_text(text: str, where: str) -> str:
    """The text. Raises DataError when it is none, or too long."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise DataError(
            f"{where}: {len(text):,} characters in one text, and at most {MAX_TEXT_CHARACTERS:,} are read; split it."
        )
    if "\0" in text:
        raise DataError(
            f"{where}: holds a NUL byte: convert the file to UTF-8 if it is UTF-16 (iconv -f utf-16le -t utf-8 OLD > "
            "NEW), else remove it."
        )
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{where}: holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; remove it.")
    return text


class RowLines:
    """The rows of a file whose records are lines: JSONL, TSV, or a query a line."""

    def __init__(self, path: Path, kind: RecordKind):
        """Raises DataError when the file is missing, or its first line is neither a header nor a record."""
        self.path = path
        self.lines = Lines(path)
        self.tsv = TsvLayout(self.lines, kind) if file_ending(path) == ".tsv" else None
        plain = _plain_query_fields if file_ending(path) == ".txt" else _jsonl_fields
        self._row: Callable[[str, int, str], Fields | None] = self.tsv.row if self.tsv else plain

    def __iter__(self) -> Iterator[tuple[int, Fields, str]]:
        """(start, fields, "file:line") of every record. Raises DataError on what cannot be read."""
        file = str(self.path)
        for number, start, line in self.lines:
            where = f"{file}:{number}"
            if (row := self._row(self.lines.text(line, where), number, where)) is not None:
                yield start, row, where

    def at(self, start: int) -> Fields:
        """The fields of the record that starts there."""
        where = str(self.path)
        row = self._row(self.lines.text(self.lines.at(start), where), 0, where)
        assert row is not None, "the file has changed"
        return row


class LineFile(Sequence[RecordT], Generic[RecordT]):
    """The records of a file, each read from it when asked for: in memory are eight bytes a record.

    A packed file is in memory whole. read() must have gone through the file once: it finds the records, and checks
    them.
    """

    def __init__(self, path: Path, build: Callable[[Fields, str], RecordT], kind: RecordKind = "document"):
        """build: what a record is, of its fields and "file:line". Raises DataError when the file is missing."""
        self.path = path
        self.build = build
        self.rows = RowLines(path, kind)
        self._starts = array("Q")

    def read(self) -> Iterator[RecordT]:
        """Yield every record, from the first. Raises DataError, with file and line, on what cannot be read."""
        self._starts = array("Q")
        for start, row, where in self.rows:
            self._starts.append(start)
            yield self.build(row, where)

    def keep(self, records: Iterable[int]) -> LineFile[RecordT]:
        """These alone, by their places."""
        self._starts = array("Q", (self._starts[record] for record in records))
        return self

    def where(self, record: int) -> str:
        """ "file:line" of a record."""
        return self.rows.lines.where(self._starts[record])

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> RecordT: ...
    @overload
    def __getitem__(self, index: slice) -> list[RecordT]: ...
    def __getitem__(self, index: int | slice) -> RecordT | list[RecordT]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.build(self.rows.at(self._starts[index]), str(self.path))


class Subset(Sequence[RecordT], Generic[RecordT]):
    """Some of the records of a sequence, by their places: eight bytes each."""

    def __init__(self, records: Sequence[RecordT], places: Iterable[int]):
        """places: rising."""
        self._records = records
        self._places = array("Q", places)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[RecordT]:
        wanted = iter(self._places)
        place = next(wanted, None)
        for number, record in enumerate(self._records):
            if number == place:
                yield record
                place = next(wanted, None)

    @overload
    def __getitem__(self, index: int) -> RecordT: ...
    @overload
    def __getitem__(self, index: slice) -> list[RecordT]: ...
    def __getitem__(self, index: int | slice) -> RecordT | list[RecordT]:
        if not isinstance(index, slice):
            return self._records[self._places[index]]
        places = self._places[index]
        if (index.step or 1) != 1 or not places:
            return [self._records[place] for place in places]
        block = self._records[places[0] : places[-1] + 1]  # a few more than are wanted, in one go
        return [block[place - places[0]] for place in places]


def _jsonl_fields(line: str, number: int, where: str) -> Fields | None:
    return parse_object(line, where) if line.strip() else None


def parse_object(line: str, where: str) -> Fields:
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


def _plain_query_fields(line: str, number: int, where: str) -> Fields | None:
    return {"_id": f"q{number}", "text": line.strip()} if line.strip() else None


def parquet_rows(path: Path) -> Iterator[tuple[Fields, str]]:
    """(fields, "file: row N") of every record. Raises DataError when it is no Parquet file."""
    import pyarrow.parquet
    from pyarrow import ArrowException

    check_file(path)
    number = 0
    try:
        with open(path, "rb") as file:  # its name need not be text
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
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

    source, _, split = name.removeprefix(HUB_PREFIX).partition("@")
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
    found = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if file_ending(path) in (".txt", ".md") and not path.is_dir()
    )
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


def _csv_rows(lines: IO[str], path: Path, kind: RecordKind) -> Iterator[tuple[Fields, str]]:
    csv.field_size_limit(2**30)
    reader = csv.reader(lines, strict=True)
    names: tuple[str, ...] | None = None
    start = 1
    try:
        for cells in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                if (names := columns.parse_header(cells, kind, where)) is None:
                    if len(cells) == 1 and columns.parse_header(cells[0].split(";"), kind, where):
                        raise DataError(f"{where}: the fields are parted by `;`. Save the file with commas, or as TSV.")
                    raise DataError(
                        f"{where}: a CSV file needs a header with an id (`_id`) and a `text` column; add one."
                    )
                continue
            if len(cells) > len(names):
                raise DataError(f"{where}: more fields than the header has; quote a text that holds commas.")
            yield columns.to_row(names, cells, kind, where), where
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: not valid CSV ({error}); a quote inside a text is doubled, and the text quoted."
        ) from None

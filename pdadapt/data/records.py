"""Read records from JSONL, TSV, CSV, Parquet and text files. Errors name the file and the line."""

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
LINE_FORMATS = (".jsonl", ".json", ".tsv", ".txt")  # formats with one record per line
JSON_TYPE_NAMES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
SHOWN_CHARACTERS = 80  # how much of a wrong value a message shows
MAX_TEXT_CHARACTERS = 10_000_000  # a longer text is probably a whole corpus, and too long to tokenise at once


def read_rows(path: Path, kind: RecordKind) -> Iterator[tuple[Fields, str]]:
    """Yield (fields, "file:line") of every record of a file or of a Hugging Face dataset (`hf:NAME`).

    Raises DataError with file and line if a record cannot be read.
    """
    if str(path).startswith(HUB_PREFIX):
        yield from ((row, f"{path}: row {number}") for number, row in enumerate(hub_rows(str(path)), 1))
        return
    check_file(path)
    ending = file_ending(path)
    if ending not in (*LINE_FORMATS, ".csv", ".parquet") or (ending == ".txt" and kind != "query"):
        plain = ".txt, " * (kind == "query")
        raise DataError(
            f"{path}: unknown file format ({ending or 'no ending'}). Use {plain}.jsonl, .tsv, .csv or .parquet."
        )
    if ending == ".parquet":
        yield from parquet_rows(path)
    elif ending == ".csv":
        with open_text(path) as lines:
            yield from _csv_rows(lines, path, kind)
    else:
        yield from ((row, where) for _, row, where in RowLines(path, kind))


def read_id(row: Fields, kind: RecordKind, where: str, part: str = "id") -> str:
    """The id of a record.

    part: which id of a judgment or a ranking, `query` or `document`. where: "file:line". Raises DataError if the id is
    missing or malformed.
    """
    name = kind if part == "id" else part
    present = {key: value for key, value in columns.field_values(row, kind, part) if has_value(value)}
    columns.check_rivals(present, kind, part, where)
    record_id = next(iter(present.values()), None)
    if record_id is None:
        raise DataError(f"{where}: the {name} has no id. Write it in a field `{FIELD_NAMES[kind][part][0]}`.")
    if isinstance(record_id, bool) or not isinstance(record_id, (str, int)):
        raise DataError(f"{where}: the id of the {name} must be a text or a whole number. Write it as a text.")
    return check_id(str(record_id), name, where)


def check_id(record_id: str, name: str, where: str) -> str:
    """The id itself. Raises DataError if it is empty, or if a run file cannot contain it."""
    if not check_text(record_id, where):
        raise DataError(f"{where}: the {name} has no id. Write one.")
    if record_id.split() != [record_id]:
        raise DataError(
            f"{where}: the id {record_id[:SHOWN_CHARACTERS]!r} contains white space, which TREC run files do not "
            "allow. Replace it with `_`."
        )
    return record_id


def read_text(row: Fields, where: str, kind: RecordKind = "document") -> str:
    """The first text of the record that is not blank. Empty if all its text fields are blank, null or NaN.

    where: "file:line". Raises DataError if the record has no text field, or a text field is not a text.
    """
    fields = columns.text_fields(row, kind)
    written = [value for _, value in fields if isinstance(value, str)]
    if written:
        return check_text(next((text for text in written if text.strip()), written[0]), where)
    for field, value in fields:
        if not is_missing(value):
            raise DataError(f"{where}: `{field}` must be a text, but is {_type_name(value)}. Write it in quotes.")
    if not fields:
        raise DataError(f"{where}: the {kind} has no text. Write it in a field `text`.")
    return ""


def read_title(row: Fields, where: str) -> str:
    """The title of a record. Empty if it has none. A number is a title too. Raises DataError for another value."""
    value = next((value for _, value in columns.field_values(row, "document", "title") if not is_missing(value)), "")
    if not isinstance(value, (str, int, float)) and value:
        raise DataError(f"{where}: the title must be a text. Write it in quotes, or leave it out.")
    return check_text(str(value), where) if value or type(value) in (int, float) else ""


def is_missing(value: object) -> bool:
    """Whether the value stands for a missing one: null, or NaN as pandas writes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def has_value(value: object) -> bool:
    """Whether a field contains a value. The number 0 is a value, since it may be an id."""
    return value != "" and not is_missing(value)


def _type_name(value: object) -> str:
    """How messages call the type of a value."""
    return next((name for kind, name in JSON_TYPE_NAMES.items() if isinstance(value, kind)), type(value).__name__)


def check_text(text: str, where: str) -> str:
    """The text itself. Raises DataError if it is too long, or contains a NUL byte or half of a surrogate pair."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise DataError(
            f"{where}: the text has {len(text):,} characters, but may have at most {MAX_TEXT_CHARACTERS:,}. Split it."
        )
    if "\0" in text:
        raise DataError(
            f"{where}: the text contains a NUL byte. If the file is UTF-16, convert it to UTF-8 (iconv -f utf-16le -t "
            "utf-8 OLD > NEW). Otherwise remove the byte."
        )
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: the text contains half of a surrogate pair (\\ud800 to \\udfff). Remove it.")
    return text


class RowLines:
    """The records of a file with one record per line: JSONL, TSV, or TXT with one query per line."""

    def __init__(self, path: Path, kind: RecordKind):
        """Raises DataError if the file is missing, or if it is unclear whether its first line is a header."""
        self.path = path
        self.lines = Lines(path)
        self.tsv = TsvLayout(self.lines, kind) if file_ending(path) == ".tsv" else None
        plain = _plain_query_fields if file_ending(path) == ".txt" else _jsonl_fields
        self._row: Callable[[str, int, str], Fields | None] = self.tsv.row if self.tsv else plain

    def __iter__(self) -> Iterator[tuple[int, Fields, str]]:
        """Yield (start in bytes, fields, "file:line") of every record. Raises DataError if one cannot be read."""
        file = str(self.path)
        for number, start, line in self.lines:
            where = f"{file}:{number}"
            if (row := self._row(self.lines.decode(line, where), number, where)) is not None:
                yield start, row, where

    def at(self, start: int) -> Fields:
        """The fields of the record that starts at this byte."""
        where = str(self.path)
        row = self._row(self.lines.decode(self.lines.at(start), where), 0, where)
        assert row is not None, "the file has changed"
        return row


class LineFile(Sequence[RecordT], Generic[RecordT]):
    """The records of a file with one record per line, read from disk on access.

    Memory use is eight bytes per record. (A compressed file is held in memory.) Call `read` and exhaust it before any
    other access: it finds and checks the records.
    """

    def __init__(self, path: Path, build: Callable[[Fields, str], RecordT], kind: RecordKind = "document"):
        """build: makes a record from its fields and "file:line". Raises DataError if the file is missing."""
        self.path = path
        self.build = build
        self.rows = RowLines(path, kind)
        self._starts = array("Q")

    def read(self) -> Iterator[RecordT]:
        """Yield every record from the first on. Raises DataError with file and line if one cannot be read."""
        self._starts = array("Q")
        for start, row, where in self.rows:
            self._starts.append(start)
            yield self.build(row, where)

    def keep(self, records: Iterable[int]) -> LineFile[RecordT]:
        """Keep only the records at these positions; return self."""
        self._starts = array("Q", (self._starts[record] for record in records))
        return self

    def where(self, record: int) -> str:
        """ "file:line" of the record at this position."""
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
    """The records of a sequence at some positions. Memory use is eight bytes per record."""

    def __init__(self, records: Sequence[RecordT], places: Iterable[int]):
        """places: positions in rising order."""
        self._records = records
        self._places = array("Q", places)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[RecordT]:
        places = iter(self._places)
        place = next(places, None)
        for number, record in enumerate(self._records):
            if number == place:
                yield record
                place = next(places, None)

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
        block = self._records[places[0] : places[-1] + 1]  # one read of a few records too many is faster
        return [block[place - places[0]] for place in places]


def _jsonl_fields(line: str, number: int, where: str) -> Fields | None:
    return parse_object(line, where) if line.strip() else None


def parse_object(line: str, where: str) -> Fields:
    """The JSON object of a line. where: "file:line". Raises DataError if the line is something else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # numbers with too many digits and too deep brackets raise too
        check_text(line, where)  # so that the message names a NUL byte
        problem = error.msg if isinstance(error, json.JSONDecodeError) else reason(error)
        raise DataError(f"{where}: not valid JSON ({problem}). Write one object per line.") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: {_type_name(row)} is not a JSON object. Write one object per line.")
    return row


def _plain_query_fields(line: str, number: int, where: str) -> Fields | None:
    return {"_id": f"q{number}", "text": line.strip()} if line.strip() else None


def parquet_rows(path: Path) -> Iterator[tuple[Fields, str]]:
    """Yield (fields, "file: row N") of every record. Raises DataError if the file is not a valid Parquet file."""
    import pyarrow.parquet
    from pyarrow import ArrowException

    check_file(path)
    number = 0
    try:
        with open(path, "rb") as file:  # pyarrow refuses names that are not UTF-8, so it gets an open file
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"{path}: row {number}"
    except (ArrowException, OSError, ValueError, OverflowError) as error:  # bad UTF-8 and odd dates raise the last two
        raise DataError(f"{path} cannot be read as Parquet ({reason(error)}). Write the file again.") from None


def hub_rows(name: str) -> Any:
    """The rows of a Hugging Face dataset: a sequence of dicts that stays on disk.

    name: `hf:NAME[:CONFIG][@SPLIT]`. The default split is the only one, or `train`. The dataset's own code is not run.
    Raises DataError if the dataset cannot be loaded.
    """
    import datasets

    source, _, split = name.removeprefix(HUB_PREFIX).partition("@")
    source, _, config = source.partition(":")
    try:
        loaded = datasets.load_dataset(source, config or None, split=split or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{name}: the dataset cannot be loaded ({reason(error)}). Check its name: hf:NAME:CONFIG@SPLIT."
        ) from error
    if isinstance(loaded, dict):
        if len(loaded) > 1 and "train" not in loaded:
            raise DataError(
                f"{name}: the dataset has several splits ({', '.join(loaded)}). Choose one with hf:NAME:CONFIG@SPLIT."
            )
        loaded = loaded.get("train", next(iter(loaded.values())))
    return loaded


def text_files(folder: Path) -> list[Path]:
    """The .txt and .md files (also with .gz) below a folder, sorted by path. Hidden files and folders are left out."""
    paths = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if file_ending(path) in (".txt", ".md") and not path.is_dir()
    )
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.parts))


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
                        raise DataError(
                            f"{where}: the columns are separated by `;`. Save the file with commas, or as TSV."
                        )
                    raise DataError(
                        f"{where}: a CSV file needs a header. Add one with columns for an id (`_id`) and a `text`."
                    )
                continue
            if len(cells) > len(names):
                raise DataError(
                    f"{where}: the row has more fields than the header. Put texts that contain commas in quotes."
                )
            yield columns.to_row(names, cells, kind, where), where
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: not valid CSV ({error}). Put the text in quotes and double every quote inside it."
        ) from None

"""Read the records of qrels and runs from text, CSV, JSONL (also with `.gz`) or Parquet files.

Columns are TREC's, BEIR's, or named by a header.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pdadapt.data import columns
from pdadapt.data.lines import file_ending, open_text
from pdadapt.data.notices import Notices
from pdadapt.data.records import SHOWN_CHARACTERS, check_id, read_id, read_rows
from pdadapt.errors import DataError

Qrels = dict[str, dict[str, int]]  # query_id -> doc_id -> relevance
TrecRecord = tuple[str, str, object, str]  # query id, document id, grade or score, "file:line"
TrecKind = Literal["judgment", "ranking"]

QUOTED_SPACE = re.compile(r'(?:^|\s)"[^"]*\s[^"]*"(?:\s|$)')  # a field in quotes that contains white space
GRADE_LIMIT = 10**9  # the absolute value of a grade is less than this
VALUE_PARTS: dict[TrecKind, str] = {"judgment": "grade", "ranking": "score"}
# Without a header: number of columns -> the columns of query, document and value.
COLUMN_PLACES: dict[TrecKind, dict[int, tuple[int, int, int]]] = {
    "judgment": {3: (0, 1, 2), 4: (0, 2, 3)},
    "ranking": dict.fromkeys(range(6, 26), (0, 2, 4)),  # a tag may contain spaces
}
EXPECTED_FORMAT: dict[TrecKind, str] = {
    "judgment": "Write `query-id corpus-id score` or TREC's four columns, with a whole number as the score.",
    "ranking": "Write six fields: query_id Q0 doc_id rank score tag.",
}
LINE_NAMES: dict[TrecKind, str] = {"judgment": "a judgment", "ranking": "a line of a TREC run"}


def read_qrels(path: Path, notices: Notices | None = None) -> Qrels:
    """Read judgments in BEIR's columns (query-id, corpus-id, score), TREC's four, or columns that a header names.

    Raises DataError with file and line if a line is not a judgment, if a document has two different grades for one
    query, or if the file contains no judgments.
    """
    qrels: Qrels = {}
    comments: list[str] = []
    for query_id, doc_id, value, where in read_records(path, "judgment", comments):
        grade = read_grade(value, where)
        if (before := qrels.setdefault(query_id, {}).setdefault(doc_id, grade)) != grade:
            raise DataError(
                f"{where}: document {doc_id!r} has grade {grade} for query {query_id!r}, but grade {before} in an "
                "earlier line. Keep one of them."
            )
    if not qrels:
        raise DataError(f"{path} contains no judgments. Choose a file that has some.")
    if comments and notices:
        notices.add(
            f"comments of {path}",
            f"Left out {len(comments):,} judgments because their lines start with # and are comments: {comments[0]} "
            f"(and {len(comments) - 1:,} more)."
            if len(comments) > 1
            else f"Left out 1 judgment because its line starts with # and is a comment: {comments[0]}.",
            f"{comments[0]}: the judgment is a comment, because its line starts with #. Remove the line, or leave out "
            "--strict.",
        )
    return qrels


def read_grade(value: object, where: str) -> int:
    """A grade as a whole number (`2`, `+2`, `2.0`). where: "file:line". Raises DataError if it is not one."""
    number = to_number(value)
    if number is None or not number.is_integer() or abs(number) >= GRADE_LIMIT:
        found = str(value)[:SHOWN_CHARACTERS]
        raise DataError(f"{where}: the score {found!r} is not a whole number. Write a grade such as 0, 1 or 2.")
    return int(number)


def read_score(value: object, where: str) -> float:
    """A score as a finite number. where: "file:line". Raises DataError if it is not one."""
    number = to_number(value)
    if number is not None and math.isfinite(number):
        return number
    text = str(value)[:SHOWN_CHARACTERS]
    if text.count(",") == 1 and to_number(text.replace(",", ".")) is not None:
        raise DataError(f"{where}: the score {text!r} has a decimal comma. Write {text.replace(',', '.')}.")
    raise DataError(
        f"{where}: the score {text!r} is not a finite number. Write one, or remove the document from the run."
    )


def to_number(value: object) -> float | None:
    """The number that a file's field holds. None if it is not a number."""
    if isinstance(value, str) and (not value.isascii() or "_" in value):  # float() would accept both
        return None
    try:
        return float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None


def read_records(path: Path, kind: TrecKind, comments: list[str]) -> Iterator[TrecRecord]:
    """Yield the records of a file of qrels or of a run file.

    In qrels a line that starts with `#` is a comment, as in trec_eval. If such a line could be a judgment, its
    "file:line" is appended to `comments`. In a run, a line that starts with `#` is a comment only if it does not have
    the form of a ranking, because a query id may start with `#`.

    Raises DataError with file and line if a line is neither a record nor a comment.
    """
    if file_ending(path) in (".jsonl", ".json", ".parquet"):
        for row, where in read_rows(path, kind):
            present = {
                key: value for key, value in columns.field_values(row, kind, VALUE_PARTS[kind]) if value is not None
            }
            columns.check_rivals(present, kind, VALUE_PARTS[kind], where)
            if not present:
                raise DataError(f"{where}: the {kind} has no {VALUE_PARTS[kind]}. Write it in a field `score`.")
            value = next(iter(present.values()))
            yield read_id(row, kind, where, "query"), read_id(row, kind, where, "document"), value, where
        return
    for query_id, doc_id, value, where in _text_records(path, kind, comments):
        yield check_id(query_id, "query", where), check_id(doc_id, "document", where), value, where


def _text_records(path: Path, kind: TrecKind, comments: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """The records of text and CSV files. Ids are not checked yet."""
    places, expected = COLUMN_PLACES[kind], EXPECTED_FORMAT[kind]
    first = True
    for cells, where in _text_cells(path, kind):
        if cells[0].startswith("#") and not (first and columns.is_header(cells, kind)):
            has_shape = cells[0] != "#" and len(cells) in places
            if kind == "judgment" and has_shape and to_number(cells[places[len(cells)][2]]) is not None:
                comments.append(where)
            if kind == "judgment" or not has_shape:
                continue
        names = columns.parse_header(cells, kind, where) if first else None
        first = False
        if names:
            query, document, value = (
                names.index(columns.matching_fields(names, kind, part)[0]) for part in columns.FIELD_NAMES[kind]
            )
            places = {len(names): (query, document, value)}
            expected = f"Write `{' '.join(names)}`, as in the header."
        elif found := places.get(len(cells)):
            query, document, value = found
            yield cells[query], cells[document], cells[value], where
        else:
            line = " ".join(cells)[:SHOWN_CHARACTERS]
            raise DataError(f"{where}: {line!r} is not {LINE_NAMES[kind]}. {expected}")


def _text_cells(path: Path, kind: TrecKind) -> Iterator[tuple[list[str], str]]:
    """Yield (cells, "file:line") of every line that is not blank."""
    file = str(path)
    tabs: bool | None = None  # whether the file has a header with tabs between the columns
    with open_text(path) as lines:
        if file_ending(path) == ".csv":
            reader = csv.reader(lines)
            try:
                for cells in reader:
                    if any(stripped := [cell.strip() for cell in cells]):
                        yield stripped, f"{file}:{reader.line_num}"
            except csv.Error as error:
                raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error}). Write the file again.") from None
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            quoted = '"' in line and kind == "judgment"  # in a run, a quote is part of an id
            if tabs is None:
                cells = _split_line(line, True, quoted)
                if columns.is_header(cells, kind) or not line.lstrip().startswith("#"):
                    tabs = "\t" in line and columns.parse_header(cells, kind, where) is not None
            by_tabs = bool(tabs) and "\t" in line
            if quoted and not by_tabs and QUOTED_SPACE.search(line):
                raise DataError(f"{where}: a field in quotes contains white space. Replace it with `_`.")
            yield _split_line(line, by_tabs, quoted), where


def _split_line(line: str, by_tabs: bool, quoted: bool) -> list[str]:
    cells = [cell.strip() for cell in line.split("\t")] if by_tabs else line.split()
    return list(map(_unquote, cells)) if quoted else cells


def _unquote(cell: str) -> str:
    """A cell without the quotes that a CSV writer may put around it."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell

"""Qrels and runs: TREC's columns, BEIR's, or columns by name; as text, CSV, JSONL or Parquet, `.gz` too."""

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

QUOTED_SPACE = re.compile(r'(?:^|\s)"[^"]*\s[^"]*"(?:\s|$)')  # a field in quotes that holds white space
GRADE_LIMIT = 10**9  # what a grade is less than
VALUE_PARTS: dict[TrecKind, str] = {"judgment": "grade", "ranking": "score"}
# By how many columns there are without a header: which hold the query, the document and the value.
COLUMN_PLACES: dict[TrecKind, dict[int, tuple[int, int, int]]] = {
    "judgment": {3: (0, 1, 2), 4: (0, 2, 3)},
    "ranking": dict.fromkeys(range(6, 26), (0, 2, 4)),  # a tag may hold spaces
}
EXPECTED_FORMAT: dict[TrecKind, str] = {
    "judgment": "expected `query-id corpus-id score`, or TREC's four columns, the score a whole number",
    "ranking": "not a line of a TREC run; write six fields, query_id Q0 doc_id rank score tag",
}


def read_qrels(path: Path, notices: Notices | None = None) -> Qrels:
    """Read judgments: BEIR's columns (query-id, corpus-id, score), TREC's four, or columns that a header names.

    Raises DataError, with file and line, on what is no judgment, on two grades for one document, and when there are
    none.
    """
    qrels: Qrels = {}
    comments: list[str] = []
    for query_id, doc_id, value, where in read_records(path, "judgment", comments):
        grade = read_grade(value, where)
        if (before := qrels.setdefault(query_id, {}).setdefault(doc_id, grade)) != grade:
            raise DataError(
                f"{where}: the grade of document {doc_id!r} for query {query_id!r} is {grade}, but {before} in an "
                "earlier line. Keep one of them."
            )
    if not qrels:
        raise DataError(f"{path} holds no judgments; give the file that does.")
    if comments and notices:
        notices.add(
            f"comments of {path}",
            f"Left out {len(comments):,} judgments that are comments, since their lines begin with #: {comments[0]} "
            "and so on."
            if len(comments) > 1
            else f"Left out 1 judgment that is a comment, since its line begins with #: {comments[0]}.",
            f"{comments[0]}: the judgment is a comment, for it begins with #. Remove the line, or leave out --strict.",
        )
    return qrels


def read_grade(value: object, where: str) -> int:
    """A whole number, however it is written (`2`, `+2`, `2.0`). Raises DataError when it is none."""
    number = to_number(value)
    if number is None or not number.is_integer() or abs(number) >= GRADE_LIMIT:
        found = str(value)[:SHOWN_CHARACTERS]
        raise DataError(
            f"{where}: expected a whole number as the score, and found {found!r}; write a grade such as 0, 1 or 2."
        )
    return int(number)


def read_score(value: object, where: str) -> float:
    """A finite number. Raises DataError when it is none."""
    number = to_number(value)
    if number is not None and math.isfinite(number):
        return number
    text = str(value)[:SHOWN_CHARACTERS]
    if text.count(",") == 1 and to_number(text.replace(",", ".")) is not None:
        raise DataError(f"{where}: the score {text!r} has a decimal comma. Write {text.replace(',', '.')}.")
    raise DataError(
        f"{where}: the score {text!r} is not a finite number. Give the document one, or remove it from the run."
    )


def to_number(value: object) -> float | None:
    """Of what a file holds; None when it is no number."""
    if isinstance(value, str) and (not value.isascii() or "_" in value):  # which Python would take
        return None
    try:
        return float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None


def read_records(path: Path, kind: TrecKind, comments: list[str]) -> Iterator[TrecRecord]:
    """Yield the records of qrels or of a run.

    In qrels a line that begins with `#` is a comment, as in trec_eval; `comments` gets "file:line" of those that could
    be judgments. In a run it is one unless it could be a ranking: a query's id may begin with `#`. Raises DataError,
    with file and line, on what is neither.
    """
    if file_ending(path) in (".jsonl", ".json", ".parquet"):
        for row, where in read_rows(path, kind):
            present = {
                key: value for key, value in columns.field_values(row, kind, VALUE_PARTS[kind]) if value is not None
            }
            columns.check_rivals(present, kind, VALUE_PARTS[kind], where)
            if not present:
                raise DataError(f"{where}: the {kind} has no {VALUE_PARTS[kind]}; name it in a field `score`.")
            value = next(iter(present.values()))
            yield read_id(row, kind, where, "query"), read_id(row, kind, where, "document"), value, where
        return
    for query_id, doc_id, value, where in _text_records(path, kind, comments):
        yield check_id(query_id, "query", where), check_id(doc_id, "document", where), value, where


def _text_records(path: Path, kind: TrecKind, comments: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """The records of text and CSV files, their ids not checked."""
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
            places, expected = (
                {len(names): (query, document, value)},
                f"expected `{' '.join(names)}`, as the header says",
            )
        elif found := places.get(len(cells)):
            query, document, value = found
            yield cells[query], cells[document], cells[value], where
        else:
            raise DataError(f"{where}: {expected}; got {' '.join(cells)[:SHOWN_CHARACTERS]!r}.")


def _text_cells(path: Path, kind: TrecKind) -> Iterator[tuple[list[str], str]]:
    """(cells, "file:line") of every line that is not blank."""
    file = str(path)
    tabs: bool | None = None  # whether the file has a header whose columns tabs part
    with open_text(path) as lines:
        if file_ending(path) == ".csv":
            reader = csv.reader(lines)
            try:
                for cells in reader:
                    if any(stripped := [cell.strip() for cell in cells]):
                        yield stripped, f"{file}:{reader.line_num}"
            except csv.Error as error:
                raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error}); write the file anew.") from None
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            quoted = '"' in line and kind == "judgment"  # in a run, which we write ourselves, it is an id's own
            if tabs is None:
                cells = _split_line(line, True, quoted)
                if columns.is_header(cells, kind) or not line.lstrip().startswith("#"):
                    tabs = "\t" in line and columns.parse_header(cells, kind, where) is not None
            by_tabs = bool(tabs) and "\t" in line
            if quoted and not by_tabs and QUOTED_SPACE.search(line):
                raise DataError(f"{where}: a field in quotes holds white space. Put `_` in its place.")
            yield _split_line(line, by_tabs, quoted), where


def _split_line(line: str, by_tabs: bool, quoted: bool) -> list[str]:
    cells = [cell.strip() for cell in line.split("\t")] if by_tabs else line.split()
    return list(map(_unquote, cells)) if quoted else cells


def _unquote(cell: str) -> str:
    """Without the quotes that a CSV writer may put around it."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell

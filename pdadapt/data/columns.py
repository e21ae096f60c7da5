"""The accepted names of columns and fields: one table for JSONL, TSV, CSV, Parquet, qrels and runs.

Names are compared without case, `-`, `_`, `.`, spaces and a leading `#`: `#Corpus-ID` equals `corpus_id`.
A record has *parts* (id, title, text, grade, ...); each part has several accepted names in order of precedence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from pdadapt.errors import DataError

Fields = dict[str, object]
"""The fields of a record: name -> value."""
RecordKind = Literal["document", "query", "judgment", "ranking", "source"]
"""A ranking is one line of a run. A source is a query with the id of the document that it was written about."""

ID_NAMES = ("_id", "id")
# PyTerrier writes the document's id as `docno` and its own internal number as `docid`. So `docno` comes first.
PYTERRIER_ID_NAME = "docno"
DOCUMENT_ID_NAMES = (
    PYTERRIER_ID_NAME,
    "doc_id",
    "docid",
    "corpus-id",
    "pid",
    "document_id",
    "passage_id",
    "doc_number",
    "document_nr",
)
QUERY_ID_NAMES = ("query_id", "qid", "topic_id", "question_id", "query_number", "query_nr", "topic_number", "topic_nr")
GRADE_NAMES = ("score", "relevance", "rel", "label", "grade", "judgment", "judgement")
JUDGMENT_ID_NAMES = {
    "query": (*QUERY_ID_NAMES, "query", "topic"),
    "document": (*DOCUMENT_ID_NAMES, "document", "doc", "passage"),
}
# A query's text may have one of these names only if the query has no other text field.
PASSAGE_TEXT_NAMES = ("passage", "document", "passage_text", "document_text", "doc_text")
# A document's text may have one of these names only if the document has no other text field.
QUERY_TEXT_NAMES = ("query", "question", "query_text", "question_text")
# Kind of record -> part -> accepted names, the preferred one first.
FIELD_NAMES: dict[RecordKind, dict[str, tuple[str, ...]]] = {
    "document": {
        "id": (*ID_NAMES, *DOCUMENT_ID_NAMES, *QUERY_ID_NAMES, "uid"),
        "title": ("title",),
        "text": ("text", "contents", "content", "body", *PASSAGE_TEXT_NAMES, *QUERY_TEXT_NAMES),
    },
    "query": {
        "id": (*ID_NAMES, *QUERY_ID_NAMES, *DOCUMENT_ID_NAMES, "uid"),
        "text": ("text", *QUERY_TEXT_NAMES, "contents", "content", "body", *PASSAGE_TEXT_NAMES),
    },
    "judgment": {**JUDGMENT_ID_NAMES, "grade": GRADE_NAMES},
    "ranking": {**JUDGMENT_ID_NAMES, "score": ("score", "sim", "similarity")},
    "source": {"id": (*ID_NAMES, *QUERY_ID_NAMES, "uid"), "document": DOCUMENT_ID_NAMES},
}
OPTIONAL_PARTS = ("title",)
COLUMN_NAME = re.compile(r"#?[A-Za-z_.-]{1,30}|#|Q?0")  # has no digit, since most ids have one
SENTENCE_WORDS = 5  # a column name has fewer words than this


@lru_cache(10_000)
def fold_name(name: str) -> str:
    """The name in lower case, without a leading `#`, `-`, `_`, `.` and white space."""
    return re.sub(r"^\s*#|[-_.\s]", "", name).lower()


# Within each of these sets no name takes precedence over another.
EQUALLY_LIKELY_NAMES = [{*map(fold_name, names)} for names in (DOCUMENT_ID_NAMES[1:], QUERY_ID_NAMES, GRADE_NAMES)]
OTHER_KIND_NAMES = {"query": {*map(fold_name, PASSAGE_TEXT_NAMES)}, "document": {*map(fold_name, QUERY_TEXT_NAMES)}}
FOLDED_NAMES = {
    kind: {part: {*map(fold_name, names)} for part, names in parts.items()} for kind, parts in FIELD_NAMES.items()
}


@lru_cache(10_000)
def matching_fields(names: tuple[str, ...], kind: RecordKind, part: str) -> tuple[str, ...]:
    """Those of a record's field names that stand for this part, the preferred one first."""
    own = FIELD_NAMES[kind][part]
    found = (
        name
        for key in own
        for name in sorted(names, key=lambda name: name not in own)
        if fold_name(name) == fold_name(key)
    )
    return tuple(dict.fromkeys(found))


def field_values(row: Mapping[str, object], kind: RecordKind, part: str) -> list[tuple[str, object]]:
    """(name, value) of a record's fields that stand for this part, the preferred one first."""
    return [(name, row[name]) for name in matching_fields(tuple(row), kind, part)]


def is_named(name: str, kind: RecordKind, part: str) -> bool:
    """Whether this name stands for this part of a record."""
    return fold_name(name) in FOLDED_NAMES[kind][part]


def text_fields(row: Mapping[str, object], kind: RecordKind) -> list[tuple[str, object]]:
    """(name, value) of the fields that may hold the text of a document or a query.

    If a document has several text fields, those named like a query's text are left out, and vice versa.
    """
    found = field_values(row, kind, "text")
    others = OTHER_KIND_NAMES[kind]
    return [each for each in found if fold_name(each[0]) not in others] or found if len(found) > 1 else found


@lru_cache(10_000)
def rival_fields(names: tuple[str, ...], kind: RecordKind, part: str) -> tuple[str, ...]:
    """Two of the names, if both stand for the part and neither takes precedence; else empty."""
    first = matching_fields(names, kind, part)[:2]
    return first if len(first) > 1 and any({*map(fold_name, first)} <= alike for alike in EQUALLY_LIKELY_NAMES) else ()


def check_rivals(row: Mapping[str, object], kind: RecordKind, part: str, where: str) -> None:
    """Raises DataError if two fields stand for the same part of a record, differ, and neither takes precedence."""
    both = rival_fields(tuple(row), kind, part)
    if both and row[both[0]] != row[both[1]]:
        raise _rivals_error(both, part, where)


def _rivals_error(both: Sequence[str], part: str, where: str) -> DataError:
    return DataError(
        f"{where}: {both[0]!r} and {both[1]!r} both stand for the {part}, and neither takes precedence. Rename the one "
        f"that is not the {part}."
    )


def to_row(names: tuple[str, ...], cells: Sequence[str], kind: RecordKind, where: str) -> Fields:
    """The fields of a row of a table. Raises DataError if the row lacks the cell of a required part."""
    if len(cells) < len(names):
        for part in FIELD_NAMES[kind]:
            if part not in OPTIONAL_PARTS and matching_fields(names, kind, part)[0] not in names[: len(cells)]:
                columns = f"{len(cells)} column{'s' if len(cells) > 1 else ''}"
                raise DataError(
                    f"{where}: the row has {columns}, but the header has {len(names)} ({', '.join(names)}). The {part} "
                    "is missing. Write all columns."
                )
    return dict(zip(names, cells, strict=False))


def is_header(cells: Sequence[str], kind: RecordKind) -> bool:
    """Whether these cells contain a name for every required part of a record."""
    return not _missing_parts(tuple(cells), kind)


def _missing_parts(names: tuple[str, ...], kind: RecordKind) -> list[str]:
    return [part for part in FIELD_NAMES[kind] if part not in OPTIONAL_PARTS and not matching_fields(names, kind, part)]


def parse_header(cells: Sequence[str], kind: RecordKind, where: str) -> tuple[str, ...] | None:
    """The column names if a file's first line is a header. None if the line is a record.

    A header names every required part, in any order. A record may contain a word that is also a column name.

    Raises DataError if the line could be either: some parts are missing, but the first cell is a name for an id and the
    second is not a sentence, or all cells are single words and one of them is a column name. (Reading it as a record
    could add a false one, and reading it as a header could lose one.) Also raises DataError if two columns stand for
    the same part and neither takes precedence.
    """
    names = tuple(cell.strip() for cell in cells)
    parts = FOLDED_NAMES[kind]
    missing = _missing_parts(names, kind)
    if not missing:
        if len({*map(fold_name, names)}) < len(names):
            raise DataError(f"{where}: two columns have the same name ({', '.join(names)}). Rename one of them.")
        for part in parts:
            if both := rival_fields(names, kind, part):
                raise _rivals_error(both, part, where)
        return names
    named = any(is_named(name, kind, part) for name in names for part in parts)
    words = [word for name in names for word in name.split()] if " " in names[0] else names  # an id has no space
    if (named and all(map(COLUMN_NAME.fullmatch, words))) or _names_id(names, kind):
        example = "<TAB>".join(FIELD_NAMES[kind][part][0] for part in parts if part not in OPTIONAL_PARTS)
        raise DataError(
            f"{where}: the line looks like a header ({', '.join(names)}), but no column is named for the {missing[0]}. "
            f"Name it {FIELD_NAMES[kind][missing[0]][0]!r}. If the line is a record, put the header {example} above it."
        )
    return None


def _names_id(names: tuple[str, ...], kind: RecordKind) -> bool:
    """Whether the first cell is a name for the id of a document or query, and the second is not a sentence."""
    if len(names) < 2 or kind not in ("document", "query") or not is_named(names[0], kind, "id"):
        return False
    words = names[1].split()
    return len(words) < SENTENCE_WORDS and not (len(words) > 1 and names[1].endswith((".", "!", "?")))

"""What columns and fields are called: one table of names for JSONL, TSV, CSV, Parquet, qrels and runs.

Case, `-`, `_`, `.`, spaces and a `#` in front make no difference: `#Corpus-ID` is `corpus_id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from pdadapt.errors import DataError

Fields = dict[str, object]
RecordKind = Literal["document", "query", "judgment", "ranking", "source"]  # what a record is
"""A ranking is a line of a run; a source is a query with the document that it was written about."""

ID_NAMES = ("_id", "id")
PYTERRIER_ID_NAME = "docno"  # beside which PyTerrier writes its own number of the document, as `docid`
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
PASSAGE_TEXT_NAMES = (
    "passage",
    "document",
    "passage_text",
    "document_text",
    "doc_text",
)  # no text of a query that has its own
QUERY_TEXT_NAMES = ("query", "question", "query_text", "question_text")  # nor these of a document
FIELD_NAMES: dict[
    RecordKind, dict[str, tuple[str, ...]]
] = {  # what a record holds -> its names, that which counts most first
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
COLUMN_NAME = re.compile(r"#?[A-Za-z_.-]{1,30}|#|Q?0")  # what a column may be called; an id mostly holds a digit
SENTENCE_WORDS = 5  # words: a column's name has fewer


@lru_cache(10_000)
def fold_name(name: str) -> str:
    """A name without what makes no difference."""
    return re.sub(r"^\s*#|[-_.\s]", "", name).lower()


EQUALLY_LIKELY_NAMES = [
    {*map(fold_name, names)} for names in (DOCUMENT_ID_NAMES[1:], QUERY_ID_NAMES, GRADE_NAMES)
]  # none of these counts most
OTHER_KIND_NAMES = {"query": {*map(fold_name, PASSAGE_TEXT_NAMES)}, "document": {*map(fold_name, QUERY_TEXT_NAMES)}}
FOLDED_NAMES = {
    kind: {part: {*map(fold_name, names)} for part, names in parts.items()} for kind, parts in FIELD_NAMES.items()
}


@lru_cache(10_000)
def matching_fields(names: tuple[str, ...], kind: RecordKind, part: str) -> tuple[str, ...]:
    """Those of a record's names that may hold this part of it, that which counts most first."""
    own = FIELD_NAMES[kind][part]
    found = (
        name
        for key in own
        for name in sorted(names, key=lambda name: name not in own)
        if fold_name(name) == fold_name(key)
    )
    return tuple(dict.fromkeys(found))


def field_values(row: Mapping[str, object], kind: RecordKind, part: str) -> list[tuple[str, object]]:
    """(name, value) of the row's fields that may hold this part of a record, that which counts most first."""
    return [(name, row[name]) for name in matching_fields(tuple(row), kind, part)]


def is_named(name: str, kind: RecordKind, part: str) -> bool:
    """Whether a column of this name holds this part of a record."""
    return fold_name(name) in FOLDED_NAMES[kind][part]


def text_fields(row: Mapping[str, object], kind: RecordKind) -> list[tuple[str, object]]:
    """(name, value) of the fields that may hold the text of a document or a query: not that of the other beside it."""
    found = field_values(row, kind, "text")
    others = OTHER_KIND_NAMES[kind]
    return [each for each in found if fold_name(each[0]) not in others] or found if len(found) > 1 else found


@lru_cache(10_000)
def rival_fields(names: tuple[str, ...], kind: RecordKind, part: str) -> tuple[str, ...]:
    """Two names for the part, if neither counts more than the other; else none."""
    first = matching_fields(names, kind, part)[:2]
    return first if len(first) > 1 and any({*map(fold_name, first)} <= alike for alike in EQUALLY_LIKELY_NAMES) else ()


def check_rivals(row: Mapping[str, object], kind: RecordKind, part: str, where: str) -> None:
    """Raises DataError when two fields differ that name the same part of a record, and neither counts more."""
    both = rival_fields(tuple(row), kind, part)
    if both and row[both[0]] != row[both[1]]:
        raise _rivals_error(both, part, where)


def _rivals_error(both: Sequence[str], part: str, where: str) -> DataError:
    return DataError(
        f"{where}: {both[0]!r} and {both[1]!r} both name the {part}, and neither counts more. Rename the one that "
        "does not hold it."
    )


def to_row(names: tuple[str, ...], cells: Sequence[str], kind: RecordKind, where: str) -> Fields:
    """The fields of a row of a table. Raises DataError when it ends before a column that a record needs."""
    if len(cells) < len(names):
        for part in FIELD_NAMES[kind]:
            if part not in OPTIONAL_PARTS and matching_fields(names, kind, part)[0] not in names[: len(cells)]:
                columns = f"{len(cells)} column{'s' if len(cells) > 1 else ''}"
                raise DataError(
                    f"{where}: has {columns}, but the header names {len(names)} ({', '.join(names)}), and the {part} "
                    "is missing. Write all of them."
                )
    return dict(zip(names, cells, strict=False))


def is_header(cells: Sequence[str], kind: RecordKind) -> bool:
    """Whether these name every part that a record needs."""
    return not _missing_parts(tuple(cells), kind)


def _missing_parts(names: tuple[str, ...], kind: RecordKind) -> list[str]:
    return [part for part in FIELD_NAMES[kind] if part not in OPTIONAL_PARTS and not matching_fields(names, kind, part)]


def parse_header(cells: Sequence[str], kind: RecordKind, where: str) -> tuple[str, ...] | None:
    """The columns' names when a file's first line is a header: when it names every part that a record needs, in any
    order. None: it is a record, even if a word in it is a name too.

    Raises DataError when a part is not named, but the first cell is a name for an id and the next is no sentence, or
    all cells are words and some of them names: taken for a record the line would add one that nobody wrote, and taken
    for a header it could hide one. Also when two columns name the same part, and neither counts more.
    """
    names = tuple(cell.strip() for cell in cells)
    parts = FOLDED_NAMES[kind]
    missing = _missing_parts(names, kind)
    if not missing:
        if len({*map(fold_name, names)}) < len(names):
            raise DataError(f"{where}: two columns have the same name ({', '.join(names)}). Rename one.")
        for part in parts:
            if both := rival_fields(names, kind, part):
                raise _rivals_error(both, part, where)
        return names
    named = any(is_named(name, kind, part) for name in names for part in parts)
    words = [word for name in names for word in name.split()] if " " in names[0] else names  # no id holds a space
    if (named and all(map(COLUMN_NAME.fullmatch, words))) or _names_id(names, kind):
        example = "<TAB>".join(FIELD_NAMES[kind][part][0] for part in parts if part not in OPTIONAL_PARTS)
        raise DataError(
            f"{where}: looks like a header ({', '.join(names)}), but names no column for the {missing[0]}. Call it "
            f"{FIELD_NAMES[kind][missing[0]][0]!r}; or, if the line is a record, put the header {example} above it."
        )
    return None


def _names_id(names: tuple[str, ...], kind: RecordKind) -> bool:
    """Whether the first cell is a name for the id of a document or query, and the next is not plainly a sentence."""
    if len(names) < 2 or kind not in ("document", "query") or not is_named(names[0], kind, "id"):
        return False
    words = names[1].split()
    return len(words) < SENTENCE_WORDS and not (len(words) > 1 and names[1].endswith((".", "!", "?")))

"""What columns and fields are called: one table of names for JSONL, TSV, CSV, Parquet, qrels and runs.

Case, `-`, `_` and spaces make no difference: `Corpus-ID` is `corpus_id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from pdadapt.errors import DataError

Row = dict[str, object]
Kind = Literal["document", "query", "judgment", "ranking"]  # what a record is; a ranking is a line of a run

DOCUMENT_IDS = ("doc_id", "docid", "docno", "corpus-id", "pid", "document_id", "passage_id")
QUERY_IDS = ("query_id", "qid", "topic_id")
JUDGED = {
    "query": (*QUERY_IDS, "query", "topic"),
    "document": (*DOCUMENT_IDS, "document", "doc", "passage"),
}
NAMES: dict[Kind, dict[str, tuple[str, ...]]] = {  # what a record holds -> its names, that which counts most first
    "document": {
        "id": ("_id", "id", *DOCUMENT_IDS, *QUERY_IDS),
        "title": ("title",),
        "text": ("text", "contents", "content", "body", "passage", "document", "query"),
    },
    "query": {
        "id": ("_id", "id", *QUERY_IDS, *DOCUMENT_IDS),
        "text": ("text", "query", "question", "contents", "content", "body", "passage"),
    },
    "judgment": {**JUDGED, "grade": ("score", "relevance", "rel", "label", "grade", "judgment")},
    "ranking": {**JUDGED, "score": ("score", "sim", "similarity")},
}
OPTIONAL = ("title",)
WORD = re.compile(r"[A-Za-z_-]{1,30}|Q?0")  # what a column may be called; an id mostly holds a digit, a text a space


@lru_cache(10_000)
def fold(name: str) -> str:
    """A name without what makes no difference."""
    return re.sub(r"[-_\s]", "", name).lower()


FOLDED = {kind: {part: {*map(fold, names)} for part, names in parts.items()} for kind, parts in NAMES.items()}


@lru_cache(10_000)
def fields(names: tuple[str, ...], kind: Kind, part: str) -> tuple[str, ...]:
    """Those of a record's names that may hold this part of it, that which counts most first."""
    own = NAMES[kind][part]
    exact = [name for name in own if name in names]
    return (*exact, *(name for key in own for name in names if name not in exact and fold(name) == fold(key)))


def values(row: Mapping[str, object], kind: Kind, part: str) -> list[tuple[str, object]]:
    """(name, value) of the row's fields that may hold this part of a record, that which counts most first."""
    return [(name, row[name]) for name in fields(tuple(row), kind, part)]


def is_named(name: str, kind: Kind, part: str) -> bool:
    """Whether a column of this name holds this part of a record."""
    return fold(name) in FOLDED[kind][part]


def header(cells: Sequence[str], kind: Kind, where: str) -> tuple[str, ...] | None:
    """The columns' names when a file's first line is a header: when it names every part that a record needs, in any
    order. None: it is a record, even if a word in it is a name too.

    Raises DataError when all its cells are words, and some of them names, but a part is not named: taken for a record
    it would add one that nobody wrote, and taken for a header it could hide one.
    """
    names = tuple(cell.strip() for cell in cells)
    parts = FOLDED[kind]
    missing = [part for part in parts if part not in OPTIONAL and not any(is_named(name, kind, part) for name in names)]
    if not missing:
        if len({*map(fold, names)}) < len(names):
            raise DataError(f"{where}: two columns have the same name ({', '.join(names)}). Rename one.")
        return names
    if all(map(WORD.fullmatch, names)) and any(is_named(name, kind, part) for name in names for part in parts):
        example = "<TAB>".join(NAMES[kind][part][0] for part in parts if part not in OPTIONAL)
        raise DataError(
            f"{where}: looks like a header ({', '.join(names)}), but names no column for the {missing[0]}. Call it "
            f"{NAMES[kind][missing[0]][0]!r}; or, if the line is a record, put the header {example} above it."
        )
    return None

"""Queries from files. Blank queries are left out and noted."""

from __future__ import annotations

from pathlib import Path

from pdadapt.data.columns import field_values
from pdadapt.data.corpus import Queries
from pdadapt.data.lines import file_ending
from pdadapt.data.notices import Notices
from pdadapt.data.records import (
    has_value,
    read_id,
    read_rows,
    read_text,
)
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError


def read_queries(path: Path, notices: Notices | None = None) -> Queries:
    """Read queries: one a line (.txt; ids are q1, q2, ...), TSV (id, text), JSONL (`_id`, `text`) or CSV.

    Blank queries are left out, and noted. Raises DataError, with file and line, on what cannot be read, and when no
    query is left.
    """
    return read_queries_and_answers(path, notices)[0]


def read_queries_and_answers(path: Path, notices: Notices | None = None) -> tuple[Queries, dict[str, tuple[str, ...]]]:
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
    if queries and file_ending(path) == ".txt" and all("\t" in text for text in queries.values()):
        found = (
            f"{path}: every line holds a tab, and is read as one query. If it is an id and a text, name the file .tsv"
        )
        notices.add(f"tabs of {path}", f"{found}.", f"{found}, or leave out --strict.")
    if not queries:
        raise DataError(f"{path} holds no queries{' that are not blank' if blank else ''}; give the file that does.")
    return queries, answers


def read_query_sources(path: Path) -> Qrels:
    """Of queries with an id and the id of a document, the document that each was written about, as relevant."""
    return {
        read_id(row, "source", where): {read_id(row, "source", where, "document"): 1}
        for row, where in read_rows(path, "query")
        if all(any(has_value(value) for _, value in field_values(row, "source", part)) for part in ("id", "document"))
    }

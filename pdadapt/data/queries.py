"""Read queries from files. Blank queries are left out and noted in `Notices`."""

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
    """Read a file of queries: TXT (one per line), TSV (id, text), JSONL (`_id`, `text`), CSV or Parquet.

    In a TXT file a query's id is `q` and its line number. Blank queries are left out and noted. Raises DataError with
    file and line if a record is malformed, and if no query is left.
    """
    return read_queries_and_answers(path, notices)[0]


def read_queries_and_answers(path: Path, notices: Notices | None = None) -> tuple[Queries, dict[str, tuple[str, ...]]]:
    """(queries as `read_queries` reads them, accepted answers by query id).

    A query may have a field `answers`, a list of texts, if it is an open-domain question.
    """
    queries: Queries = {}
    answers: dict[str, tuple[str, ...]] = {}
    blank: dict[str, str] = {}  # query_id -> where
    for row, where in read_rows(path, "query"):
        query_id = read_id(row, "query", where)
        if query_id in queries or query_id in blank:
            raise DataError(f"{where}: duplicate query id {query_id!r}. Remove or rename one of them.")
        if not (text := read_text(row, where, "query").strip()):
            blank[query_id] = where
            continue
        queries[query_id] = text
        if isinstance(listed := row.get("answers"), list):
            answers[query_id] = tuple(map(str, listed))
    notices = notices or Notices()
    notices.leave_out("query", path, list(blank), next(iter(blank.values()), ""))
    if queries and file_ending(path) == ".txt" and all("\t" in text for text in queries.values()):
        problem = f"{path}: every line contains a tab, but was read as one query."
        remedy = "If the lines are an id and a text, rename the file to .tsv"
        notices.add(f"tabs of {path}", f"{problem} {remedy}.", f"{problem} {remedy}, or leave out --strict.")
    if not queries:
        raise DataError(
            f"{path} contains no queries{' that are not blank' if blank else ''}. Choose a file that has some."
        )
    return queries, answers


def read_query_sources(path: Path) -> Qrels:
    """Read the documents that generated queries were written about, as qrels of grade 1.

    Queries without an id, or without the id of a document, are left out. Raises DataError if the file is malformed.
    """
    return {
        read_id(row, "source", where): {read_id(row, "source", where, "document"): 1}
        for row, where in read_rows(path, "query")
        if all(any(has_value(value) for _, value in field_values(row, "source", part)) for part in ("id", "document"))
    }

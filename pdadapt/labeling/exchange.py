"""Labels as files and tables: export them for other trainers, import them, show them to a person."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Group
from rich.table import Column, Table

from pdadapt.data.lines import file_ending
from pdadapt.data.records import check_text, read_rows
from pdadapt.data.run_file import read_run
from pdadapt.errors import DataError, RunError
from pdadapt.labeling.store import LabelStore, batched
from pdadapt.labeling.training_list import TrainingList, read_lists
from pdadapt.runs.folder import store_of_run
from pdadapt.runtime.files import read_settings
from pdadapt.runtime.printing import shorten
from pdadapt.runtime.terminal import Name, WholeTable, plain

LABEL_COLUMNS = (
    "task",
    "teacher",
    "model",
    "query_id",
    "query",
    "doc_id",
    "document",
    "doc_id_b",
    "document_b",
    "score",
)
ROWS_PER_BATCH = 10_000
TEXT_CHARACTERS = 120  # of a document in a table


def read_label_rows(store: Path) -> Iterator[dict[str, Any]]:
    """Yield one row of LABEL_COLUMNS per label, in the order of teacher, query and documents. Points have no document
    b.

    score: the score of a point, or the log-odds of a pair that `document` is more relevant than `document_b`. A text
    that several documents share appears under one of their ids. model: the teacher's name as the user gave it.
    """
    with contextlib.closing(sqlite3.connect(store)) as database:
        name = "(SELECT max(name) FROM names n WHERE n.text = {}.id AND n.kind = '{}')".format
        query, document = name("q", "query"), name("a", "document")
        point = f"""
            SELECT 'point', t.key, t.name, {query}, q.text, {document}, a.text, NULL, NULL, p.score
            FROM points p JOIN teachers t ON t.id = p.teacher JOIN texts q ON q.id = p.query
            JOIN texts a ON a.id = p.document"""
        pair = f"""
            SELECT 'pair', t.key, t.name, {query}, q.text, {document}, a.text, {name("b", "document")}, b.text, p.score
            FROM pairs p JOIN teachers t ON t.id = p.teacher JOIN texts q ON q.id = p.query
            JOIN texts a ON a.id = p.document_a JOIN texts b ON b.id = p.document_b"""
        for row in database.execute(f"{point} UNION ALL {pair} ORDER BY 1 DESC, 2, 4, 6, 8, 5, 7, 9"):
            yield dict(zip(LABEL_COLUMNS, row, strict=True))


def export_labels(store: Path, out: Path, file_format: Literal["jsonl", "parquet"]) -> int:
    """Write every label with its texts, and return the number of labels. Raises DataError when the store cannot be read
    or the file cannot be written.
    """
    if not store.is_file():
        raise DataError(f"{store} was not found: nothing has been labeled there. Give a run that has labels.")
    temporary = out.with_name(out.name + ".part")
    try:
        count = (_write_jsonl if file_format == "jsonl" else _write_parquet)(temporary, read_label_rows(store))
        temporary.replace(out)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise DataError(f"{store} is not a label store ({error}). Give a run that has labels.") from None
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}). Give another --out.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return count


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            kept = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps({**kept, "teacher": json.loads(row["teacher"])}, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [(name, pyarrow.float64() if name == "score" else pyarrow.string()) for name in LABEL_COLUMNS]
    )
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for batch in batched(rows, ROWS_PER_BATCH):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def import_labels(file: Path, store: Path, name: str | None) -> int:
    """Copy labels from a JSONL or Parquet file of LABEL_COLUMNS into a store, and return the number of labels.

    The whole file is checked before anything is written. If a kill stops the import, the same import adds the rest.
    With a name, the rows become labels of the teacher `imported:NAME`. Without one, they belong to the `teacher` in
    each row.

    Raises DataError when a line is wrong, or contradicts an earlier line or the store. The message names the line.
    """
    if not store.parent.is_dir():
        raise DataError(
            f"{store} cannot be made: there is no folder {store.parent}. Make the folder, or give another --store."
        )
    by_key: dict[tuple[str, str], dict[tuple[str, ...], tuple[float, str]]] = {}  # texts -> score, and its line
    names: dict[str, str] = {}  # key -> what a person calls the teacher
    text_ids: dict[Literal["query", "document"], dict[str, str]] = {"query": {}, "document": {}}  # empty: id unknown
    for where, row in _read_rows(file):
        task, key = _teacher(row, name, where)
        fields = ("query", "document") if task == "point" else ("query", "document", "document_b")
        texts = tuple(check_text(text, where) for field in fields if isinstance(text := row.get(field), str))
        score = row.get("score")
        if len(texts) < len(fields):
            raise DataError(f"{where}: needs the texts {', '.join(fields)}. Add them.")
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not abs(score) <= sys.float_info.max:
            raise DataError(f"{where}: `score` must be a finite number. Correct it.")
        if task == "pair" and texts[1] == texts[2]:
            raise DataError(f"{where}: `document` and `document_b` are the same text. Remove the row.")
        labels = by_key.setdefault((task, key), {})
        first_score, first_line = labels.setdefault(texts, (float(score), where))
        if first_score != float(score):
            raise DataError(
                f"{where}: the score is {score}, but {first_score} for the same texts in {first_line}. Keep one of "
                "the two rows."
            )
        names[key] = name or _name(row.get("model"), where) or names.get(key, "")
        for id_field, text in zip(("query_id", "doc_id", "doc_id_b"), texts, strict=False):
            ids = text_ids["query" if id_field == "query_id" else "document"]
            ids[text] = _name(row.get(id_field), where) or ids.get(text, "")
    if not by_key:
        raise DataError(f"{file} holds no labels. Give a file that has labels.")
    with contextlib.ExitStack() as stack:
        targets = {
            (task, key): stack.enter_context(LabelStore(store, f"{task}s", key, names[key])) for task, key in by_key
        }
        for teacher, labels in by_key.items():
            _check_alike(targets[teacher], labels)
        for teacher, labels in by_key.items():
            for kind, ids in text_ids.items():
                targets[teacher].store_texts(kind, ((text_id, text) for text, text_id in ids.items()))
            for batch in batched(labels.items(), ROWS_PER_BATCH):
                targets[teacher].add((texts, score) for texts, (score, _) in batch)
    return sum(map(len, by_key.values()))


def _check_alike(target: LabelStore, labels: Mapping[tuple[str, ...], tuple[float, str]]) -> None:
    """Raises DataError when the store holds another score for the same texts. It must stay, because a run may have used
    it.
    """
    for texts, (score, where) in labels.items():
        known = target.get(texts)
        if known is not None and known != score:
            raise DataError(
                f"{where}: the score is {score}, but {target.path} holds {known} for the same texts. Give these labels "
                "another --name, or another --store."
            )


def _name(value: Any, where: str) -> str:
    """Return an id or the name of a model; empty if there is none."""
    return check_text(str(value), where) if isinstance(value, (str, int)) else ""


def _teacher(row: Mapping[str, Any], name: str | None, where: str) -> tuple[str, str]:
    """Return the task and the key in the store of a row's teacher."""
    task = row.get("task") or ("pair" if row.get("document_b") is not None else "point")
    if task not in ("point", "pair"):
        raise DataError(f"{where}: `task` must be point or pair. Correct it, or leave it out.")
    if name is not None:
        return task, json.dumps({"task": task, "kind": "imported", "model": name}, sort_keys=True)
    key = row.get("teacher")
    if key is None:
        raise DataError(f"{where}: no teacher is named. Give it a name with --name NAME, and use it as imported:NAME.")
    try:
        return task, json.dumps(json.loads(key) if isinstance(key, str) else key, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        raise DataError(f"{where}: `teacher` was not written by `pdadapt labels export`. Give --name NAME.") from None


def _read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, row) for each label."""
    if file_ending(file) not in (".jsonl", ".json", ".parquet"):
        raise DataError(f"{file}: labels come as .jsonl or .parquet. Convert the file.")
    yield from ((where, row) for row, where in read_rows(file, "judgment"))


def label_tables(run: Path, query_id: str) -> Group:
    """Return tables of the teachers' labels for one query of a run: its documents by their point labels, and its pairs.

    Raises RunError or DataError when there is nothing to show.
    """
    store = store_of_run(run)
    files = sorted(run.glob("iteration-*/lists.jsonl"), key=lambda path: int(path.parent.name.split("-")[1]))
    if not files or not store.is_file():
        raise RunError(f"{run} has no training lists yet. Repeat the same `pdadapt adapt` to finish the labeling.")
    lists = {entry.query_id: entry for entry in read_lists(files[-1])}
    if query_id not in lists:
        raise DataError(
            f"Query {query_id!r} is not in {files[-1]}. Give a query that is, for example {next(iter(lists), None)!r}."
        )
    entry = lists[query_id]
    query, texts = _texts(store, entry)
    judged = len(read_run(files[-1].with_name("candidates.run")).get(query_id, entry.doc_ids))
    figures = read_settings(files[-1].with_name("labels.json"))
    note = f"{len(entry.doc_ids)} of {judged} judged documents are in its training list (train.n_way, train.list)."
    return Group(
        plain(f"{query_id}: {query}"), _documents(entry, texts), note, _pairs(entry, bool(figures.get("pairs_derived")))
    )


def _texts(store: Path, entry: TrainingList) -> tuple[str, dict[str, str]]:
    """Return (the query, document id -> text) of a list. If the store has several corpora, the one with most of these
    ids is used.
    """
    marks = ", ".join("?" for _ in entry.doc_ids)
    with contextlib.closing(sqlite3.connect(store)) as database:
        rows = database.execute(
            f"""SELECT DISTINCT q.text, a.name, d.text FROM points p
            JOIN names n ON n.text = p.query AND n.kind = 'query' AND n.name = ? JOIN texts q ON q.id = p.query
            JOIN names a ON a.text = p.document AND a.kind = 'document' AND a.name IN ({marks})
            JOIN texts d ON d.id = p.document""",
            [entry.query_id, *entry.doc_ids],
        )
        documents: dict[str, dict[str, str]] = {}  # query text -> document id -> text
        for query, doc_id, document in rows:
            documents.setdefault(query, {})[doc_id] = document
    return max(documents.items(), key=lambda item: len(item[1]), default=("", {}))


def _documents(entry: TrainingList, texts: Mapping[str, str]) -> Table:
    table = WholeTable(
        Column("rank", justify="right"),
        Name("document"),
        Column("point label", justify="right"),
        Name("text"),
        title="documents, by their point labels",
        title_justify="left",
    )
    for rank, (doc_id, point) in enumerate(zip(entry.doc_ids, entry.points, strict=True), 1):
        label = "no answer" if point is None else f"{point:+.3f}"
        table.add_row(str(rank), plain(doc_id), label, plain(shorten(texts.get(doc_id, ""), TEXT_CHARACTERS, " [...]")))
    return table


def _pairs(entry: TrainingList, derived: bool) -> Table:
    table = WholeTable(
        "ranks",
        Name("higher by its point"),
        Name("lower"),
        Column("log-odds for the higher", justify="right"),
        "",
        title="pairs, derived from the points" if derived else "pairs",
        title_justify="left",
    )
    for i, j, log_odds in entry.pairs:
        contradiction = "contradicts the points" if log_odds < 0 else ""
        table.add_row(
            f"{i + 1}, {j + 1}", plain(entry.doc_ids[i]), plain(entry.doc_ids[j]), f"{log_odds:+.3f}", contradiction
        )
    return table

"""The label store: what teachers said, kept by content in SQLite, over iterations and runs.

A label's key is the teacher (model, prompt, lengths: `teacher_key`) and the hashes of the texts it read. Each batch is
committed before the next is asked, so a kill loses at most the batch in flight. The texts stand beside their hashes, so
that labels can be read, and given to other trainers, without the corpus.

    teachers(id, key)                                        key: JSON
    texts(hash, kind, id, text)                              kind: query or document (id: empty where it has none), or
                                                             teacher (id: its model as named; text: its key)
    points(teacher, query, document, score)                  query, document: 16-byte hashes
    pairs(teacher, query, document_a, document_b, score)     score: log-odds that a is the more relevant
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pdadapt.errors import DataError
from pdadapt.run import check_place

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS teachers (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS texts (
    hash BLOB NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (hash, kind, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (
    teacher INTEGER NOT NULL, query BLOB NOT NULL, document BLOB NOT NULL, score REAL NOT NULL,
    PRIMARY KEY (teacher, query, document)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pairs (
    teacher INTEGER NOT NULL, query BLOB NOT NULL, document_a BLOB NOT NULL, document_b BLOB NOT NULL,
    score REAL NOT NULL, PRIMARY KEY (teacher, query, document_a, document_b)) WITHOUT ROWID;
COMMIT;
"""


def text_hash(text: str) -> bytes:
    """16 bytes of SHA-256."""
    return hashlib.sha256(text.encode()).digest()[:16]


def count_labels(path: Path, table: str, key: str, most: int | None = None) -> int:
    """How many labels of this teacher the store holds in `points` or `pairs`; counted up to `most`.

    Raises DataError when the file is not a label store.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file as label_store.")
    check_place(path)
    if not path.is_file():
        return 0
    of_teacher = f"SELECT 1 FROM {table} WHERE teacher = (SELECT id FROM teachers WHERE key = ?) LIMIT ?"
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            check_tables(database, path)
            found = database.execute(f"SELECT count(*) FROM ({of_teacher})", (key, -1 if most is None else most))
            return int(found.fetchone()[0])
    except sqlite3.OperationalError:  # no tables yet: killed as it began
        return 0
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path} is not a label store ({error}); give another label_store.") from None


def is_labeled(path: Path, key: str) -> bool:
    """Whether the store holds a label of this teacher. Raises DataError when the file is not a label store."""
    return any(count_labels(path, table, key, most=1) for table in ("points", "pairs"))


def check_tables(database: sqlite3.Connection, path: Path) -> None:
    """Raises DataError when the database is of something else."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "teachers" not in tables:
        raise DataError(
            f"{path} is not a label store (it has the tables {', '.join(sorted(tables))}); give another label_store."
        )


class LabelStore:
    """Scores of one teacher, in one table: `points` (query, document) or `pairs` (query, document_a, document_b)."""

    def __init__(self, path: Path, table: str, key: str, name: str = ""):
        """name: what a person calls the teacher. Raises DataError when the file is not a label store."""
        columns = {"points": ("query", "document"), "pairs": ("query", "document_a", "document_b")}[table]
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60)
            check_tables(self._db, path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(SCHEMA)
            with self._db:
                self._db.execute("INSERT OR IGNORE INTO teachers (key) VALUES (?)", (key,))
            self._teacher = self._db.execute("SELECT id FROM teachers WHERE key = ?", (key,)).fetchone()[0]
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{path} cannot be used as a label store now ({error}); give another label_store."
            ) from None
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is not a label store ({error}); give another label_store.") from None
        if name:
            self.remember("teacher", [(name, key)])
        where = " AND ".join(f"{column} = ?" for column in columns)
        self._select = f"SELECT score FROM {table} WHERE teacher = ? AND {where}"
        marks = ", ".join("?" for _ in columns)
        self._insert = f"INSERT OR REPLACE INTO {table} VALUES (?, {marks}, ?)"

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def remember(self, kind: Literal["query", "document", "teacher"], texts: Iterable[tuple[str, str]]) -> None:
        """Keep texts, (id, text) each, beside their hashes."""
        with self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?)",
                ((text_hash(text), kind, text_id, text) for text_id, text in texts),
            )

    def get(self, texts: Sequence[str]) -> float | None:
        """The score of (query, document) or (query, document_a, document_b); None when it was never asked."""
        row = self._db.execute(self._select, (self._teacher, *map(text_hash, texts))).fetchone()
        return None if row is None else float(row[0])

    def add(self, labels: Iterable[tuple[Sequence[str], float]]) -> None:
        """Commit a batch of (texts, score)."""
        with self._db:
            self._db.executemany(
                self._insert, [(self._teacher, *map(text_hash, texts), score) for texts, score in labels]
            )

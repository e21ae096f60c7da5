"""The label store: what teachers said, kept by content in SQLite, over iterations and runs.

A label's key is the teacher (model, prompt, lengths: `teacher_key`) and the hashes of the texts it read. Each batch is
committed before the next is asked, so a kill loses at most the batch in flight. The texts stand beside their hashes, so
that labels can be read, and given to other trainers, without the corpus.

    teachers(id, key, name)                                  key: JSON; name: what a person calls it
    texts(id, hash, text)                                    each text once, found by 16 bytes of its SHA-256
    names(text, kind, name)                                  kind: query or document; name: its id in a corpus
    points(teacher, query, document, score)                  query, document: ids of texts
    pairs(teacher, query, document_a, document_b, score)     score: log-odds that a is the more relevant
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pdadapt.errors import DataError
from pdadapt.run import check_place

VERSION = 1  # of the tables
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS teachers (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS names (
    text INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (text, kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (
    teacher INTEGER NOT NULL, query INTEGER NOT NULL, document INTEGER NOT NULL, score REAL NOT NULL,
    PRIMARY KEY (teacher, query, document)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pairs (
    teacher INTEGER NOT NULL, query INTEGER NOT NULL, document_a INTEGER NOT NULL, document_b INTEGER NOT NULL,
    score REAL NOT NULL, PRIMARY KEY (teacher, query, document_a, document_b)) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""
KNOWN_TEXTS = 2**16  # whose ids are kept at hand


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
    if tables and database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        raise DataError(
            f"{path} is a label store of another version of pdadapt: give another label_store, and bring its labels by "
            "that version's `pdadapt labels export` and this one's `labels import`."
        )


class LabelStore:
    """Scores of one teacher, in one table: `points` (query, document) or `pairs` (query, document_a, document_b)."""

    def __init__(self, path: Path, table: str, key: str, name: str = ""):
        """name: what a person calls the teacher. Raises DataError when the file is not a label store."""
        columns = {"points": ("query", "document"), "pairs": ("query", "document_a", "document_b")}[table]
        self._ids: dict[bytes, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60)
            check_tables(self._db, path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(SCHEMA)
            with self._db:
                self._db.execute("INSERT OR IGNORE INTO teachers (key) VALUES (?)", (key,))
                if name:
                    self._db.execute("UPDATE teachers SET name = ? WHERE key = ?", (name, key))
            self._teacher = self._db.execute("SELECT id FROM teachers WHERE key = ?", (key,)).fetchone()[0]
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{path} cannot be used as a label store now ({error}); give another label_store."
            ) from None
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is not a label store ({error}); give another label_store.") from None
        where = " AND ".join(f"{column} = ?" for column in columns)
        self._select = f"SELECT score FROM {table} WHERE teacher = ? AND {where}"
        marks = ", ".join("?" for _ in columns)
        self._insert = f"INSERT OR REPLACE INTO {table} VALUES (?, {marks}, ?)"

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def remember(self, kind: Literal["query", "document"], texts: Iterable[tuple[str, str]]) -> None:
        """Keep texts, (id, text) each, before anything is said of them."""
        with self._commit():
            for name, text in texts:
                row = (self._keep(text), kind, name)
                self._db.execute("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", row)

    def get(self, texts: Sequence[str]) -> float | None:
        """The score of (query, document) or (query, document_a, document_b); None when it was never asked."""
        ids = [self._find(text_hash(text)) for text in texts]
        row = None if None in ids else self._db.execute(self._select, (self._teacher, *ids)).fetchone()
        return None if row is None else float(row[0])

    def add(self, labels: Iterable[tuple[Sequence[str], float]]) -> None:
        """Commit a batch of (texts, score)."""
        with self._commit():
            self._db.executemany(
                self._insert, [(self._teacher, *map(self._keep, texts), score) for texts, score in labels]
            )

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        """What is written within is kept, all of it or nothing."""
        try:
            with self._db:
                yield
        except BaseException:
            self._ids.clear()  # of which some may be gone again
            raise

    def _find(self, digest: bytes) -> int | None:
        """The id of a text, if it is kept."""
        if digest not in self._ids:
            row = self._db.execute("SELECT id FROM texts WHERE hash = ?", (digest,)).fetchone()
            if row is None:
                return None
            if len(self._ids) >= KNOWN_TEXTS:
                self._ids.clear()
            self._ids[digest] = row[0]
        return self._ids[digest]

    def _keep(self, text: str) -> int:
        """The id of a text, which is kept from now on."""
        digest = text_hash(text)
        while (found := self._find(digest)) is None:
            self._db.execute("INSERT OR IGNORE INTO texts (hash, text) VALUES (?, ?)", (digest, text))
        return found

"""The label store: the teachers' labels in SQLite, found by content, shared by iterations and runs.

A label is found by its teacher's key (model, prompt, lengths: see `teacher_key`) and the hashes of the texts that the
teacher read. Each batch is committed before the next one is asked, so a kill loses at most the batch in flight. The
texts are stored with their hashes. So labels can be read without the corpus, and given to other trainers.

Several runs may share a store. The first answer to a question stays, because a run may have chosen its pairs by it.

    teachers(id, key, name)                                  key: JSON; name: what a person calls the teacher
    texts(id, hash, text)                                    each text once, found by 16 bytes of its SHA-256
    names(text, kind, name)                                  kind: query or document; name: the id in a corpus
    points(teacher, query, document, score)                  query, document: ids of texts
    pairs(teacher, query, document_a, document_b, score)     score: log-odds that a is more relevant than b
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pdadapt.errors import DataError
from pdadapt.runtime.files import check_parent_folder

TABLES_VERSION = 1
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
PRAGMA user_version = {TABLES_VERSION};
COMMIT;
"""
ID_TABLES = ("teachers", "texts")  # tables whose ids the other tables refer to
KEY_COLUMNS = {"points": ("query", "document"), "pairs": ("query", "document_a", "document_b")}
CHOOSE_ADVICE = "Set label_store to another file"
RELABEL_ADVICE = "Remove the file and label the shard again"
CACHED_TEXT_IDS = 2**16  # ids of texts that are kept in memory
TEXTS_PER_TRANSACTION = 1_000  # small, so that other writers get their turn
SQLITE_PATIENCE = 1.0  # seconds that SQLite waits for another writer
WRITER_PATIENCE = 1_800.0  # seconds that `_in_turn` waits for other writers
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

T = TypeVar("T")


def text_hash(text: str) -> bytes:
    """Return the first 16 bytes of the text's SHA-256."""
    return hashlib.sha256(text.encode()).digest()[:16]


def count_labels(path: Path, table: str, key: str, limit: int | None = None) -> int:
    """Return how many labels of this teacher the store holds in `points` or `pairs`. Counting stops at `limit`.

    Raises DataError when the file is not a label store.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder. Set label_store to a file.")
    check_parent_folder(path)
    if not path.is_file():
        return 0
    of_teacher = f"SELECT 1 FROM {table} WHERE teacher = (SELECT id FROM teachers WHERE key = ?) LIMIT ?"
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            check_tables(database, path)
            count = database.execute(f"SELECT count(*) FROM ({of_teacher})", (key, -1 if limit is None else limit))
            return int(count.fetchone()[0])
    except sqlite3.OperationalError:  # no tables yet: a kill stopped the process that made the file
        return 0
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a label store ({error}). {CHOOSE_ADVICE}.") from None


def is_labeled(path: Path, key: str) -> bool:
    """Whether the store holds any label of this teacher. Raises DataError when the file is not a label store."""
    return any(count_labels(path, table, key, limit=1) for table in ("points", "pairs"))


def check_tables(database: sqlite3.Connection, path: Path, schema: str = "main") -> bool:
    """Whether the database has tables. Raises DataError when they are not those of a label store of this version.

    schema: the name of one database, if the connection has several.
    """
    tables = {name for (name,) in database.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'")}
    if tables and "teachers" not in tables:
        raise DataError(
            f"{path} is not a label store (it has the tables {', '.join(sorted(tables))}). {CHOOSE_ADVICE}."
        )
    if tables and database.execute(f"PRAGMA {schema}.user_version").fetchone()[0] != TABLES_VERSION:
        raise DataError(
            f"{path} is a label store of another version of pdadapt. {CHOOSE_ADVICE}. To keep the labels, export them "
            "with that version's `pdadapt labels export` and import them with this version's `pdadapt labels import`."
        )
    return bool(tables)


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` rows. The last list may be shorter."""
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


class Labels:
    """The scores of one teacher in one table: `points` (query, document) or `pairs` (query, document_a, document_b)."""

    def __init__(self, database: sqlite3.Connection, table: str, key: str):
        self._db = database
        self._columns = KEY_COLUMNS[table]
        where = " AND ".join(f"{column} = ?" for column in self._columns)
        self._select = f"SELECT score FROM {table} WHERE teacher = ? AND {where}"
        self._any = f"SELECT 1 FROM {table} WHERE teacher = ? LIMIT 1"
        row = database.execute("SELECT id FROM teachers WHERE key = ?", (key,)).fetchone()
        self._teacher = row and row[0]
        self._ids: dict[bytes, int] = {}  # hash of a text -> its id

    def get(self, texts: Sequence[str]) -> float | None:
        """Return the score of (query, document) or (query, document_a, document_b). None if the store has no score."""
        ids = [self._find(text_hash(text)) for text in texts]
        row = None if None in ids else self._db.execute(self._select, (self._teacher, *ids)).fetchone()
        return None if row is None else float(row[0])

    @property
    def is_empty(self) -> bool:
        """Whether the table holds no score of this teacher."""
        return self._db.execute(self._any, (self._teacher,)).fetchone() is None

    def close(self) -> None:
        self._db.close()

    def _find(self, digest: bytes) -> int | None:
        """Return the id of a text, or None if the text is not stored."""
        if digest not in self._ids:
            row = self._db.execute("SELECT id FROM texts WHERE hash = ?", (digest,)).fetchone()
            if row is None:
                return None
            if len(self._ids) >= CACHED_TEXT_IDS:
                self._ids.clear()
            self._ids[digest] = row[0]
        return self._ids[digest]


class LabelStore(Labels):
    """A label store that can be written to."""

    def __init__(self, path: Path, table: str, key: str, name: str = "", fallback: Path | None = None):
        """Open the store, and make it if it does not exist.

        name: what a person calls the teacher. fallback: another store that is also read; nobody may write to it
        meanwhile. Raises DataError when a file is not a label store.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opening(path):
            database = _in_turn(path, lambda: _open_to_write(path, key, name))
            super().__init__(database, table, key)
        self.path = path
        marks = ", ".join("?" for _ in self._columns)
        self._insert = f"INSERT OR IGNORE INTO {table} VALUES (?, {marks}, ?)"
        self._fallback = open_frozen(fallback, table, key) if fallback else None

    @property
    def identity(self) -> int:
        """A random number drawn when the store was made. It differs if another store takes its place."""
        return int(self._db.execute("PRAGMA application_id").fetchone()[0])

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._fallback:
            self._fallback.close()

    def get(self, texts: Sequence[str]) -> float | None:
        """Return the score from this store, or else from the fallback."""
        score = super().get(texts)
        return self._fallback.get(texts) if score is None and self._fallback else score

    @property
    def is_empty(self) -> bool:
        """Whether neither this table nor that of the fallback holds a score of this teacher."""
        return super().is_empty and (self._fallback is None or self._fallback.is_empty)

    def store_texts(self, kind: Literal["query", "document"], texts: Iterable[tuple[str, str]]) -> None:
        """Store texts, each an (id, text), before they have any label."""
        for block in batched(texts, TEXTS_PER_TRANSACTION):
            with self._commit():
                rows = [(self._keep(text), kind, name) for name, text in block]
                self._db.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", rows)

    def add(self, labels: Iterable[tuple[Sequence[str], float]]) -> None:
        """Commit a batch of (texts, score). A label that exists already does not change."""
        batch = list(labels)
        with self._commit():
            rows = [(self._teacher, *map(self._keep, texts), score) for texts, score in batch]
            self._db.executemany(self._insert, rows)

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        """Commit everything written within, or nothing of it. Raises DataError if other processes keep writing for too
        long.
        """
        _in_turn(self.path, lambda: self._db.execute("BEGIN IMMEDIATE"))
        try:
            with self._db:
                yield
        except BaseException:
            self._ids.clear()  # the rollback may have removed some of these texts
            raise

    def _keep(self, text: str) -> int:
        """Return the id of a text, and store the text if it is new."""
        digest = text_hash(text)
        while (text_id := self._find(digest)) is None:
            self._db.execute("INSERT OR IGNORE INTO texts (hash, text) VALUES (?, ?)", (digest, text))
        return text_id


def _open_to_write(path: Path, key: str, name: str) -> sqlite3.Connection:
    """Connect to the store, make it if it does not exist, and add the teacher. Callers begin transactions by hand."""
    database = sqlite3.connect(path, timeout=SQLITE_PATIENCE, isolation_level=None)
    try:
        check_tables(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA)
        if not database.execute("PRAGMA application_id").fetchone()[0]:
            database.execute(f"PRAGMA application_id = {1 + secrets.randbelow(2**31 - 1)}")
        database.execute("INSERT OR IGNORE INTO teachers (key) VALUES (?)", (key,))
        if name:
            database.execute("UPDATE teachers SET name = ? WHERE key = ?", (name, key))
    except BaseException:
        database.close()
        raise
    return database


def _in_turn(path: Path, write: Callable[[], T]) -> T:
    """Call `write`, and try again while another process writes to the store. Raises DataError after WRITER_PATIENCE
    seconds.
    """
    began = time.monotonic()
    while True:
        try:
            return write()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY_CODES:
                raise
        if time.monotonic() - began > WRITER_PATIENCE:
            raise DataError(
                f"{path} is locked: another process has been writing to it for {WRITER_PATIENCE / 60:.0f} minutes. "
                "Wait until it has finished, then repeat the same command. Labels so far are kept."
            )


def check_shard(path: Path, keys: Collection[str]) -> None:
    """Raises DataError when a file is not a label store, or holds labels of teachers that are not in `keys`."""
    if path.is_file():
        with _opening(path, RELABEL_ADVICE), contextlib.closing(sqlite3.connect(_to_read(path), uri=True)) as database:
            if check_tables(database, path):
                _refuse_other_teachers(database, "main", keys, path)


def open_frozen(path: Path, table: str, key: str) -> Labels | None:
    """Open a store for reading only, without locks, so that many machines can read it. None if there is no store."""
    if not path.is_file():
        return None
    with _opening(path):
        database = sqlite3.connect(_to_read(path), uri=True)
        return Labels(database, table, key) if check_tables(database, path) else None


def _to_read(path: Path) -> str:
    """Return the SQLite URI for reading only. Without a write-ahead log it uses no locks. Another process may use such
    a log now, or may have left one.
    """
    log = path.with_name(path.name + "-wal")
    return f"{path.resolve().as_uri()}?{'mode=ro' if log.exists() else 'immutable=1'}"


@contextlib.contextmanager
def _opening(path: Path, advice: str = CHOOSE_ADVICE) -> Iterator[None]:
    """Turn the errors of SQLite into a DataError with this advice."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DataError(f"{path} cannot be used as a label store now ({error}). {advice}.") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a label store ({error}). {advice}.") from None


def merge_labels(source: Path, target: Path, keys: Mapping[str, str]) -> int:
    """Copy the labels of `source` into `target`, and return the number of new labels. A label of the target does not
    change.

    keys: for each table, the key of the one teacher whose labels may be copied. Raises DataError when the source has
    labels of another teacher, or is not a label store. Nothing is copied then.
    """
    for table, key in keys.items():
        LabelStore(target, table, key).close()  # make the store and the teacher's row if they do not exist
    count = 0
    target_uri = target.resolve().as_uri()
    with (
        _opening(target),
        contextlib.closing(sqlite3.connect(target_uri, uri=True, timeout=SQLITE_PATIENCE, isolation_level=None)) as db,
    ):
        with _opening(source, RELABEL_ADVICE):
            db.execute("ATTACH DATABASE ? AS source", (_to_read(source),))
            if not check_tables(db, source, "source"):
                return 0
            _refuse_other_teachers(db, "source", keys.values(), source)
        target_id = "(SELECT t.id FROM {0} t JOIN source.{0} s USING ({1}) WHERE s.id = l.{2})".format
        copies = [
            """INSERT INTO teachers (key, name) SELECT key, name FROM source.teachers l WHERE l.id BETWEEN ? AND ?
            ON CONFLICT (key) DO UPDATE SET name = excluded.name WHERE name = ''""",
            "INSERT OR IGNORE INTO texts (hash, text) SELECT hash, text FROM source.texts l WHERE l.id BETWEEN ? AND ?",
            f"""INSERT OR IGNORE INTO names (text, kind, name)
            SELECT {target_id("texts", "hash", "text")}, kind, name FROM source.names l WHERE l.text BETWEEN ? AND ?""",
        ]
        last = max(db.execute(f"SELECT ifnull(max(id), 0) FROM source.{name}").fetchone()[0] for name in ID_TABLES)

        def copy(statement: str) -> int:
            """Run a statement in blocks of ids, so that other writers get their turn. Return the number of new rows."""
            rows = 0
            for first in range(0, last + 1, TEXTS_PER_TRANSACTION):
                _in_turn(target, lambda: db.execute("BEGIN IMMEDIATE"))
                with db:
                    rows += db.execute(statement, (first, first + TEXTS_PER_TRANSACTION - 1)).rowcount
            return rows

        for statement in copies:
            copy(statement)
        for table in keys:
            ids = ", ".join(target_id("texts", "hash", column) for column in KEY_COLUMNS[table])
            count += copy(
                f"""INSERT OR IGNORE INTO {table} SELECT {target_id("teachers", "key", "teacher")}, {ids}, score
                FROM source.teachers s JOIN source.{table} l ON l.teacher = s.id AND l.query BETWEEN ? AND ?"""
            )
    return count


def _refuse_other_teachers(database: sqlite3.Connection, schema: str, keys: Collection[str], path: Path) -> None:
    """Raises DataError when the database has a teacher that is not in `keys`. The message names what differs."""
    for (key,) in database.execute(f"SELECT key FROM {schema}.teachers"):
        if key not in keys:
            stored = json.loads(key)
            of_task = [teacher for teacher in map(json.loads, keys) if teacher.get("task") == stored.get("task")]
            expected: dict[str, Any] = of_task[0] if of_task else {}
            changed = [name for name in {**expected, **stored} if stored.get(name) != expected.get(name)]
            which = ", ".join(f"{name} {stored.get(name)!r}, not {expected.get(name)!r}" for name in changed)
            raise DataError(f"{path} holds labels of another teacher or prompt ({which}). {RELABEL_ADVICE}.")

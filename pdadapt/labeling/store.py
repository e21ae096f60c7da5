"""The label store: what teachers said, kept by content in SQLite, over iterations and runs.

A label's key is the teacher (model, prompt, lengths: `teacher_key`) and the hashes of the texts it read. Each batch is
committed before the next is asked, so a kill loses at most the batch in flight. The texts stand beside their hashes, so
that labels can be read, and given to other trainers, without the corpus.

Several runs may share a store. The first answer to a question stays: a run may have chosen its pairs by it.

    teachers(id, key, name)                                  key: JSON; name: what a person calls it
    texts(id, hash, text)                                    each text once, found by 16 bytes of its SHA-256
    names(text, kind, name)                                  kind: query or document; name: its id in a corpus
    points(teacher, query, document, score)                  query, document: ids of texts
    pairs(teacher, query, document_a, document_b, score)     score: log-odds that a is the more relevant
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
ROWS = ("teachers", "texts")  # tables whose ids the others hold
COLUMNS = {"points": ("query", "document"), "pairs": ("query", "document_a", "document_b")}
AGAIN = "take it away, and label the shard again"
KNOWN_TEXTS = 2**16  # whose ids are kept at hand
BLOCK = 1_000  # texts that one transaction writes, so that other writers get their turn
TURN, PATIENCE = 1.0, 1_800.0  # seconds that SQLite waits for another writer, and that we do
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

T = TypeVar("T")


def text_hash(text: str) -> bytes:
    """16 bytes of SHA-256."""
    return hashlib.sha256(text.encode()).digest()[:16]


def count_labels(path: Path, table: str, key: str, most: int | None = None) -> int:
    """How many labels of this teacher the store holds in `points` or `pairs`; counted up to `most`.

    Raises DataError when the file is not a label store.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file as label_store.")
    check_parent_folder(path)
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
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a label store ({error}); give another label_store.") from None


def is_labeled(path: Path, key: str) -> bool:
    """Whether the store holds a label of this teacher. Raises DataError when the file is not a label store."""
    return any(count_labels(path, table, key, most=1) for table in ("points", "pairs"))


def check_tables(database: sqlite3.Connection, path: Path, schema: str = "main") -> bool:
    """Whether there are tables yet. Raises DataError when the database is of something else. schema: of a connection
    to several databases.
    """
    tables = {name for (name,) in database.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'")}
    if tables and "teachers" not in tables:
        raise DataError(
            f"{path} is not a label store (it has the tables {', '.join(sorted(tables))}); give another label_store."
        )
    if tables and database.execute(f"PRAGMA {schema}.user_version").fetchone()[0] != VERSION:
        raise DataError(
            f"{path} is a label store of another version of pdadapt: give another label_store, and bring its labels by "
            "that version's `pdadapt labels export` and this one's `labels import`."
        )
    return bool(tables)


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many at a time; the last may be fewer."""
    left = iter(rows)
    while batch := list(itertools.islice(left, size)):
        yield batch


class Labels:
    """Scores of one teacher, in one table: `points` (query, document) or `pairs` (query, document_a, document_b)."""

    def __init__(self, database: sqlite3.Connection, table: str, key: str):
        self._db = database
        self._columns = COLUMNS[table]
        where = " AND ".join(f"{column} = ?" for column in self._columns)
        self._select = f"SELECT score FROM {table} WHERE teacher = ? AND {where}"
        row = database.execute("SELECT id FROM teachers WHERE key = ?", (key,)).fetchone()
        self._teacher = row and row[0]
        self._ids: dict[bytes, int] = {}  # of texts

    def get(self, texts: Sequence[str]) -> float | None:
        """The score of (query, document) or (query, document_a, document_b); None when it was never asked."""
        ids = [self._find(text_hash(text)) for text in texts]
        row = None if None in ids else self._db.execute(self._select, (self._teacher, *ids)).fetchone()
        return None if row is None else float(row[0])

    def close(self) -> None:
        self._db.close()

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


class LabelStore(Labels):
    """A store that is written to."""

    def __init__(self, path: Path, table: str, key: str, name: str = "", beside: Path | None = None):
        """name: what a person calls the teacher. beside: another store, in which nobody writes meanwhile, where labels
        are looked for too. Raises DataError when a file is not a label store.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opening(path):
            database = _in_turn(path, lambda: _open_to_write(path, key, name))
            super().__init__(database, table, key)
        self.path = path
        marks = ", ".join("?" for _ in self._columns)
        self._insert = f"INSERT OR IGNORE INTO {table} VALUES (?, {marks}, ?)"
        self._beside = open_frozen(beside, table, key) if beside else None

    @property
    def identity(self) -> int:
        """A number drawn when the store was made: it tells a store from another one that takes its place."""
        return int(self._db.execute("PRAGMA application_id").fetchone()[0])

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._beside:
            self._beside.close()

    def get(self, texts: Sequence[str]) -> float | None:
        found = super().get(texts)
        return self._beside.get(texts) if found is None and self._beside else found

    def remember(self, kind: Literal["query", "document"], texts: Iterable[tuple[str, str]]) -> None:
        """Keep texts, (id, text) each, before anything is said of them."""
        for block in batched(texts, BLOCK):
            with self._commit():
                rows = [(self._keep(text), kind, name) for name, text in block]
                self._db.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", rows)

    def add(self, labels: Iterable[tuple[Sequence[str], float]]) -> None:
        """Commit a batch of (texts, score). A label that is there already stays as it is."""
        batch = list(labels)
        with self._commit():
            rows = [(self._teacher, *map(self._keep, texts), score) for texts, score in batch]
            self._db.executemany(self._insert, rows)

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        """What is written within is kept, all of it or nothing. Raises DataError when others never stop writing."""
        _in_turn(self.path, lambda: self._db.execute("BEGIN IMMEDIATE"))
        try:
            with self._db:
                yield
        except BaseException:
            self._ids.clear()  # of which some may be gone again
            raise

    def _keep(self, text: str) -> int:
        """The id of a text, which is kept from now on."""
        digest = text_hash(text)
        while (found := self._find(digest)) is None:
            self._db.execute("INSERT OR IGNORE INTO texts (hash, text) VALUES (?, ?)", (digest, text))
        return found


def _open_to_write(path: Path, key: str, name: str) -> sqlite3.Connection:
    """A connection to the store, made if need be, that knows the teacher. Transactions are begun by hand."""
    database = sqlite3.connect(path, timeout=TURN, isolation_level=None)
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
    """What `write` returns, tried again while another process writes to the store. Raises DataError when that takes
    PATIENCE seconds.
    """
    began = time.monotonic()
    while True:
        try:
            return write()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY:
                raise
        if time.monotonic() - began > PATIENCE:
            raise DataError(
                f"{path} is locked: another process has been writing to it for {PATIENCE / 60:.0f} minutes. Wait until "
                "it has finished, then give the same command again: what is labeled is kept."
            )


def check_shard(path: Path, keys: Collection[str]) -> None:
    """Raises DataError when a file is no label store, or holds labels of other teachers than these."""
    if path.is_file():
        with _opening(path, AGAIN), contextlib.closing(sqlite3.connect(_to_read(path), uri=True)) as database:
            if check_tables(database, path):
                _check_teachers(database, "main", keys, path)


def open_frozen(path: Path, table: str, key: str) -> Labels | None:
    """To read alone, without locks, so that many machines may; None where there is no store yet."""
    if not path.is_file():
        return None
    with _opening(path):
        database = sqlite3.connect(_to_read(path), uri=True)
        return Labels(database, table, key) if check_tables(database, path) else None


def _to_read(path: Path) -> str:
    """As SQLite opens a file to read alone: without locks, unless another process has left, or is at, its log."""
    log = path.with_name(path.name + "-wal")
    return f"{path.resolve().as_uri()}?{'mode=ro' if log.exists() else 'immutable=1'}"


@contextlib.contextmanager
def _opening(path: Path, advice: str = "give another label_store") -> Iterator[None]:
    """Raises DataError for what goes wrong."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DataError(f"{path} cannot be used as a label store now ({error}); {advice}.") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a label store ({error}); {advice}.") from None


def merge_labels(source: Path, target: Path, keys: Mapping[str, str]) -> int:
    """Copy a store's labels into another; returns how many it did not hold yet. A label that the target holds stays.

    keys: those of the teachers that may have given them, by table. Raises DataError, and takes nothing, where another
    has, and when a file is not a label store.
    """
    for table, key in keys.items():
        LabelStore(target, table, key).close()  # that it is there
    count = 0
    place = target.resolve().as_uri()
    with (
        _opening(target),
        contextlib.closing(sqlite3.connect(place, uri=True, timeout=TURN, isolation_level=None)) as db,
    ):
        with _opening(source, AGAIN):
            db.execute("ATTACH DATABASE ? AS source", (_to_read(source),))
            if not check_tables(db, source, "source"):
                return 0
            _check_teachers(db, "source", keys.values(), source)
        own = "(SELECT t.id FROM {0} t JOIN source.{0} s USING ({1}) WHERE s.id = l.{2})".format
        copies = [
            """INSERT INTO teachers (key, name) SELECT key, name FROM source.teachers l WHERE l.id BETWEEN ? AND ?
            ON CONFLICT (key) DO UPDATE SET name = excluded.name WHERE name = ''""",
            "INSERT OR IGNORE INTO texts (hash, text) SELECT hash, text FROM source.texts l WHERE l.id BETWEEN ? AND ?",
            f"""INSERT OR IGNORE INTO names (text, kind, name)
            SELECT {own("texts", "hash", "text")}, kind, name FROM source.names l WHERE l.text BETWEEN ? AND ?""",
        ]
        last = max(db.execute(f"SELECT ifnull(max(id), 0) FROM source.{name}").fetchone()[0] for name in ROWS)

        def copy(statement: str) -> int:
            """How many rows are new; in blocks of ids, so that other writers get their turn."""
            rows = 0
            for first in range(0, last + 1, BLOCK):
                _in_turn(target, lambda: db.execute("BEGIN IMMEDIATE"))
                with db:
                    rows += db.execute(statement, (first, first + BLOCK - 1)).rowcount
            return rows

        for statement in copies:
            copy(statement)
        for table in keys:
            ids = ", ".join(own("texts", "hash", column) for column in COLUMNS[table])
            count += copy(
                f"""INSERT OR IGNORE INTO {table} SELECT {own("teachers", "key", "teacher")}, {ids}, score
                FROM source.teachers s JOIN source.{table} l ON l.teacher = s.id AND l.query BETWEEN ? AND ?"""
            )
    return count


def _check_teachers(database: sqlite3.Connection, schema: str, keys: Collection[str], path: Path) -> None:
    for (key,) in database.execute(f"SELECT key FROM {schema}.teachers"):
        if key not in keys:
            found = json.loads(key)
            of_task = [one for one in map(json.loads, keys) if one.get("task") == found.get("task")]
            own: dict[str, Any] = of_task[0] if of_task else {}
            changed = [name for name in {**own, **found} if found.get(name) != own.get(name)]
            which = ", ".join(f"{name} {found.get(name)!r}, not {own.get(name)!r}" for name in changed)
            raise DataError(f"{path} holds labels of another teacher or prompt ({which}); {AGAIN}.")

"""The spool's index: one SQLite file whose commits survive a power cut, and a counter that moves with each of them.

WAL with ``synchronous=FULL``: a transaction is on the disk when its commit returns, unless it need not be
(sqlite.org/pragma.html#pragma_synchronous).
"""

import io
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.durable import sync_folder
from edgecxr.errors import SpoolError, SpoolFull

__all__ = ["SCHEMA_VERSION", "Database", "packed", "storable", "unpacked"]

BUSY_S = 30.0  # how long a writer of another process may hold the file

SCHEMA = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    file TEXT NOT NULL UNIQUE,
    sop_class TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    syntax TEXT NOT NULL,
    source TEXT NOT NULL,
    peer TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    priority INTEGER NOT NULL,
    received REAL NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    copy TEXT NOT NULL,
    patient_name TEXT NOT NULL DEFAULT '',
    patient_id TEXT NOT NULL DEFAULT '',
    patient_birth_date TEXT NOT NULL DEFAULT '',
    patient_sex TEXT NOT NULL DEFAULT '',
    study_instance TEXT NOT NULL DEFAULT '',
    series_instance TEXT NOT NULL DEFAULT '',
    accession TEXT NOT NULL DEFAULT '',
    study_date TEXT NOT NULL DEFAULT '',
    sought TEXT NOT NULL DEFAULT ''
);
CREATE INDEX images_queue ON images (state, priority DESC, id);
CREATE INDEX images_instance ON images (sop_instance);
CREATE TABLE results (
    image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    record TEXT NOT NULL,
    cam BLOB,
    decided REAL NOT NULL,
    urgency REAL NOT NULL
);
CREATE TABLE positives (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    finding TEXT NOT NULL,
    PRIMARY KEY (image, finding)
) WITHOUT ROWID;
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    kind TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    created REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    due REAL NOT NULL,
    sent REAL,
    UNIQUE (image, destination, kind)
);
CREATE INDEX deliveries_due ON deliveries (due) WHERE sent IS NULL;
CREATE TABLE commitments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_uid TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    address TEXT NOT NULL,
    instances TEXT NOT NULL,
    created REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    due REAL NOT NULL,
    answered REAL,
    UNIQUE (transaction_uid, calling_ae)
);
CREATE INDEX commitments_due ON commitments (due) WHERE answered IS NULL;
"""
CHANGES = (  # each from one schema to the next; SCHEMA itself is the first
    """
ALTER TABLE results ADD COLUMN proof TEXT NOT NULL DEFAULT '';
ALTER TABLE results ADD COLUMN doubt TEXT NOT NULL DEFAULT '';
CREATE INDEX results_proof ON results (proof);
CREATE INDEX results_doubt ON results (image) WHERE doubt != '';
""",
    """
ALTER TABLE results ADD COLUMN fetched REAL;
UPDATE results SET fetched = decided;
""",  # what was decided before this was known stays as removable as it was
    """
CREATE TABLE undrawn (
    image INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    attempts INTEGER NOT NULL,
    error TEXT NOT NULL
);
""",
    """
CREATE TABLE turned_away (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    calling_ae TEXT NOT NULL,
    address TEXT NOT NULL,
    answer TEXT NOT NULL,
    reason TEXT NOT NULL,
    first REAL NOT NULL,
    last REAL NOT NULL,
    number INTEGER NOT NULL
);
CREATE INDEX turned_away_last ON turned_away (last);
CREATE INDEX turned_away_peer ON turned_away (address, calling_ae, id);
""",
)
SCHEMA_VERSION = 1 + len(CHANGES)


def storable(text: str) -> str:
    """Text without lone surrogates, which names in odd encodings turn into and SQLite refuses."""
    return text.encode("utf-8", "replace").decode("utf-8")


def packed(cam: NDArray[np.float32] | None) -> bytes | None:
    """A map as a blob that knows its shape and type."""
    if cam is None:
        return None
    stream = io.BytesIO()
    np.save(stream, np.asarray(cam, dtype=np.float32), allow_pickle=False)
    return stream.getvalue()


def unpacked(data: bytes | None) -> NDArray[np.float32] | None:
    """The map in a blob of `packed`."""
    return None if data is None else np.asarray(np.load(io.BytesIO(data), allow_pickle=False), dtype=np.float32)


class Database:
    """Connections to one file: each is used by one thread at a time, and writers of this process queue for a lock."""

    def __init__(self, path: Path) -> None:
        """Open, or create. Raises SpoolError where it is of a newer version, damaged, or cannot be opened."""
        self.path = path
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._changed = threading.Condition()
        self._change = 0
        self._closed = False
        new = not path.exists()
        path.touch(mode=0o600)  # SQLite gives its log the same permissions
        with self._told(), self._connection() as connection:
            self._prepare(connection)
        if new:
            sync_folder(path.parent)

    def close(self) -> None:
        """Close every connection; those in use are closed when their thread is done with them."""
        with self._idle_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for single SELECT statements. Raises SpoolError."""
        with self._told(), self._connection() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when the block ends; an exception in the block leaves nothing of it.

        One that is not `durable` outlives a crash of the process, and a power cut may undo it, as a whole; the next
        durable one carries it to the disk. Raises SpoolFull where the disk is full, SpoolError where the file cannot
        be written.
        """
        with self._told(), self._write_lock, self._connection() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            before = connection.total_changes
            with _transaction(connection):
                yield connection
            if connection.total_changes != before:
                self._moved()

    def change(self) -> int:
        """A number that grows with every transaction of this process that changed something."""
        with self._changed:
            return self._change

    def wait(self, after: int, timeout_s: float, until: Callable[[], bool] | None = None) -> int:
        """`change()`, as soon as it is greater than `after`, or when the time is over or the database closed.

        Also when `until` holds, which is looked at after every `nudge`.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._change > after or self._closed or (until is not None and until()), timeout_s
            )
            return self._change

    def nudge(self) -> None:
        """Let everyone who waits look again, though nothing has changed here."""
        with self._changed:
            self._changed.notify_all()

    def _moved(self) -> None:
        with self._changed:
            self._change += 1
            self._changed.notify_all()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "disk is full" in str(error):
                raise SpoolFull(f"{self.path}: no room on the disk for its index ({error})") from error
            raise SpoolError(f"{self.path}: the spool's index cannot be used: {error}") from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = self._take()
        try:
            yield connection
        finally:
            self._give(connection)

    def _take(self) -> sqlite3.Connection:
        with self._idle_lock:
            if self._closed:
                raise SpoolError(f"{self.path}: the spool is closed")
            if self._idle:
                return self._idle.pop()
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA journal_size_limit = 16777216")
        except BaseException:
            connection.close()
            raise
        return connection

    def _give(self, connection: sqlite3.Connection) -> None:
        with self._idle_lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection):
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise SpoolError(
                    f"{self.path} is of schema {version}, and this version of edgecxr knows {SCHEMA_VERSION}: "
                    "update edgecxr, or give the node another folder"
                )
            for script in (SCHEMA, *CHANGES)[version:]:
                for statement in script.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Committed when the block ends; an exception in the block leaves nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

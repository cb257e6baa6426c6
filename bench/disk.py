"""What a disk alone takes for one film: the least that makes its bytes and one row of an index durable."""

import os
import sqlite3
import time
from pathlib import Path

__all__ = ["Disk"]

PIECE = 1 << 18  # bytes of one write


class Disk:
    """A folder as a receiver would use it, without a receiver."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made; it should lie where the node's folder does."""
        self._films = folder / "films"
        self._films.mkdir(parents=True)
        self._incoming = folder / "incoming"
        self._index = sqlite3.connect(folder / "index.db", isolation_level=None)
        self._index.execute("PRAGMA journal_mode = WAL")
        self._index.execute("PRAGMA synchronous = FULL")
        self._index.execute("CREATE TABLE films (id INTEGER PRIMARY KEY, name TEXT)")

    def keep(self, data: bytes) -> tuple[float, float]:
        """Milliseconds from the first byte, and from the last: fsync, rename, fsync of the folder, one commit."""
        start = time.perf_counter()
        film = os.open(self._incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for position in range(0, len(data), PIECE):
            os.write(film, memoryview(data)[position : position + PIECE])
        last = time.perf_counter()
        os.fsync(film)
        os.close(film)
        self._incoming.rename(self._films / "film")
        self._sync_folder()
        self._index.execute("INSERT INTO films (name) VALUES ('film')")
        end = time.perf_counter()
        (self._films / "film").unlink()
        self._sync_folder()
        return (end - start) * 1000, (end - last) * 1000

    def close(self) -> None:
        self._index.close()

    def _sync_folder(self) -> None:
        folder = os.open(self._films, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

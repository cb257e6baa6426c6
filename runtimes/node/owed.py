"""Marks that are owed: proofs that failed and whose results could not be marked yet, since the disk was full or busy.

They stand in a file whose room was taken while there was some, and are written in place, so that a full disk does not
keep them from the next start.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
from pathlib import Path

from edgecxr.durable import sync_folder

__all__ = ["Owed"]

SIZE = 4096  # bytes: one page, which a disk writes as one
DIGEST = 64  # letters of SHA-256, then JSON
logger = logging.getLogger(__name__)

Mark = tuple[str, str]  # proof, why its results are in doubt


class Owed:
    """The list, in memory and, as well as the disk allows, on it. Any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks: list[Mark] = []
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Take up what an earlier run left, and take the room. The caller is the one node that works here."""
        with self._lock:
            new = not self._path.exists()
            self._marks += [mark for mark in self._read() if mark not in self._marks]
            self._write()
            if new:
                with contextlib.suppress(OSError):  # without room at all it was told already
                    sync_folder(self._path.parent)

    def add(self, proof: str, told: str) -> None:
        """One more."""
        with self._lock:
            self._marks.append((proof, told))
            self._write()

    def first(self) -> Mark | None:
        """The one owed longest; None where none is."""
        with self._lock:
            return self._marks[0] if self._marks else None

    def settled(self, mark: Mark) -> None:
        """It has been marked; twice is harmless."""
        with self._lock:
            if mark in self._marks:
                self._marks.remove(mark)
                self._write()

    def _read(self) -> list[Mark]:
        try:
            digest, text = (data := self._path.read_bytes())[:DIGEST], data[DIGEST:].rstrip(b" ")
        except FileNotFoundError:
            return []
        except OSError:
            logger.exception("which results are in doubt cannot be read")
            return []
        if hashlib.sha256(text).hexdigest().encode() != digest:
            logger.error("which results are in doubt cannot be read: the file is damaged")
            return []
        return [(proof, told) for proof, told in json.loads(text)]

    def _write(self) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, _block(self._marks), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            logger.exception("which results are in doubt could not be written down")


def _block(marks: list[Mark]) -> bytes:
    """`SIZE` bytes. Where the reasons are too long for them, they are cut; then the latest proofs are left out."""
    for longest in (1000, 100, 0):
        text = json.dumps([(proof, told[:longest]) for proof, told in marks]).encode()
        if len(text) <= SIZE - DIGEST:
            return (hashlib.sha256(text).hexdigest().encode() + text).ljust(SIZE)
    return _block(marks[:-1])

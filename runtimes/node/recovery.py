"""Mending a spool at start: what a power cut or a crash left half-done is done again, or set aside."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.database import Database
from edgecxr.runtimes.node.images import MAX_ATTEMPTS, State

__all__ = ["Recovery", "lock_exclusively", "mend"]

CRASHED = "crashed twice while being screened"
GONE = "its file is gone from the spool"


@dataclass(frozen=True)
class Recovery:
    """How much was mended."""

    parts: int = 0  # half-received objects, removed
    orphans: int = 0  # files that were never acknowledged, removed
    requeued: int = 0  # images in screening, received again
    quarantined: int = 0  # images in screening for the second time, set aside
    lost: int = 0  # rows without a file, set aside


def lock_exclusively(path: Path) -> int:
    """A descriptor that holds the lock of a spool until it is closed. Raises SpoolError where another node has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SpoolError(
            f"{path.parent} is in use by another node; stop it, or give this one another folder"
        ) from error
    return descriptor


def mend(database: Database, incoming: Path, films: Path, quarantine: Path) -> Recovery:
    """Bring files and rows into step. The caller holds the lock. Raises SpoolError."""
    parts = _remove(list(incoming.iterdir()))
    found = {path.name: path for path in (*films.glob("*/*"), *quarantine.iterdir())}
    with database.write() as connection:
        kept = {row["file"] for row in connection.execute("SELECT file FROM images")}
        crashed = connection.execute(
            "UPDATE images SET state = 'quarantined', error = ? WHERE state = 'screening' AND attempts >= ?",
            (CRASHED, MAX_ATTEMPTS),
        ).rowcount
        requeued = connection.execute("UPDATE images SET state = 'received' WHERE state = 'screening'").rowcount
        lost = 0
        for name in kept - found.keys():
            statement = "UPDATE images SET state = 'quarantined', error = ? WHERE file = ? AND error != ?"
            lost += connection.execute(statement, (GONE, name, GONE)).rowcount
        states = {row["file"]: State(row["state"]) for row in connection.execute("SELECT file, state FROM images")}
    orphans = _remove([path for name, path in found.items() if name not in kept])
    for name, state in states.items():
        if name in found:
            _place(found[name], films, quarantine, state)
    return Recovery(parts, orphans, requeued, crashed, lost)


def _place(path: Path, films: Path, quarantine: Path, state: State) -> None:
    """Move a file to where its state wants it, if a crash came between."""
    if state is State.QUARANTINED and path.parent != quarantine:
        path.rename(quarantine / path.name)
    elif state is not State.QUARANTINED and path.parent == quarantine:
        folder = films / path.name[:2]
        folder.mkdir(mode=0o700, exist_ok=True)
        path.rename(folder / path.name)


def _remove(paths: list[Path]) -> int:
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)

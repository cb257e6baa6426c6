"""What the node turned away before it was an image: refused transfers, rejected associations, films over a limit.

Nothing of it is in the spool, so that a person would look for it in vain. Kept are time, who called from where, the
answer, and the reason in our own words: nothing of a data set. It is kept as well as can be: whoever answers a peer
leaves a note in memory and goes on, and a thread writes the notes, at most one transaction in `EVERY_S`. While the
disk is full they wait in memory, bounded like the table. A peer that is told the same again counts in the same row.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from edgecxr.errors import SpoolError, SpoolFull
from edgecxr.runtimes.node.database import Database, storable

__all__ = ["HOUR_S", "Door", "TurnedAway"]

MOST, MOST_OF_AN_ADDRESS = 1000, 100  # rows: a noisy address never pushes out what became of the others
EVERY_S = 5.0  # between two transactions
ONE_ROW_S = 600.0  # a row counts for at most that long: its number then says how many there were, and when
CLOSE_S = 5.0  # the last notes have that long to be written
HOUR_S = 3600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TurnedAway:
    """Equal refusals of one peer, one after the other."""

    calling_ae: str  # "" where none was said
    address: str
    answer: str  # what the peer got: "C-STORE 0xA700", "rejected", "aborted", "HTTP 413" …
    reason: str  # no patient data
    first: float  # unix s
    last: float
    number: int = 1

    def same(self, other: "TurnedAway") -> bool:
        """Whether another one, that came later, counts in the same row."""
        alike = (self.calling_ae, self.address, self.answer, self.reason)
        theirs = (other.calling_ae, other.address, other.answer, other.reason)
        return alike == theirs and other.last - self.first <= ONE_ROW_S

    def joined(self, other: "TurnedAway") -> "TurnedAway":
        """With a later one that is the same."""
        return replace(self, last=other.last, number=self.number + other.number)


class Door:
    """Notes of what was turned away: from any thread, never waiting for the disk and never failing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._notes: dict[str, list[TurnedAway]] = {}  # by address, oldest first; not written yet
        self._lock = threading.Lock()
        self._noted, self._closing = threading.Event(), threading.Event()
        self._writer: threading.Thread | None = None

    def note(self, calling_ae: str, address: str, answer: str, reason: str) -> None:
        """Something was turned away. `reason` holds no patient data."""
        now = time.time()
        new = TurnedAway(storable(calling_ae), address, answer, storable(reason), now, now)
        with self._lock:
            self._keep(new)
            if self._writer is None and not self._closing.is_set():
                writer = threading.Thread(target=self._write_in_turn, name="edgecxr-door", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads: the next note tries again
                    writer.start()
                    self._writer = writer
        self._noted.set()

    def newest(self, limit: int = 100) -> list[TurnedAway]:
        """The latest first, with what is not written yet."""
        with self._lock:
            waiting = _in_order(self._notes)
        query = "SELECT * FROM turned_away ORDER BY last DESC, id DESC LIMIT ?"
        with self._database.read() as connection:
            rows = [_of(row) for row in connection.execute(query, (limit,))][::-1]
        latest = {(row.calling_ae, row.address): place for place, row in enumerate(rows)}
        for note in waiting:
            place = latest.setdefault((note.calling_ae, note.address), len(rows))
            if place < len(rows) and rows[place].same(note):
                rows[place] = rows[place].joined(note)
            else:
                latest[(note.calling_ae, note.address)] = len(rows)
                rows.append(note)
        return sorted(rows, key=lambda row: row.last)[::-1][:limit]

    def count(self, since: float) -> int:
        """How many were turned away since then (unix s), to ten minutes."""
        with self._lock:
            waiting = sum(note.number for notes in self._notes.values() for note in notes if note.last >= since)
        with self._database.read() as connection:
            query = "SELECT COALESCE(SUM(number), 0) FROM turned_away WHERE last >= ?"
            return waiting + int(connection.execute(query, (since,)).fetchone()[0])

    def write(self) -> None:
        """Write the notes now, and forget the oldest rows. Raises SpoolFull, SpoolError; then they are still notes."""
        with self._lock:
            taken, self._notes = self._notes, {}
        notes = _in_order(taken)
        try:
            if notes:
                self._insert(notes)
        except (SpoolError, SpoolFull):
            with self._lock:
                newer, self._notes = self._notes, taken
                for note in _in_order(newer):
                    self._keep(note)
            raise

    def close(self) -> None:
        """Write what can be written, and take no more."""
        with self._lock:
            self._closing.set()
            writer = self._writer
        self._noted.set()
        if writer is not None:
            writer.join(CLOSE_S)

    def _keep(self, new: TurnedAway) -> None:
        """In memory; the caller holds the lock. A note counts in its peer's last one where that was the same."""
        notes = self._notes.setdefault(new.address, [])
        for place in range(len(notes) - 1, -1, -1):
            if notes[place].calling_ae == new.calling_ae:
                if notes[place].same(new):
                    notes[place] = notes[place].joined(new)
                    return
                break
        notes.append(new)
        del notes[:-MOST_OF_AN_ADDRESS]
        if sum(map(len, self._notes.values())) > MOST:
            noisiest = max(self._notes, key=lambda address: len(self._notes[address]))
            del self._notes[noisiest][0]
            if not self._notes[noisiest]:
                del self._notes[noisiest]

    def _write_in_turn(self) -> None:
        told = False
        while not self._closing.is_set():
            self._noted.wait()
            self._noted.clear()
            try:
                self.write()
                told = False
            except (SpoolError, SpoolFull) as error:
                if not told:
                    logger.warning("what was turned away could not be written down yet", extra={"reason": str(error)})
                told = True
                self._noted.set()
            self._closing.wait(EVERY_S)
        try:
            self.write()
        except (SpoolError, SpoolFull) as error:
            logger.warning("what was turned away last is not written down", extra={"reason": str(error)})

    def _insert(self, notes: Sequence[TurnedAway]) -> None:
        """One transaction, which need not survive a power cut: it is not worth an fsync that films wait for."""
        latest = "SELECT * FROM turned_away WHERE calling_ae = ? AND address = ? ORDER BY id DESC LIMIT 1"
        columns = [one.name for one in fields(TurnedAway)]
        insert = f"INSERT INTO turned_away ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        with self._database.write(durable=False) as connection:
            for note in notes:
                row = connection.execute(latest, (note.calling_ae, note.address)).fetchone()
                before = None if row is None else _of(row)
                if before is not None and before.same(note):
                    joined = before.joined(note)
                    update = "UPDATE turned_away SET last = ?, number = ? WHERE id = ?"
                    connection.execute(update, (joined.last, joined.number, row["id"]))
                else:
                    connection.execute(insert, [getattr(note, name) for name in columns])
            connection.execute(FORGET_OF_AN_ADDRESS, (MOST_OF_AN_ADDRESS,))
            connection.execute(FORGET, (MOST,))


FORGET_OF_AN_ADDRESS = """
DELETE FROM turned_away WHERE id IN (
    SELECT id FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY address ORDER BY id DESC) AS place FROM turned_away)
    WHERE place > ?)
"""
FORGET = "DELETE FROM turned_away WHERE id NOT IN (SELECT id FROM turned_away ORDER BY id DESC LIMIT ?)"


def _of(row: sqlite3.Row) -> TurnedAway:
    return TurnedAway(*(row[one.name] for one in fields(TurnedAway)))


def _in_order(notes: Mapping[str, Sequence[TurnedAway]]) -> list[TurnedAway]:
    return sorted((note for kept in notes.values() for note in kept), key=lambda note: note.first)

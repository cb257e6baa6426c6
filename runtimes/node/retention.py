"""What may be forgotten: delivered images that are old, or whose room is needed. Nothing else, ever.

Age is told by a clock that units without a battery or a network set late, by years: what is dated by the wrong time is
dated anew before anything is judged by it.
"""

import sqlite3
import time

from edgecxr.runtimes.node.database import Database

__all__ = ["DAY_S", "Clock", "forget_delivered", "redate", "set_aside"]

DAY_S = 86400.0
SET_S = 3600.0  # a difference to the time that passed above which the clock was set, and does not only drift
NEVER_SET = 1735689600.0  # 2025, before this program was written: a clock that says less was never set


class Clock:
    """The wall clock beside one that nobody sets, and that runs while the machine sleeps."""

    def __init__(self) -> None:
        self._ahead = _ahead_s()

    def set_by_s(self) -> float:
        """How far the wall clock was set since this was last asked; 0 where it only ran."""
        before, self._ahead = self._ahead, _ahead_s()
        moved = self._ahead - before
        return moved if abs(moved) > SET_S else 0.0


def _ahead_s() -> float:
    steady = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
    return time.time() - steady


def redate(database: Database, after: int, by: float, now: float) -> None:
    """Give images the time at which they came by a clock that has been set by `by` seconds, and is `now` (unix s).

    `after`: the last image before the run in which the clock was set; those before came by a clock unknown here. They
    are dated anew only where their clock had never been set, and count from now.
    """
    with database.write() as connection:
        if by:
            old = "received <= ?" if by > 0 else "received > ?"  # by the clock before it was set
            limit = now - by if by > 0 else now
            connection.execute(f"UPDATE images SET received = received + ? WHERE id > ? AND {old}", (by, after, limit))
        if now >= NEVER_SET:
            connection.execute("UPDATE images SET received = ? WHERE received < ?", (now, NEVER_SET))


def forget_delivered(database: Database, before: float, room: int) -> list[str]:
    """Delete rows of delivered images: received before `before` (unix s), or the oldest until `room` bytes are won.

    Room is not won from an image of which nothing went to a destination before its result was fetched. Deleted are also
    storage commitment requests that were answered before `before`. Returns the names of the images' files, which
    are to be removed now: a file without a row is removed at the next start.
    """
    forgotten: list[str] = []
    with database.write() as connection:
        _forget_answered(connection, before)
        query = (
            "SELECT id, file, size, received, EXISTS (SELECT 1 FROM deliveries WHERE image = images.id) OR "
            "EXISTS (SELECT 1 FROM results WHERE image = images.id AND fetched IS NOT NULL) AS known "
            "FROM images WHERE state = 'delivered' ORDER BY received, id"
        )
        chosen = []
        for row in connection.execute(query):
            old = row["received"] < before
            if not old and room <= 0:
                break
            if not (old or row["known"]):
                continue
            room -= row["size"]
            chosen.append((row["id"],))
            forgotten.append(row["file"])
        connection.executemany("DELETE FROM images WHERE id = ? AND state = 'delivered'", chosen)
    return forgotten


def set_aside(database: Database) -> tuple[int, int]:
    """How many images are in quarantine, and their bytes: neither age nor want of room removes them."""
    with database.read() as connection:
        query = "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM images WHERE state = 'quarantined'"
        number, size = connection.execute(query).fetchone()
    return int(number), int(size)


def _forget_answered(connection: sqlite3.Connection, before: float) -> None:
    """Storage commitment requests that were answered before that time (unix s)."""
    connection.execute("DELETE FROM commitments WHERE answered < ?", (before,))

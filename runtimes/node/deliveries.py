"""The outbox: what has to reach which destination, kept until it has."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.database import Database, storable

__all__ = ["Deliveries", "Delivery", "NewDelivery", "enqueue"]


@dataclass(frozen=True)
class NewDelivery:
    """One object that is to be made of a result and sent; its UID is fixed now, so that a retry sends the same."""

    destination: str  # name of a destination in the configuration
    kind: Literal["sr", "capture"]
    sop_instance: str


@dataclass(frozen=True)
class Delivery:
    """One object on its way to a destination."""

    id: int
    image: int
    destination: str
    kind: Literal["sr", "capture"]
    sop_instance: str
    attempts: int
    error: str
    created: float  # unix s


NEVER = 0.0  # when what was given up by hand arrived
FARTHEST_S = 7200.0  # nothing is postponed for longer
FIELDS = "deliveries." + ", deliveries.".join(Delivery.__dataclass_fields__)
OPEN = "FROM deliveries JOIN images ON images.id = image WHERE sent IS NULL AND state IN ('decided', 'refused')"


def enqueue(connection: sqlite3.Connection, image: int, deliveries: Sequence[NewDelivery], now: float) -> None:
    """Outbox rows of one image, inside the transaction of its result; `now` in unix s."""
    connection.executemany(
        "INSERT INTO deliveries (image, destination, kind, sop_instance, created, due) VALUES (?, ?, ?, ?, ?, ?)",
        [(image, new.destination, new.kind, new.sop_instance, now, now) for new in deliveries],
    )


class Deliveries:
    """The rows of the outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: float, limit: int, destination: str | None = None) -> list[Delivery]:
        """What may be tried at `now` (unix s), longest due first; of one destination where named.

        So is what would be due only after hours: the clock has been set back since it was postponed.
        """
        with self._database.read() as connection:
            query = (
                f"SELECT {FIELDS} {OPEN} AND (due <= ? OR due > ?) AND destination = COALESCE(?, destination)"
                " ORDER BY due, deliveries.id LIMIT ?"
            )
            return [Delivery(*row) for row in connection.execute(query, (now, now + FARTHEST_S, destination, limit))]

    def of(self, image: int) -> list[tuple[Delivery, float | None]]:
        """Every delivery of an image, and when it arrived (unix s); None where it has not, `NEVER` where given up."""
        with self._database.read() as connection:
            query = f"SELECT {FIELDS}, sent FROM deliveries WHERE image = ? ORDER BY deliveries.id"
            return [(Delivery(*row[:-1]), row[-1]) for row in map(tuple, connection.execute(query, (image,)))]

    def outstanding(self) -> int:
        """How many objects have not reached their destination."""
        with self._database.read() as connection:
            return int(connection.execute(f"SELECT COUNT(*) {OPEN}").fetchone()[0])

    def waiting(self) -> dict[str, int]:
        """How many objects have not reached their destination, by its name."""
        with self._database.read() as connection:
            query = f"SELECT destination, COUNT(*) {OPEN} GROUP BY destination ORDER BY destination"
            return dict(map(tuple, connection.execute(query)))

    def give_up(self, destination: str) -> list[tuple[int, int]]:
        """Send nothing more to a destination of what waits for it: image and number of its objects, for each.

        The rows stay, with their last error, and say that they were given up. An image of which nothing else is
        outstanding is delivered.
        """
        with self._database.write() as connection:
            chosen = "FROM deliveries WHERE destination = ? AND sent IS NULL"
            query = f"SELECT image, COUNT(*) {chosen} GROUP BY image ORDER BY image"
            given_up: list[tuple[int, int]] = [(row[0], row[1]) for row in connection.execute(query, (destination,))]
            connection.execute(
                "UPDATE deliveries SET sent = ? WHERE destination = ? AND sent IS NULL", (NEVER, destination)
            )
            for image, _ in given_up:
                _settle(connection, image)
        return given_up

    def stands(self, delivery: Delivery) -> bool:
        """Whether it is still to be sent, and as this object: not after its result was doubted or dropped."""
        with self._database.read() as connection:
            query = "SELECT 1 FROM deliveries WHERE id = ? AND sop_instance = ? AND sent IS NULL"
            return connection.execute(query, (delivery.id, delivery.sop_instance)).fetchone() is not None

    def sent(self, delivery: int, sop_instance: str) -> None:
        """This object has arrived; the image is delivered when nothing else of it is outstanding.

        Raises SpoolError if twice, and where another object is to be sent by now: then that one stays due.
        """
        with self._database.write() as connection:
            row = connection.execute("SELECT image, sop_instance FROM deliveries WHERE id = ?", (delivery,)).fetchone()
            if row is not None and row["sop_instance"] != sop_instance:
                raise SpoolError(f"delivery {delivery} is another object by now, which is still to be sent")
            self._touch(connection, delivery, "sent = ?, error = ''", time.time())
            _settle(connection, row["image"])

    def postpone(self, delivery: int, error: str, until: float) -> None:
        """The attempt failed; not before `until` (unix s) again. Raises SpoolError where it has arrived."""
        with self._database.write() as connection:
            self._touch(connection, delivery, "attempts = attempts + 1, error = ?, due = ?", storable(error), until)

    def _touch(self, connection: sqlite3.Connection, delivery: int, change: str, *values: object) -> None:
        statement = f"UPDATE deliveries SET {change} WHERE id = ? AND sent IS NULL"
        if not connection.execute(statement, (*values, delivery)).rowcount:
            raise SpoolError(f"delivery {delivery} is not outstanding: it was sent or given up, or its image is gone")


def _settle(connection: sqlite3.Connection, image: int) -> None:
    """The image is delivered where nothing of it is outstanding."""
    connection.execute(
        "UPDATE images SET state = 'delivered' WHERE state IN ('decided', 'refused') AND id = ? "
        "AND NOT EXISTS (SELECT 1 FROM deliveries WHERE image = images.id AND sent IS NULL)",
        (image,),
    )

"""The images of the node: one row and one state each, moved by one transaction at a time."""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.database import Database, packed, storable, unpacked
from edgecxr.runtimes.node.deliveries import NewDelivery, enqueue

__all__ = [
    "COLUMNS",
    "IDENTITY",
    "MAX_ATTEMPTS",
    "Arrival",
    "Image",
    "Images",
    "NewDelivery",
    "Outcome",
    "Receipt",
    "Result",
    "Row",
    "State",
    "to_image",
    "to_result",
]

MAX_ATTEMPTS = 2  # an image that fails as often is quarantined
TURN = 8  # of so many claims one takes the image that came first, so that no stream of urgent ones starves the rest


class State(str, Enum):
    """Where an image stands."""

    RECEIVED = "received"  # durable, waits for screening
    SCREENING = "screening"  # a worker has it
    DECIDED = "decided"  # has its result, of which not all objects are delivered
    REFUSED = "refused"  # cannot be screened, and not all objects that say so are delivered
    DELIVERED = "delivered"  # decided or refused, and nothing is outstanding
    QUARANTINED = "quarantined"  # kept aside with its error; a person decides


@dataclass(frozen=True)
class Arrival:
    """What is known of an object when its last byte has come."""

    sop_class: str
    sop_instance: str  # "" for a file that is not DICOM: the spool makes a UID of its bytes
    syntax: str
    source: str  # "dicom", "folder" or "http"
    peer: str = ""  # address or file name
    priority: int = 0  # higher is screened first
    calling_ae: str = ""


@dataclass(frozen=True)
class Receipt:
    """The row that stands for an object, and whether it came before: with the same bytes, or with others."""

    image: int
    copy: Literal["new", "same", "other"]


@dataclass(frozen=True)
class Image:
    """One row. What is said of patient and study is "" until the image has been screened."""

    id: int
    sop_class: str
    sop_instance: str
    syntax: str
    source: str
    peer: str
    calling_ae: str
    priority: int
    received: float  # unix s
    size: int  # bytes
    state: State
    attempts: int
    error: str
    copy: str  # "new" | "other"
    file: str  # name of the file, without its folder
    patient_name: str = ""
    patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_instance: str = ""
    series_instance: str = ""
    accession: str = ""
    study_date: str = ""


@dataclass(frozen=True)
class Outcome:
    """What screening gave: a decision or a refusal; a fault is not an outcome (ValueError)."""

    status: Literal["ok", "refused"]
    record: dict[str, Any]  # plain JSON values
    cam: NDArray[np.float32] | None = field(default=None, compare=False)  # (C, h, w)
    identity: Mapping[str, str] | None = None  # by names of `IDENTITY`
    worst: float = 0.0  # urgency in [0, 1]; 0 where refused
    proof: str = ""  # which its engine had passed last, see `doubts`

    def __post_init__(self) -> None:
        """Raises ValueError where the fields contradict each other."""
        if self.status not in ("ok", "refused"):
            raise ValueError(f"status {self.status!r} of an outcome; it is ok or refused")
        if not (math.isfinite(self.worst) and 0 <= self.worst <= 1):
            raise ValueError(f"urgency {self.worst}; it is a number in [0, 1]")
        if self.status == "refused" and (self.cam is not None or self.worst != 0):
            raise ValueError("a refused image has no map, and urgency 0")
        unknown = set(self.identity or ()) - set(IDENTITY)
        if unknown:
            raise ValueError(f"identity has {', '.join(sorted(unknown))}; known are {', '.join(IDENTITY)}")


@dataclass(frozen=True)
class Result:
    """What was decided on an image, and when."""

    image: int
    status: Literal["ok", "refused"]
    record: dict[str, Any]
    cam: NDArray[np.float32] | None = field(compare=False)  # (C, h, w); None in listings
    decided: float  # unix s
    urgency: float  # in [0, 1]
    doubt: str = ""  # why it is in doubt, see `doubts`; "" where it is not


Row = tuple[Image, "Result | None"]

COLUMNS = tuple(column.name for column in fields(Image))
IDENTITY = COLUMNS[COLUMNS.index("patient_name") :]
SELECT = "SELECT " + ", ".join(f"images.{name}" for name in COLUMNS)


class Images:
    """The rows of images and results."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims = 0

    def insert(self, arrival: Arrival, file: str, size: int, known: Sequence[int]) -> int | None:
        """A row for a durable file. None, and nothing inserted, where the UID's rows are no longer the `known` ones."""
        names = ("sop_class", "sop_instance", "syntax", "source", "peer", "calling_ae")
        told = [getattr(arrival, name) for name in names]
        values = (file, *map(storable, told), arrival.priority, time.time(), size, "other" if known else "new")
        with self._database.write() as connection:
            query = "SELECT id FROM images WHERE sop_instance = ? ORDER BY id"
            if [row["id"] for row in connection.execute(query, (arrival.sop_instance,))] != list(known):
                return None
            cursor = connection.execute(
                "INSERT INTO images (file, sop_class, sop_instance, syntax, source, peer, calling_ae, priority, "
                "received, size, copy, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'received')",
                values,
            )
            return cursor.lastrowid

    def claim(self, only: str = "", but: Sequence[str] = ()) -> Image | None:
        """The next image that waits, now in screening: the most urgent, and at every `TURN`-th claim the oldest."""
        if not self.waiting():  # most often asked of an empty queue, which then needs no writer's lock
            return None
        with self._database.write(durable=False) as connection:  # a power cut that undoes it: the image still waits
            order = "id" if self._claims % TURN == TURN - 1 else "priority DESC, id"
            which = "file = ?" if only else f"file NOT IN ({', '.join('?' * len(but))})"
            query = f"SELECT id FROM images WHERE state = 'received' AND {which} ORDER BY {order} LIMIT 1"
            row = connection.execute(query, (only,) if only else but).fetchone()
            if row is None:
                return None
            self._claims += 1
            move(connection, row["id"], (State.RECEIVED,), State.SCREENING)
            connection.execute("UPDATE images SET attempts = attempts + 1 WHERE id = ?", (row["id"],))
            return _fetch(connection, row["id"])

    def finish(self, image: int, outcome: Outcome, deliveries: Sequence[NewDelivery]) -> None:
        """Result, identity, outbox rows and state at once. Raises SpoolError where it is not in screening."""
        record = json.dumps(outcome.record, allow_nan=False)
        decided = State.DECIDED if outcome.status == "ok" else State.REFUSED
        identity = {name: storable((outcome.identity or {}).get(name, "")) for name in IDENTITY}
        sought = "\n".join(identity[name].casefold() for name in ("patient_name", "patient_id", "accession"))
        now = time.time()
        with self._database.write() as connection:
            state = decided if deliveries else State.DELIVERED
            move(connection, image, (State.SCREENING,), state, error="", sought=sought, **identity)
            row = (image, outcome.status, record, packed(outcome.cam), now, outcome.worst, outcome.proof)
            connection.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, '', NULL)", row)
            for name in _positives(outcome.record):
                connection.execute("INSERT OR IGNORE INTO positives VALUES (?, ?)", (image, name))
            enqueue(connection, image, deliveries, now)

    def fail(self, image: int, error: str) -> State:
        """Screening failed: received again, or quarantined when that was the last attempt."""
        with self._database.write() as connection:
            attempts = _fetch(connection, image).attempts
            state = State.QUARANTINED if attempts >= MAX_ATTEMPTS else State.RECEIVED
            move(connection, image, (State.SCREENING,), state, error=storable(error))
            return state

    def release(self, image: int) -> None:
        """Back to received; the attempt does not count."""
        with self._database.write() as connection:
            attempts = max(0, _fetch(connection, image).attempts - 1)
            move(connection, image, (State.SCREENING,), State.RECEIVED, attempts=attempts)

    def retry(self, image: int, ready: Callable[[Image], None]) -> None:
        """Quarantined, refused or in doubt → received, without its result and deliveries. Raises SpoolError else.

        `ready` is called before anyone can claim the image.
        """
        with self._database.write() as connection:
            result = connection.execute("SELECT status, doubt FROM results WHERE image = ?", (image,)).fetchone()
            allowed = [State.QUARANTINED, State.REFUSED]
            if result is not None and (result["status"] == "refused" or result["doubt"]):
                allowed += [State.DELIVERED, State.DECIDED]
            move(connection, image, allowed, State.RECEIVED, attempts=0, error="")
            for table in ("results", "positives", "deliveries", "undrawn"):
                connection.execute(f"DELETE FROM {table} WHERE image = ?", (image,))
            ready(_fetch(connection, image))

    def get(self, image: int) -> Image:
        """Raises SpoolError where there is none."""
        with self._database.read() as connection:
            return _fetch(connection, image)

    def find(self, sop_instance: str) -> list[Image]:
        """Every row of a SOP Instance UID, oldest first."""
        with self._database.read() as connection:
            query = SELECT + " FROM images WHERE sop_instance = ? ORDER BY id"
            return [to_image(row) for row in connection.execute(query, (sop_instance,))]

    def result(self, image: int) -> Result | None:
        """The result with its map; None while there is none."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM results WHERE image = ?", (image,)).fetchone()
        return None if row is None else to_result(row, unpacked(row["cam"]))

    def fetched(self, images: Sequence[int]) -> None:
        """Somebody was given the results of these images. Writes the first time only."""
        which = f"fetched IS NULL AND image IN ({', '.join('?' * len(images))})"
        with self._database.read() as connection:
            if connection.execute(f"SELECT 1 FROM results WHERE {which} LIMIT 1", images).fetchone() is None:
                return
        with self._database.write(durable=False) as connection:  # a power cut that undoes it: the film is kept longer
            connection.execute(f"UPDATE results SET fetched = ? WHERE {which}", (time.time(), *images))

    def counts(self) -> dict[State, int]:
        """How many images are in each state; every state is there."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT state, COUNT(*) AS number FROM images GROUP BY state").fetchall()
        return dict.fromkeys(State, 0) | {State(row["state"]): row["number"] for row in rows}

    def last(self) -> int:
        """The number of the latest image; 0 before the first."""
        with self._database.read() as connection:
            return int(connection.execute("SELECT COALESCE(MAX(id), 0) FROM images").fetchone()[0])

    def waiting(self) -> int:
        """How many images wait for screening."""
        with self._database.read() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM images WHERE state = 'received'").fetchone()[0])

    def waiting_s(self) -> float | None:
        """Age of the image that has waited longest, by this machine's clock; None where none waits."""
        with self._database.read() as connection:
            oldest = connection.execute("SELECT MIN(received) FROM images WHERE state = 'received'").fetchone()[0]
        return None if oldest is None else max(0.0, time.time() - oldest)


def move(connection: sqlite3.Connection, image: int, allowed: Sequence[State], to: State, **columns: Any) -> None:
    """Change the state of one image inside a transaction. Raises SpoolError where its state is not an `allowed` one."""
    marks = ", ".join("?" * len(allowed))
    sets = "".join(f", {name} = ?" for name in columns)
    values = [to.value, *columns.values(), image, *(state.value for state in allowed)]
    statement = f"UPDATE images SET state = ?{sets} WHERE id = ? AND state IN ({marks})"
    if not connection.execute(statement, values).rowcount:
        state = _fetch(connection, image).state
        wanted = " or ".join(one.value for one in allowed)
        raise SpoolError(f"image {image} is {state.value} and cannot become {to.value}; it would have to be {wanted}")


def _fetch(connection: sqlite3.Connection, image: int) -> Image:
    row = connection.execute(SELECT + " FROM images WHERE id = ?", (image,)).fetchone()
    if row is None:
        raise SpoolError(f"there is no image {image} in the spool")
    return to_image(row)


def to_image(row: sqlite3.Row) -> Image:
    values = {name: row[name] for name in COLUMNS}
    return Image(**{**values, "state": State(row["state"])})


def to_result(row: sqlite3.Row, cam: NDArray[np.float32] | None) -> Result:
    rest = (row[name] for name in ("decided", "urgency", "doubt"))
    return Result(row["image"], row["status"], json.loads(row["record"]), cam, *rest)


def _positives(record: Mapping[str, Any]) -> list[str]:
    return [finding["name"] for finding in record.get("findings", ()) if finding.get("decision") == "positive"]

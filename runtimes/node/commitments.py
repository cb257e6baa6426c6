"""Requests for storage commitment (PS3.4 Annex J), kept until their answer has been delivered."""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.database import Database, storable
from edgecxr.runtimes.node.deliveries import FARTHEST_S

__all__ = ["Commitment", "CommitmentRequest", "Commitments"]


@dataclass(frozen=True)
class CommitmentRequest:
    """One N-ACTION: which instances a modality wants to be sure of."""

    transaction: str  # Transaction UID
    calling_ae: str
    address: str
    references: tuple[tuple[str, str], ...]  # (SOP class, SOP instance)


@dataclass(frozen=True)
class Commitment:
    """A request whose answer is outstanding."""

    id: int
    request: CommitmentRequest
    attempts: int
    error: str
    created: float  # unix s


class Commitments:
    """The rows of requests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, request: CommitmentRequest) -> int:
        """Keep a request; asked again under its Transaction UID, it is answered again."""
        instances = json.dumps(request.references)
        now = time.time()
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO commitments (transaction_uid, calling_ae, address, instances, created, due) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (transaction_uid, calling_ae) DO UPDATE SET "
                "address = excluded.address, instances = excluded.instances, due = excluded.due, answered = NULL",
                (request.transaction, request.calling_ae, request.address, instances, now, now),
            )
            query = "SELECT id FROM commitments WHERE transaction_uid = ? AND calling_ae = ?"
            return int(connection.execute(query, (request.transaction, request.calling_ae)).fetchone()[0])

    def due(self, now: float, limit: int, without: Sequence[str] = ()) -> list[Commitment]:
        """What may be answered at `now` (unix s), longest due first; see `Deliveries.due`.

        `without`: AE titles whose requests are not wanted.
        """
        with self._database.read() as connection:
            query = (
                "SELECT * FROM commitments WHERE answered IS NULL AND (due <= ? OR due > ?) "
                f"AND calling_ae NOT IN ({', '.join('?' * len(without))}) ORDER BY due, id LIMIT ?"
            )
            values = (now, now + FARTHEST_S, *without, limit)
            return [_commitment(row) for row in connection.execute(query, values)]

    def answered(self, commitment: int) -> None:
        """The answer has arrived. Raises SpoolError where it had."""
        with self._database.write() as connection:
            self._touch(connection, commitment, "answered = ?, error = ''", time.time())

    def postpone(self, commitment: int, error: str, until: float) -> None:
        """The attempt failed; not before `until` (unix s) again."""
        with self._database.write() as connection:
            self._touch(connection, commitment, "attempts = attempts + 1, error = ?, due = ?", storable(error), until)

    def _touch(self, connection: sqlite3.Connection, commitment: int, change: str, *values: object) -> None:
        statement = f"UPDATE commitments SET {change} WHERE id = ? AND answered IS NULL"
        if not connection.execute(statement, (*values, commitment)).rowcount:
            raise SpoolError(f"storage commitment {commitment} is not outstanding: it was answered, or never asked")


def _commitment(row: sqlite3.Row) -> Commitment:
    references = tuple((sop_class, instance) for sop_class, instance in json.loads(row["instances"]))
    request = CommitmentRequest(row["transaction_uid"], row["calling_ae"], row["address"], references)
    return Commitment(row["id"], request, row["attempts"], row["error"], row["created"])

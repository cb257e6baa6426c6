"""Results in doubt: given by an engine that failed the next proof that it was put to.

Each result names the proof that its engine had passed last. When the next one fails, every result that rests on it is
marked, in one transaction, and stays marked until its film is screened again or forgotten.
"""

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from edgecxr.errors import SpoolError, SpoolFull
from edgecxr.runtimes.node.database import Database, storable
from edgecxr.runtimes.node.owed import Owed

__all__ = ["Doubts", "Standing"]

logger = logging.getLogger(__name__)

Uid = Callable[[Mapping[str, Any], str, str], str]  # of a record's object of a kind, with this doubt


class Doubts:
    """The marks in the index."""

    def __init__(self, database: Database, owed: Owed) -> None:
        self._database = database
        self.owed = owed  # what is still to be marked

    def mark(self, proof: str, told: str, uid: Uid) -> int:
        """Mark what rests on a proof; how many results. `told` is a sentence without patient data.

        Objects that have not been delivered will say so, and get UIDs of their own: one of an earlier attempt may have
        arrived though its answer did not.
        """
        with self._database.write() as connection:
            marked = connection.execute(
                "UPDATE results SET doubt = ? WHERE proof = ? AND doubt = ''", (storable(told), proof)
            ).rowcount
            query = (
                "SELECT deliveries.id, kind, record, doubt FROM deliveries JOIN results USING (image) "
                "WHERE proof = ? AND sent IS NULL"
            )
            for row in connection.execute(query, (proof,)).fetchall():
                renamed = uid(json.loads(row["record"]), row["kind"], row["doubt"])
                connection.execute("UPDATE deliveries SET sop_instance = ? WHERE id = ?", (renamed, row["id"]))
            return marked

    def count(self) -> int:
        """Results in doubt; what is in quarantine has none."""
        with self._database.read() as connection:
            query = "SELECT COUNT(*) FROM results JOIN images ON images.id = image WHERE doubt != '' AND state != ?"
            return int(connection.execute(query, ("quarantined",)).fetchone()[0])


class Standing:
    """Which proof the results of one worker rest on now, and the proofs that are to be doubted."""

    def __init__(self, worker: str, mark: Callable[[str, str], int], owed: Owed) -> None:
        """`mark` as `Doubts.mark`, of a proof and a sentence; what cannot be marked yet is `owed`."""
        self.proof = ""
        self._worker = worker
        self._mark = mark
        self._owed = owed

    def passed(self) -> None:
        """Its engine has just reproduced the golden set: what rests on earlier proofs is well."""
        self.proof = uuid.uuid4().hex

    def failed(self, detail: str) -> None:
        """It did not: what was decided since it last did is in doubt as soon as `settle` has marked it."""
        self._owed.add(self.proof, f"the engine that gave it failed its next proof: {detail}")

    def fell(self, detail: str) -> None:
        """An engine that had taken over failed, and the first one goes on: what it decides rests on another proof."""
        self.failed(detail)
        self.passed()
        self.settle()

    def settle(self) -> None:
        """Mark what is owed; what cannot be marked now (a full or busy disk) is when this is called again."""
        try:
            while (first := self._owed.first()) is not None:
                marked = self._mark(*first)
                self._owed.settled(first)
                logger.error("results are in doubt", extra={"worker": self._worker, "results": marked})
        except (OSError, SpoolError, SpoolFull):
            logger.exception("results in doubt could not be marked; trying again", extra={"worker": self._worker})

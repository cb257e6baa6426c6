"""Films whose drawing failed. An attempt is counted before it is made, so that one that ends the node counts, too."""

import contextlib

from edgecxr.errors import SpoolError, SpoolFull
from edgecxr.runtimes.node.database import Database, storable

__all__ = ["MOST_ATTEMPTS", "Undrawn"]

MOST_ATTEMPTS = 2  # in a row; then it is not drawn any more, until its image is screened again
ENDED = "the node ended meanwhile"


class Undrawn:
    """The counts in the index. A disk without room for them does not keep a film from being drawn."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def given_up(self, image: int) -> str:
        """Why this film is not drawn any more; "" where it is."""
        with self._database.read() as connection:
            query = "SELECT error FROM undrawn WHERE image = ? AND attempts >= ?"
            row = connection.execute(query, (image, MOST_ATTEMPTS)).fetchone()
        return "" if row is None else str(row["error"])

    def begin(self, image: int) -> None:
        """Count an attempt that is about to be made."""
        self._write(
            "INSERT INTO undrawn SELECT id, 1, ? FROM images WHERE id = ? "
            "ON CONFLICT (image) DO UPDATE SET attempts = attempts + 1, error = excluded.error",
            (ENDED, image),
        )

    def fail(self, image: int, error: str) -> None:
        """The attempt failed. `error` names no patient."""
        self._write("UPDATE undrawn SET error = ? WHERE image = ?", (storable(error), image))

    def settle(self, image: int) -> None:
        """The attempt was answered, or speaks against no film."""
        self._write("DELETE FROM undrawn WHERE image = ?", (image,))

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with contextlib.suppress(SpoolError, SpoolFull), self._database.write(durable=False) as connection:
            connection.execute(statement, values)

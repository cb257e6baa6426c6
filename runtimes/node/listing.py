"""Listings: which images a page shows, and in which order."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.database import Database
from edgecxr.runtimes.node.images import COLUMNS, Row, State, to_image, to_result

__all__ = ["Selection", "listed"]

URGENCY = "COALESCE(urgency, -1)"


@dataclass(frozen=True)
class Selection:
    """Which rows a listing has. Rows without a result are the least urgent."""

    states: Iterable[State] | None = None
    finding: str | None = None  # positive for it; what is in quarantine is positive for nothing
    text: str = ""  # in patient name, patient ID or accession number, in any case
    limit: int = 100
    before: int | None = None  # id of the last row of the page before, in the same order
    order: Literal["urgent", "newest"] = "newest"
    status: Literal["ok", "refused"] | None = None  # of the result
    positive: bool = False  # for any finding
    since: float | None = None  # received then or later, Unix seconds
    doubt: bool = False  # with a result in doubt; what is in quarantine has none

    def statement(self) -> tuple[str, list[Any]]:
        """SQL and its values. Raises SpoolError for an order that there is not."""
        if self.order not in ("urgent", "newest"):
            raise SpoolError(f"order {self.order!r} of a listing; there are urgent and newest")
        where, values = self._conditions()
        first = f"{URGENCY} DESC, " if self.order == "urgent" else ""
        condition = f" WHERE {' AND '.join(where)}" if where else ""
        columns = ", ".join(f"images.{name}" for name in COLUMNS)
        query = (
            f"SELECT {columns}, image, status, record, decided, urgency, doubt "
            f"FROM images LEFT JOIN results ON image = images.id{condition} ORDER BY {first}images.id DESC LIMIT ?"
        )
        return query, [*values, self.limit]

    def _conditions(self) -> tuple[list[str], list[Any]]:
        where: list[str] = []
        values: list[Any] = []
        if self.states is not None:
            names = [State(state).value for state in self.states]
            where.append(f"state IN ({', '.join('?' * len(names))})")
            values += names
        if self.finding is not None:
            where.append("state != 'quarantined' AND images.id IN (SELECT image FROM positives WHERE finding = ?)")
            values.append(self.finding)
        if self.positive:
            where.append("state != 'quarantined' AND images.id IN (SELECT image FROM positives)")
        if self.doubt:
            where.append("state != 'quarantined' AND doubt != ''")
        if self.status is not None:
            where.append("status = ?")
            values.append(self.status)
        if self.since is not None:
            where.append("images.received >= ?")
            values.append(self.since)
        if self.text:
            where.append("sought LIKE ? ESCAPE '\\'")
            values.append(f"%{_literal(self.text.casefold())}%")
        if self.before is not None and self.order == "newest":
            where.append("images.id < ?")
            values.append(self.before)
        elif self.before is not None:
            last = "COALESCE((SELECT urgency FROM results WHERE image = ?), -1)"
            where.append(f"({URGENCY}, images.id) < ({last}, ?)")
            values += [self.before, self.before]
        return where, values


def listed(database: Database, selection: Selection) -> list[Row]:
    """Images and their results (without the map) that a selection wants."""
    query, values = selection.statement()
    with database.read() as connection:
        rows = connection.execute(query, values).fetchall()
    return [(to_image(row), None if row["status"] is None else to_result(row, None)) for row in rows]


def _literal(text: str) -> str:
    """Text in which LIKE finds no wildcard."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")

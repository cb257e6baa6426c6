"""What may be forgotten: delivered images that are old, or whose room is needed. Nothing else, ever."""

from edgecxr.runtimes.node.database import Database

__all__ = ["DAY_S", "forget_delivered"]

DAY_S = 86400.0


def forget_delivered(database: Database, before: float, room: int) -> list[str]:
    """Delete rows of delivered images: received before `before` (unix s), or the oldest until `room` bytes are won.

    Returns the names of their files, which are to be removed now: a file without a row is removed at the next start.
    """
    forgotten: list[str] = []
    with database.write() as connection:
        query = "SELECT id, file, size, received FROM images WHERE state = 'delivered' ORDER BY received, id"
        chosen = []
        for row in connection.execute(query):
            if row["received"] >= before and room <= 0:
                break
            room -= row["size"]
            chosen.append((row["id"],))
            forgotten.append(row["file"])
        connection.executemany("DELETE FROM images WHERE id = ? AND state = 'delivered'", chosen)
    return forgotten

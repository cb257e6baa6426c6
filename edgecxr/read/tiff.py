"""The first image directory of a TIFF structure (TIFF 6.0): of a film, or of the EXIF block of a photograph."""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgecxr.errors import Refusal, RefusalReason

__all__ = ["Directory", "is_tiff", "read_directory"]

SIGNATURES = {b"II*\0": "<", b"MM\0*": ">"}
FORMATS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG: what the tags read here are made of
WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
VALUE_LIMIT = 1_000_000  # values of all entries that are read; tiles of 16 x 16 pixels make 780,000 of the largest film
BYTES_FLOOR = 1 << 16  # entries of so many bytes in all cost nothing, however small the file


@dataclass(frozen=True)
class Directory:
    """The integer entries that were asked for of one image directory, by tag number."""

    entries: dict[int, tuple[int, ...]]
    more: bool  # another directory follows

    def one(self, tag: int, default: int) -> int:
        """The first value of an entry."""
        return self.entries.get(tag, (default,))[0]


@dataclass(frozen=True)
class _Entry:
    """Where the values of one entry lie."""

    tag: int
    kind: int  # TIFF 6.0 section 2: 1 is BYTE, 2 ASCII, 3 SHORT, 4 LONG, ...
    length: int  # values
    start: int

    @property
    def size(self) -> int:
        return self.length * WIDTHS.get(self.kind, 0)


def is_tiff(data: memoryview) -> bool:
    """Whether the content is classic TIFF (BigTIFF, signature 43, is not read)."""
    return bytes(data[:4]) in SIGNATURES


def read_directory(data: memoryview, tags: Collection[int]) -> Directory:
    """The entries `tags` of the first directory; of others only where they lie.

    Entries may all point at the same bytes, and a decoder copies each: so together they must fit into the file.
    Raises Refusal: UNREADABLE, TRUNCATED, TOO_LARGE, CONTRADICTORY (a tag twice).
    """
    order = SIGNATURES.get(bytes(data[:4]))
    if order is None:
        raise Refusal(RefusalReason.UNREADABLE, "not a TIFF structure")
    (offset,) = _unpack(order + "I", data, 4)
    (count,) = _unpack(order + "H", data, offset)
    (following,) = _unpack(order + "I", data, offset + 2 + 12 * count)
    wanted, apart, values = [], 0, 0
    for index in range(count):
        entry = _entry(order, data, offset + 2 + 12 * index)
        if entry.size > 4:
            apart += entry.size
        if entry.tag in tags:
            wanted.append(entry)
            values += entry.length
        if apart > max(len(data), BYTES_FLOOR) or values > VALUE_LIMIT:
            raise Refusal(
                RefusalReason.TOO_LARGE,
                f"TIFF entries up to tag {entry.tag} claim {apart:,} bytes of {len(data):,} and {values:,} values "
                f"to read; they may claim what there is, and {VALUE_LIMIT:,} values",
            )
    return Directory(_values(order, data, wanted), more=following != 0)


def _entry(order: str, data: memoryview, place: int) -> _Entry:
    """One entry. Raises Refusal (TRUNCATED) when its values lie past the end."""
    tag, kind, length = _unpack(order + "HHI", data, place)
    inline = length * WIDTHS.get(kind, 0) <= 4
    entry = _Entry(tag, kind, length, place + 8 if inline else _unpack(order + "I", data, place + 8)[0])
    _check_inside(data, entry.start, entry.size)
    return entry


def _values(order: str, data: memoryview, entries: Sequence[_Entry]) -> dict[int, tuple[int, ...]]:
    values: dict[int, tuple[int, ...]] = {}
    for entry in entries:
        if entry.tag in values:
            raise Refusal(RefusalReason.CONTRADICTORY, f"TIFF tag {entry.tag} stands twice")
        if entry.kind not in FORMATS or not entry.length:
            raise Refusal(
                RefusalReason.UNREADABLE,
                f"TIFF tag {entry.tag} has {entry.length} values of type {entry.kind}; BYTE, SHORT or LONG is read",
            )
        values[entry.tag] = _unpack(f"{order}{entry.length}{FORMATS[entry.kind]}", data, entry.start)
    return values


def _unpack(form: str, data: memoryview, offset: int) -> tuple[int, ...]:
    _check_inside(data, offset, struct.calcsize(form))
    return struct.unpack_from(form, data, offset)


def _check_inside(data: memoryview, offset: int, size: int) -> None:
    if offset + size > len(data):
        raise Refusal(
            RefusalReason.TRUNCATED, f"the TIFF structure has {len(data):,} bytes and points at byte {offset:,}"
        )

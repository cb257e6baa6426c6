"""The first image directory of a TIFF structure (TIFF 6.0): of a film, or of the EXIF block of a photograph."""

import struct
from dataclasses import dataclass

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.guard import Limits

__all__ = ["Directory", "is_tiff", "read_directory"]

SIGNATURES = {b"II*\0": "<", b"MM\0*": ">"}
FORMATS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG: what the tags read here are made of
VALUE_LIMIT = 1_000_000  # values of one entry, such as strip offsets


@dataclass(frozen=True)
class Directory:
    """The integer entries of one image directory, by tag number."""

    entries: dict[int, tuple[int, ...]]
    more: bool  # another directory follows

    def one(self, tag: int, default: int) -> int:
        """The first value of an entry."""
        return self.entries.get(tag, (default,))[0]


def is_tiff(data: memoryview) -> bool:
    """Whether the content is classic TIFF (BigTIFF, signature 43, is not read)."""
    return bytes(data[:4]) in SIGNATURES


def read_directory(data: memoryview, limits: Limits) -> Directory:
    """The first directory. Raises Refusal: UNREADABLE, TRUNCATED, TOO_LARGE."""
    order = SIGNATURES.get(bytes(data[:4]))
    if order is None:
        raise Refusal(RefusalReason.UNREADABLE, "not a TIFF structure")
    (offset,) = _unpack(order + "I", data, 4)
    (count,) = _unpack(order + "H", data, offset)
    if count > limits.elements:
        raise Refusal(RefusalReason.TOO_LARGE, f"{count:,} TIFF entries")
    entries = {}
    for index in range(count):
        place = offset + 2 + 12 * index
        tag, kind, length = _unpack(order + "HHI", data, place)
        if kind in FORMATS and length > 0:
            if length > VALUE_LIMIT:
                raise Refusal(RefusalReason.TOO_LARGE, f"TIFF tag {tag} has {length:,} values")
            form = f"{order}{length}{FORMATS[kind]}"
            start = place + 8 if struct.calcsize(form) <= 4 else _unpack(order + "I", data, place + 8)[0]
            entries[tag] = _unpack(form, data, start)
    (following,) = _unpack(order + "I", data, offset + 2 + 12 * count)
    return Directory(entries, more=following != 0)


def _unpack(form: str, data: memoryview, offset: int) -> tuple[int, ...]:
    if offset + struct.calcsize(form) > len(data):
        raise Refusal(
            RefusalReason.TRUNCATED, f"the TIFF structure has {len(data):,} bytes and points at byte {offset:,}"
        )
    return struct.unpack_from(form, data, offset)

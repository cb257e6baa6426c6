"""The data elements of a DICOM data set (PS3.5 7), found by one bounded walk that neither recurses nor copies.

pydicom parses recursively and allocates what a length field declares, so 10,000 nested sequences or a declared 3 GB
cost it a RecursionError or the memory. This walk checks every length against its container before it moves on.
"""

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.guard import Limits

__all__ = ["Element", "Encoding", "walk", "walk_group", "walk_whole"]

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # two reserved bytes, then a 32-bit length


class Encoding(NamedTuple):
    """How elements are written (PS3.5 7.1)."""

    implicit: bool
    little: bool


@dataclass(frozen=True)
class Element:
    """One element of the outermost data set; offsets are into the walked bytes."""

    tag: int
    vr: str  # "" when implicit
    start: int  # of the value
    stop: int  # 0 when the length is undefined
    encoding: Encoding  # of the items inside
    undefined: bool = False
    parts: list[tuple[int, int]] = field(default_factory=list)  # contents of sequence items, or of pixel fragments


class _Kind(Enum):
    DATASET = "data set"  # also the contents of an item
    SEQUENCE = "sequence"
    FRAGMENTS = "encapsulated pixel data"


@dataclass
class _Level:
    kind: _Kind
    end: int  # nothing inside reaches past it
    open: bool  # ended by a delimiter, not by its length
    encoding: Encoding
    element: Element | None = None  # the outermost element whose parts are collected here
    start: int = 0


def name(tag: int) -> str:
    """``(gggg,eeee)``, as the standard writes a tag."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def walk(data: memoryview, span: tuple[int, int], encoding: Encoding, limits: Limits) -> dict[int, Element]:
    """The outermost elements in data[span[0]:span[1]], by tag.

    Raises Refusal: TRUNCATED (a length reaches past the data), TOO_LARGE (nesting, elements), UNREADABLE,
    CONTRADICTORY (an element twice).
    """
    walker = _Walk(data, span[1], encoding, limits)
    walker.run(span[0])
    return walker.found


def walk_whole(data: memoryview, span: tuple[int, int], encoding: Encoding, limits: Limits) -> dict[int, Element]:
    """The outermost elements that lie whole before the first fault: whose a broken file is, but never its pixels."""
    walker = _Walk(data, span[1], encoding, limits)
    try:
        walker.run(span[0])
    except Refusal:
        last = next((level.element for level in walker.levels if level.element is not None), None)
        if last is not None:
            walker.found.pop(last.tag, None)
    return walker.found


def walk_group(data: memoryview, start: int, encoding: Encoding, limits: Limits) -> tuple[dict[int, Element], int]:
    """The elements of the group that data[start:] begins with, and where another group begins. Raises as `walk`."""
    walker = _Walk(data, len(data), encoding, limits, of_one_group=True)
    end = walker.run(start)
    return walker.found, end


class _Walk:
    def __init__(
        self, data: memoryview, stop: int, encoding: Encoding, limits: Limits, of_one_group: bool = False
    ) -> None:
        self.data = data
        self.limits = limits
        self.of_one_group = of_one_group
        self.levels = [_Level(_Kind.DATASET, stop, False, encoding)]
        self.found: dict[int, Element] = {}
        self.count = 0

    def run(self, position: int) -> int:
        """Walk from `position` to the end; where that is."""
        first = -1
        while self.levels:
            level = self.levels[-1]
            if position == level.end and not level.open:
                self._close(position)
                continue
            self._need(position, 8, level)
            group, number = struct.unpack_from("<HH" if level.encoding.little else ">HH", self.data, position)
            if self.of_one_group and len(self.levels) == 1:
                first = group if first < 0 else first
                if group != first:
                    break
            self.count += 1
            if self.count > self.limits.elements:
                raise Refusal(RefusalReason.TOO_LARGE, f"more than {self.limits.elements:,} data elements")
            step = self._element if level.kind is _Kind.DATASET else self._part
            position = step(position, group << 16 | number, level)
        return position

    def _close(self, position: int) -> None:
        level = self.levels.pop()
        if level.element is not None and level.kind is _Kind.DATASET:
            level.element.parts.append((level.start, position))

    def _open(self, level: _Level) -> None:
        if len(self.levels) > self.limits.depth:
            raise Refusal(RefusalReason.TOO_LARGE, f"sequences are nested more than {self.limits.depth} deep")
        self.levels.append(level)

    def _need(self, position: int, count: int, level: _Level) -> None:
        if position + count <= level.end:
            return
        if position + count > len(self.data) or self.levels[0].end == level.end:
            raise Refusal(
                RefusalReason.TRUNCATED,
                f"{count:,} bytes are declared at byte {position:,}, where {max(0, level.end - position):,} are left",
            )
        raise Refusal(RefusalReason.UNREADABLE, f"an element at byte {position:,} reaches past the item that holds it")

    def _element(self, position: int, tag: int, level: _Level) -> int:
        if tag == ITEM_END and level.open:
            self._close(position)
            return position + 8
        vr, length, start = self._prefix(position, tag, level)
        undefined = length == UNDEFINED
        if not undefined:
            self._need(start, length, level)
        inner = Encoding(True, True) if vr == "UN" else level.encoding  # PS3.5 6.2.2 note 2
        element = Element(tag, vr, start, 0 if undefined else start + length, inner, undefined)
        outermost = len(self.levels) == 1
        if outermost and self.found.setdefault(tag, element) is not element:
            raise Refusal(RefusalReason.CONTRADICTORY, f"the header holds {name(tag)} twice")
        kind = self._kind(tag, vr, undefined)
        if kind is None:
            return start + length
        end = level.end if undefined else start + length
        self._open(_Level(kind, end, undefined, inner, element if outermost else None))
        return start

    def _prefix(self, position: int, tag: int, level: _Level) -> tuple[str, int, int]:
        """VR, value length and value offset (PS3.5 7.1.2, 7.1.3)."""
        if tag >> 16 == 0xFFFE:
            raise Refusal(RefusalReason.UNREADABLE, f"a delimiter {name(tag)} at byte {position:,} ends nothing")
        order = "<" if level.encoding.little else ">"
        if level.encoding.implicit:
            return "", struct.unpack_from(order + "I", self.data, position + 4)[0], position + 8
        vr = bytes(self.data[position + 4 : position + 6])
        if vr in SHORT_VRS:
            return vr.decode(), struct.unpack_from(order + "H", self.data, position + 6)[0], position + 8
        if vr not in LONG_VRS:
            raise Refusal(RefusalReason.UNREADABLE, f"{name(tag)} at byte {position:,} has no VR of DICOM: {vr!r}")
        self._need(position, 12, level)
        return vr.decode(), struct.unpack_from(order + "I", self.data, position + 8)[0], position + 12

    def _kind(self, tag: int, vr: str, undefined: bool) -> _Kind | None:
        """What lies inside an element; None for a plain value."""
        if vr == "SQ":
            return _Kind.SEQUENCE
        if undefined and (tag == PIXEL_DATA or vr in ("OB", "OW")):
            return _Kind.FRAGMENTS
        if vr in ("", "UN") and (undefined or _is_sequence(tag)):
            return _Kind.SEQUENCE
        if undefined:
            raise Refusal(RefusalReason.UNREADABLE, f"{name(tag)} has VR {vr} and no length")
        return None

    def _part(self, position: int, tag: int, level: _Level) -> int:
        """One item or fragment, or the delimiter that ends them (PS3.5 7.5, A.4)."""
        length: int = struct.unpack_from("<I" if level.encoding.little else ">I", self.data, position + 4)[0]
        start = position + 8
        if tag == SEQUENCE_END and level.open:
            self._close(position)
            return start
        if tag != ITEM:
            raise Refusal(RefusalReason.UNREADABLE, f"an item was expected at byte {position:,}, got {name(tag)}")
        undefined = length == UNDEFINED
        if not undefined:
            self._need(start, length, level)
        if level.kind is _Kind.SEQUENCE:
            end = level.end if undefined else start + length
            self._open(_Level(_Kind.DATASET, end, undefined, level.encoding, level.element, start))
            return start
        if undefined:
            raise Refusal(RefusalReason.UNREADABLE, f"the fragment at byte {position:,} has no length")
        if level.element is not None:
            level.element.parts.append((start, start + length))
        return start + length


def _is_sequence(tag: int) -> bool:
    try:
        return str(dictionary_VR(tag)) == "SQ"
    except KeyError:
        return False

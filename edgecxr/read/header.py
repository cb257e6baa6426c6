"""Typed reading of a DICOM header: text, integers, decimals and items, each checked as it is asked for."""

import math
import re
import struct

from pydicom.datadict import tag_for_keyword

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.elements import Element, Encoding, walk, walk_whole
from edgecxr.read.guard import Limits, shown

__all__ = ["Header"]

TEXT_LIMIT = 1 << 16  # bytes
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")  # PS3.5 6.2, DS


class Header:
    """The outermost elements of a data set or of one item, by the keywords of PS3.6."""

    def __init__(
        self,
        data: memoryview,
        span: tuple[int, int],
        encoding: Encoding,
        limits: Limits,
        *,
        broken: bool = False,
    ) -> None:
        """`broken` keeps what lies whole before the first fault, instead of refusing."""
        self.data = data
        self.encoding = encoding
        self.limits = limits
        self.elements = (walk_whole if broken else walk)(data, span, encoding, limits)

    def element(self, keyword: str) -> Element | None:
        """The element, or None when the header has none."""
        return self.elements.get(_tag(keyword))

    def value(self, keyword: str) -> memoryview:
        """The bytes as stored; empty when absent."""
        element = self.element(keyword)
        return self.data[0:0] if element is None or element.undefined else self.data[element.start : element.stop]

    def texts(self, keyword: str) -> list[str]:
        """The values of a text element, stripped; [] when absent or empty. Raises Refusal (TOO_LARGE) above 64 KiB."""
        raw = bytes(self.value(keyword)[: TEXT_LIMIT + 1])
        if len(raw) > TEXT_LIMIT:
            raise Refusal(RefusalReason.TOO_LARGE, f"{keyword} has more than {TEXT_LIMIT:,} bytes")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        text = text.strip(" \0\t\r\n")
        return [part.strip(" \0") for part in text.split("\\")] if text else []

    def text(self, keyword: str) -> str:
        """The first value of a text element; "" when absent or empty."""
        values = self.texts(keyword)
        return values[0] if values else ""

    def decimals(self, keyword: str) -> list[float]:
        """The values of a decimal or integer string; [] when absent or empty. Raises Refusal (CONTRADICTORY)."""
        return [self._decimal(keyword, text) for text in self.texts(keyword)]

    def _decimal(self, keyword: str, text: str) -> float:
        if not DECIMAL.fullmatch(text) or not math.isfinite(value := float(text)):
            raise Refusal(RefusalReason.CONTRADICTORY, f"{keyword} is no decimal number: {shown(text)}")
        return value

    def integer(self, keyword: str) -> int | None:
        """An unsigned binary integer, or an integer string; None when absent or empty. Raises Refusal."""
        element = self.element(keyword)
        raw = self.value(keyword)
        if element is None or not len(raw):
            return None
        if element.vr in ("IS", "DS") or keyword == "NumberOfFrames":
            return self._whole(keyword)
        if len(raw) != 2:
            raise Refusal(
                RefusalReason.CONTRADICTORY, f"{keyword} has {len(raw)} bytes where one 16-bit integer belongs"
            )
        return int(struct.unpack(self.order + "H", raw)[0])

    def _whole(self, keyword: str) -> int:
        values = self.decimals(keyword)
        if len(values) != 1 or values[0] != int(values[0]):
            raise Refusal(RefusalReason.CONTRADICTORY, f"{keyword} is not one integer: {shown(self.text(keyword))}")
        return int(values[0])

    def required(self, keyword: str) -> int:
        """`integer`, for what an image cannot be read without. Raises Refusal (UNREADABLE) when absent."""
        value = self.integer(keyword)
        if value is None:
            raise Refusal(RefusalReason.UNREADABLE, f"the header lacks {keyword}, without which pixels mean nothing")
        return value

    def items(self, keyword: str) -> list["Header"]:
        """The items of a sequence; [] when absent or empty."""
        element = self.element(keyword)
        parts = [] if element is None else element.parts
        return [Header(self.data, part, element.encoding, self.limits) for part in parts] if element else []

    @property
    def order(self) -> str:
        """The byte order of binary values, as `struct` and NumPy write it."""
        return "<" if self.encoding.little else ">"


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"PS3.6 has no keyword {keyword!r}")
    return int(tag)

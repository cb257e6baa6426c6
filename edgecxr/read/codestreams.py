"""What JPEG and JPEG-LS streams declare about themselves, read before any decoder sees them; JPEG 2000: `jpeg2000`.

Decoders believe these declarations and fill in what is missing, so size, depth and completeness are checked here.
"""

import struct
from dataclasses import dataclass

import numpy as np

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.guard import Limits, check_frame, check_ratio
from edgecxr.read.lossless import LosslessScan, huffman_codes

__all__ = ["CodeStream", "check_cost", "read_jpeg"]

CODES = np.arange(256)
RESTARTS = (CODES >= 0xD0) & (CODES <= 0xD7)
# Whether a byte behind FF makes a marker in entropy data: in JPEG, FF 00 is data (T.81 B.1.1); in JPEG-LS, a bit 0 is
# stuffed after FF (T.87 A.1).
MARKERS = (CODES != 0) & (CODES != 0xFF) & ~RESTARTS
LS_MARKERS = (CODES >= 0x80) & (CODES != 0xFF) & ~RESTARTS
SEARCH_STEP = 1 << 18  # bytes searched at once
FRAMES = {0xC0: "SOF0", 0xC1: "SOF1", 0xC2: "SOF2", 0xC3: "SOF3", 0xF7: "SOF55"}
OTHER_FRAMES = frozenset({0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})  # hierarchical, arithmetic
SCAN_LIMIT = 100  # a progressive film has about 10 scans; each costs a pass over the frame


@dataclass(frozen=True)
class CodeStream:
    """One compressed image as its own header declares it."""

    kind: str  # SOF0, SOF1, SOF2, SOF3, SOF55 (JPEG-LS), J2K, HTJ2K
    rows: int
    columns: int
    components: int
    precision: int  # bits of a sample
    signed: bool
    end: int  # offset behind the last byte of the stream
    predictor: int = 0  # SOF3 only: T.81 table H.1
    lossless: LosslessScan | None = None  # SOF3 only: what its last pixels are checked by, where that can be
    exif: tuple[int, int] | None = None  # span of the EXIF block of a JPEG file, a TIFF structure
    reductions: tuple[
        tuple[int, int], ...
    ] = ()  # JPEG 2000 only: (rows, columns) of the coarser images it holds, halved
    # once, twice, ...; those that can be decoded alone, see `resolutions`


class _Jpeg:
    """A walk over the marker segments of a JPEG or JPEG-LS stream (T.81 annex B, T.87 annex C)."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.frame: tuple[str, int, int, int, int] | None = None  # kind, precision, rows, columns, components
        self.scans = 0
        self.predictor = 0
        self.point_transform = 0
        self.interval = 0  # between restarts
        self.tables: dict[int, dict[int, str]] = {}
        self.table = 0  # of the scan's first component
        self.scan = (0, 0)  # span of its entropy data
        self.exif: tuple[int, int] | None = None

    def run(self) -> CodeStream:
        if bytes(self.data[:2]) != b"\xff\xd8":
            raise Refusal(RefusalReason.UNREADABLE, "the JPEG stream does not begin with SOI (FF D8)")
        position = 2
        while True:
            marker, position = self._marker(position)
            if marker == 0xD9:
                return self._finish(position)
            if marker == 0x01 or 0xD0 <= marker <= 0xD7:
                continue
            (length,) = self._unpack(">H", position)
            if length < 2 or position + length > len(self.data):
                raise Refusal(
                    RefusalReason.TRUNCATED, f"JPEG segment FF {marker:02X} at byte {position:,} is cut short"
                )
            self._segment(marker, position + 2, length - 2)
            position += length
            if marker == 0xDA:
                start, position = position, self._skip_scan(position)
                self.scan = start, position

    def _marker(self, position: int) -> tuple[int, int]:
        (lead,) = self._unpack("B", position)
        while lead == 0xFF:
            position += 1
            (code,) = self._unpack("B", position)
            if code != 0xFF:
                return code, position + 1
        raise Refusal(RefusalReason.UNREADABLE, f"a JPEG marker was expected at byte {position:,}, got {lead:02X}")

    def _segment(self, marker: int, start: int, length: int) -> None:
        if marker in OTHER_FRAMES:
            raise Refusal(RefusalReason.UNSUPPORTED_SYNTAX, f"JPEG process FF {marker:02X} has no decoder here")
        if marker in FRAMES:
            if self.frame is not None:
                raise Refusal(RefusalReason.UNREADABLE, "the JPEG stream declares two frames")
            precision, rows, columns, components = self._unpack(">BHHB", start)
            self.frame = FRAMES[marker], precision, rows, columns, components
        elif marker == 0xDA:
            self.scans += 1
            (components,) = self._unpack("B", start)
            self.predictor, _, transform = self._unpack("BBB", start + 1 + 2 * components)
            self.point_transform = transform & 15
            self.table = self._unpack("B", start + 2)[0] >> 4
        elif marker == 0xC4:
            self.tables |= huffman_codes(bytes(self.data[start : start + length]))
        elif marker == 0xDD:
            (self.interval,) = self._unpack(">H", start)
        elif marker == 0xE1 and bytes(self.data[start : start + 6]) == b"Exif\0\0":
            self.exif = start + 6, start + length

    def _skip_scan(self, position: int) -> int:
        if self.scans > SCAN_LIMIT:
            raise Refusal(RefusalReason.TOO_LARGE, f"the JPEG stream has more than {SCAN_LIMIT} scans")
        markers = LS_MARKERS if self.frame is not None and self.frame[0] == "SOF55" else MARKERS
        content = np.frombuffer(self.data, np.uint8)
        for start in range(position, len(content) - 1, SEARCH_STEP):
            block = content[start : start + SEARCH_STEP + 1]
            leads = np.flatnonzero(block[:-1] == 0xFF)
            found = leads[markers[block[leads + 1]]]
            if found.size:
                return start + int(found[0])
        raise Refusal(RefusalReason.TRUNCATED, "the JPEG stream ends without EOI (FF D9)")

    def _finish(self, position: int) -> CodeStream:
        if self.frame is None or not self.scans:
            raise Refusal(RefusalReason.UNREADABLE, "the JPEG stream holds no image")
        kind, precision, rows, columns, components = self.frame
        return CodeStream(
            kind, rows, columns, components, precision, False, position, self.predictor, self._lossless(), self.exif
        )

    def _lossless(self) -> LosslessScan | None:
        kind, *_, components = self.frame or ("", 0)
        plain = kind == "SOF3" and components == self.scans == 1 and not self.interval and not self.point_transform
        if not plain or self.table not in self.tables or not 1 <= self.predictor <= 7:
            return None
        return LosslessScan(*self.scan, self.predictor, self.tables[self.table])

    def _unpack(self, form: str, position: int) -> tuple[int, ...]:
        if position + struct.calcsize(form) > len(self.data):
            raise Refusal(
                RefusalReason.TRUNCATED, f"the JPEG stream ends at byte {len(self.data):,} without EOI (FF D9)"
            )
        return struct.unpack_from(form, self.data, position)


def read_jpeg(data: memoryview, limits: Limits) -> CodeStream:
    """What a JPEG or JPEG-LS stream declares, once all its segments are known to be there.

    Raises Refusal: UNREADABLE, TRUNCATED, TOO_LARGE, UNSUPPORTED_SYNTAX, CONTRADICTORY (no rows or columns).
    """
    stream = _Jpeg(data).run()
    check_cost(stream, limits)
    return stream


def check_cost(stream: CodeStream, limits: Limits) -> None:
    """Raise Refusal (CONTRADICTORY, TOO_LARGE) when the declared image is none, or more than a film has."""
    check_frame(stream.rows, stream.columns, limits)
    decoded = stream.rows * stream.columns * max(1, stream.components) * (1 if stream.precision <= 8 else 2)
    check_ratio(decoded, stream.end, limits)

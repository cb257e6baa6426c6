"""What JPEG, JPEG-LS and JPEG 2000 streams declare about themselves, read before any decoder sees them.

Decoders believe these declarations and fill in what is missing, so size, depth and completeness are checked here.
"""

import struct
from dataclasses import dataclass

import numpy as np

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.guard import Limits, check_frame, check_ratio, only_zeros

__all__ = ["CodeStream", "read_jpeg", "read_jpeg2000", "unwrap_jp2"]

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
TILE_LIMIT = 4096
BLOCK_LIMIT = 500_000  # code-blocks, or precincts: each costs a decoder some hundred bytes; a film has 10,000


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
    exif: tuple[int, int] | None = None  # span of the EXIF block of a JPEG file, a TIFF structure


class _Jpeg:
    """A walk over the marker segments of a JPEG or JPEG-LS stream (T.81 annex B, T.87 annex C)."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.frame: tuple[str, int, int, int, int] | None = None  # kind, precision, rows, columns, components
        self.scans = 0
        self.predictor = 0
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
                position = self._skip_scan(position)

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
            (self.predictor,) = self._unpack("B", start + 1 + 2 * components)
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
        return CodeStream(kind, rows, columns, components, precision, False, position, self.predictor, self.exif)

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
    _check_cost(stream, limits)
    return stream


def _check_cost(stream: CodeStream, limits: Limits) -> None:
    check_frame(stream.rows, stream.columns, limits)
    decoded = stream.rows * stream.columns * max(1, stream.components) * (1 if stream.precision <= 8 else 2)
    check_ratio(decoded, stream.end, limits)


def unwrap_jp2(data: memoryview) -> memoryview:
    """The codestream inside a JP2 file (T.800 annex I). Raises Refusal (TRUNCATED, UNREADABLE) when there is none."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        end = position + length if length else len(data)
        if end > len(data):
            raise Refusal(
                RefusalReason.TRUNCATED, f"JP2 box {kind!r} declares {length:,} bytes, {len(data) - position:,} left"
            )
        if kind == b"jp2c":
            return data[position + header : end]
        if end < position + header:
            break
        position = end
    raise Refusal(RefusalReason.UNREADABLE, "the JP2 file holds no codestream")


class _Jpeg2000:
    """A walk over main header and tile-parts of a JPEG 2000 codestream (T.800 annex A)."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.high_throughput = False
        self.area = (0, 0)  # rows, columns

    def run(self, limits: Limits) -> CodeStream:
        if bytes(self.data[:4]) != b"\xff\x4f\xff\x51":
            raise Refusal(RefusalReason.UNREADABLE, "the JPEG 2000 stream does not begin with SOC and SIZ")
        rows, columns, components, depth = self._size()
        self.area = rows, columns
        check_frame(rows, columns, limits)
        end = self._tile_parts(self._header(2, 0x90))
        kind = "HTJ2K" if self.high_throughput else "J2K"
        stream = CodeStream(kind, rows, columns, components, (depth & 0x7F) + 1, bool(depth & 0x80), end)
        _check_cost(stream, limits)
        return stream

    def _size(self) -> tuple[int, int, int, int]:
        """(rows, columns, components, Ssiz) of the SIZ segment."""
        _, x, y, left, top, tile_x, tile_y, tile_left, tile_top, components = self._unpack(">H8IH", 6)
        depth, step_x, step_y = self._unpack("BBB", 42)
        if not tile_x or not tile_y or tile_left > left or tile_top > top or (step_x, step_y) != (1, 1):
            raise Refusal(RefusalReason.UNREADABLE, "the JPEG 2000 stream declares an impossible grid")
        tiles = -(-(x - tile_left) // tile_x) * -(-(y - tile_top) // tile_y)
        if tiles > TILE_LIMIT:
            raise Refusal(RefusalReason.TOO_LARGE, f"{tiles:,} JPEG 2000 tiles; at most {TILE_LIMIT:,} are read")
        return y - top, x - left, components, depth

    def _header(self, position: int, last: int) -> int:
        """Walk marker segments from `position` up to marker `last`; its offset."""
        while True:
            lead, marker = self._unpack("BB", position)
            if lead != 0xFF or marker < 0x4F:
                raise Refusal(RefusalReason.UNREADABLE, f"a JPEG 2000 marker was expected at byte {position:,}")
            if marker == last:
                return position
            (length,) = self._unpack(">H", position + 2)
            if length < 2 or marker in (0x90, 0x93, 0xD9):
                raise Refusal(
                    RefusalReason.UNREADABLE, f"JPEG 2000 marker FF {marker:02X} at byte {position:,} is misplaced"
                )
            if marker == 0x50:
                self.high_throughput = True
            elif marker == 0x52:
                self._check_blocks(position + 4, length - 2)
            position += 2 + length

    def _check_blocks(self, start: int, length: int) -> None:
        """Refuse a COD segment (T.800 A.6.1) whose code-blocks, precincts or packets are too many to be a film's."""
        style, _, layers, _, levels, block_x, block_y = self._unpack(">BBHBBBB", start)
        if levels > 32 or block_x > 8 or block_y > 8:
            raise Refusal(RefusalReason.UNREADABLE, f"{levels} JPEG 2000 decompositions, code-block 2^{block_x + 2}")
        sizes = bytes(self.data[start + 10 : start + length]) if style & 1 else b""
        precincts = 0
        for resolution in range(levels + 1):
            size = sizes[resolution] if resolution < len(sizes) else 0xFF
            shrink = levels - resolution
            precincts += self._cells((size & 15) + shrink, (size >> 4) + shrink)
        blocks = self._cells(block_x + 2, block_y + 2)
        if max(blocks, precincts) > BLOCK_LIMIT or layers * precincts > max(BLOCK_LIMIT, 16 * len(self.data)):
            raise Refusal(
                RefusalReason.TOO_LARGE,
                f"{blocks:,} code-blocks, {precincts:,} precincts and {layers:,} layers in JPEG 2000",
            )

    def _cells(self, log_width: int, log_height: int) -> int:
        rows, columns = self.area
        return -(-rows // (1 << log_height)) * -(-columns // (1 << log_width))

    def _tile_parts(self, position: int) -> int:
        """Walk tile-parts by their declared length to the end of the stream; that offset."""
        while position + 2 <= len(self.data):
            lead, marker = self._unpack("BB", position)
            if (lead, marker) == (0xFF, 0xD9):
                return position + 2
            if (lead, marker) != (0xFF, 0x90):
                break
            length, _, declared = self._unpack(">HHI", position + 2)
            if length != 10 or 0 < declared < 14:
                break
            self._header(position + 12, 0x93)
            if declared == 0:
                return self._last_marker(position)
            if position + declared > len(self.data):
                raise Refusal(
                    RefusalReason.TRUNCATED,
                    f"a JPEG 2000 tile-part declares {declared:,} bytes, {len(self.data) - position:,} are left",
                )
            position += declared
        if only_zeros(self.data[position:]):  # the end marker is missing, but no promised byte is
            return position
        raise Refusal(RefusalReason.UNREADABLE, f"JPEG 2000 tile-parts lose their order at byte {position:,}")

    def _last_marker(self, position: int) -> int:
        found = bytes(self.data[position:]).rstrip(b"\0")
        if not found.endswith(b"\xff\xd9"):
            raise Refusal(RefusalReason.TRUNCATED, "the JPEG 2000 stream ends without EOC (FF D9)")
        return position + len(found)

    def _unpack(self, form: str, position: int) -> tuple[int, ...]:
        if position + struct.calcsize(form) > len(self.data):
            raise Refusal(
                RefusalReason.TRUNCATED, f"the JPEG 2000 stream ends inside its header, at {len(self.data):,} bytes"
            )
        return struct.unpack_from(form, self.data, position)


def read_jpeg2000(data: memoryview, limits: Limits) -> CodeStream:
    """What a JPEG 2000 or HTJ2K codestream declares, once all its tile-parts are known to be there.

    Raises Refusal: UNREADABLE, TRUNCATED, TOO_LARGE, CONTRADICTORY (no rows or columns).
    """
    return _Jpeg2000(data).run(limits)

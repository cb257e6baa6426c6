"""What JPEG 2000 and HTJ2K codestreams declare about themselves (T.800), read before a decoder sees them."""

import struct

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.codestreams import CodeStream, check_cost
from edgecxr.read.guard import Limits, check_frame, only_zeros
from edgecxr.read.resolutions import TILE_SEGMENTS, reductions

__all__ = ["read_jpeg2000", "unwrap_jp2"]

TILE_LIMIT = 4096
BLOCK_LIMIT = 500_000  # code-blocks, or precincts: each costs a decoder some hundred bytes; a film has 10,000


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
        self.plain = True  # every tile-part declares its length, and changes nothing that the main header says

    def run(self, limits: Limits) -> CodeStream:
        if bytes(self.data[:4]) != b"\xff\x4f\xff\x51":
            raise Refusal(RefusalReason.UNREADABLE, "the JPEG 2000 stream does not begin with SOC and SIZ")
        rows, columns, components, depth = self._size()
        self.area = rows, columns
        check_frame(rows, columns, limits)
        end = self._tile_parts(self._header(2, 0x90))
        coarser = reductions(self.data) if self.plain else ()
        kind = "HTJ2K" if self.high_throughput else "J2K"
        depth, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
        stream = CodeStream(kind, rows, columns, components, depth, signed, end, reductions=coarser)
        check_cost(stream, limits)
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
            if last == 0x93 and marker not in TILE_SEGMENTS:
                self.plain = False
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
                self.plain = False
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

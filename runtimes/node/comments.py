"""Text that hides in compressed pixels: comments, application data and all that no decoder needs, made blank in place.

No frame moves or changes its length, and every value is decoded as before. Kept is what decoding needs: JFIF (T.871)
without its thumbnail, Adobe's colour transform (T.872 6.5.3), HP's of JPEG-LS.
"""

import re
from collections.abc import Callable, Iterator

__all__ = ["blanked", "blanked_pixels", "blanked_runs", "cut"]

SOS, EOI = 0xDA, 0xD9  # T.81 table B.1
TABLES = (*range(0xC0, 0xD0), *range(0xDA, 0xE0), 0xF7, 0xF8)  # the last two of JPEG-LS (T.87 C.1.1)
ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a segment
KEPT = {(0xE0, b"JFIF\0"): 14, (0xEE, b"Adobe"): 12, (0xE8, b"mrfx"): 5}  # marker, identifier -> bytes kept
BEHIND_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # in entropy data FF is followed by less, or restarts (T.87 A.1)
SOC, SOT, SOD, EOC, COMMENT = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF64  # T.800 table A.2
PARAMETERS = (0xFF50, 0xFF51, 0xFF52, 0xFF53, *range(0xFF55, 0xFF5A), *range(0xFF5C, 0xFF62), 0xFF63)  # with T.814's
FIRST = 0xFF40  # those before it have no segment (T.800 A.1.3), and stand in no header
JP2 = b"\0\0\0\x0cjP  "  # T.800 I.5.1
CONTAINERS = (b"jp2h",)
NEEDED = (b"jP  ", b"ftyp", b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef", b"res ")
NOTHING = b"\x80"  # a run of nothing (PS3.5 G.3.2), which decoders pass over
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # PS3.5 A.4


def blanked_pixels(value: bytes, frames: int, blank: "Callable[[bytes], bytes] | None" = None) -> bytes:
    """Encapsulated Pixel Data (PS3.5 A.4), each frame made blank by `blank`, else as JPEG and JPEG 2000 by `blanked`.

    An offset table that is not that of the frames becomes empty. Raises ValueError where a frame cannot be found or
    read to its end.
    """
    table, *spans = list(_items(value)) or [(0, 0)]
    if not spans or (frames != 1 and frames != len(spans)):
        raise ValueError(f"{frames} frames in {len(spans)} fragments")
    groups = [spans] if frames == 1 else [[span] for span in spans]
    made = bytearray(value)
    for group in groups:
        frame = (blank or blanked)(b"".join(value[start:stop] for start, stop in group))
        for start, stop in group:
            made[start:stop], frame = frame[: stop - start], frame[stop - start :]
    offsets = b"".join((group[0][0] - 8 - table[1]).to_bytes(4, "little") for group in groups)
    if value[table[0] : table[1]] not in (b"", offsets):
        made[: table[1]] = ITEM + bytes(4)
    return bytes(made)


def cut(frame: bytes, size: int) -> bytes:
    """An uncompressed frame of `size` bytes: what lies behind it is blank. Raises ValueError where it is shorter."""
    if len(frame) < size:
        raise ValueError("it breaks off")
    return frame[:size] + bytes(len(frame) - size)


def blanked_runs(frame: bytes, size: int) -> bytes:
    """A frame in RLE (PS3.5 G) with segments of `size` bytes each: nothing is left of what lies outside of them.

    Raises ValueError where they are not such segments.
    """
    data = bytearray(frame)
    count, *starts = (int.from_bytes(data[at : at + 4], "little") for at in range(0, 64, 4))
    starts = starts[:count]
    if not 1 <= count <= 15 or starts != sorted(starts) or starts[0] < 64:
        raise ValueError("its RLE header is none")
    _blank(data, 4 + 4 * count, starts[0])
    for start, stop in zip(starts, [*starts[1:], len(data)], strict=True):
        end = _end_of_runs(data, start, stop, size)
        if any(data[end:stop]):
            data[end:stop] = NOTHING * (stop - end)
    return bytes(data)


def _end_of_runs(data: bytearray, position: int, stop: int, size: int) -> int:
    """Where a segment of `size` bytes ends (PS3.5 G.3.2)."""
    while size > 0 and position < stop:
        code = data[position]
        if code != 128:
            size -= code + 1 if code < 128 else 257 - code
        position += code + 2 if code < 128 else 2 if code > 128 else 1
    if size or position > stop:
        raise ValueError("an RLE segment is not as long as the picture")
    return position


def blanked(stream: bytes) -> bytes:
    """One image, of the same length. Raises ValueError where its markers cannot be followed to the end."""
    data = bytearray(stream)
    try:
        if stream[:2] == b"\xff\xd8":
            _blank_jpeg(data)
        elif stream[: len(JP2)] == JP2:
            _blank_boxes(data, 0, len(data))
        elif stream[:2] == b"\xff\x4f":
            _blank_codestream(data, 0, len(data))
        else:
            raise ValueError("neither JPEG nor JPEG 2000")
    except IndexError as error:
        raise ValueError("it breaks off") from error
    return bytes(data)


def _blank(data: bytearray, start: int, stop: int) -> None:
    if stop > len(data):
        raise ValueError("it breaks off")
    data[start:stop] = bytes(max(0, stop - start))


def _number(data: bytearray, position: int, size: int = 2) -> int:
    if position + size > len(data):
        raise ValueError("it breaks off")
    return int.from_bytes(data[position : position + size], "big")


def _blank_jpeg(data: bytearray) -> None:
    """T.81 annex B, T.87 annex C; what lies behind the end of the image goes, too."""
    position = 2
    while True:
        marker, position = _jpeg_marker(data, position)
        if marker == EOI:
            _blank(data, position, len(data))
            return
        if marker in ALONE:
            continue
        stop = position + max(2, _number(data, position))
        if marker not in TABLES:
            _blank(data, position + 2 + _kept(data, marker, position + 2), stop)
        position = stop
        if marker == SOS:
            found = BEHIND_SCAN.search(data, position)
            if found is None:
                raise ValueError("it breaks off")
            position = found.start()


def _jpeg_marker(data: bytearray, position: int) -> tuple[int, int]:
    """The marker there, behind any fill bytes, and where its segment begins."""
    if data[position] != 0xFF:
        raise ValueError("a marker is missing")
    while data[position] == 0xFF:
        position += 1
    return data[position], position + 1


def _kept(data: bytearray, marker: int, start: int) -> int:
    found = [size for (which, name), size in KEPT.items() if which == marker and data.startswith(name, start)]
    return found[0] if found else 0


def _blank_codestream(data: bytearray, start: int, stop: int) -> None:
    """T.800 annex A: comments of the main header and of each tile-part, and what lies behind the end."""
    if _number(data, start) != SOC:
        raise ValueError("a marker is missing")
    position = _segments(data, start + 2)
    while position + 1 < stop and (marker := _number(data, position)) == SOT:
        length = _number(data, position + 6, 4)
        if _segments(data, position + 12) > position + length > position:
            raise ValueError("a tile is shorter than its header")
        position = position + length if length else max(data.rfind(b"\xff\xd9", position, stop), position + 12)
    if position + 1 < stop and marker != EOC:
        raise ValueError("a marker is missing")
    _blank(data, min(position + 2, stop), stop)


def _segments(data: bytearray, position: int) -> int:
    """Blank comments, and what is of no standard, in one header; where it ends."""
    while (marker := _number(data, position)) not in (SOT, SOD, EOC):
        if marker < FIRST:
            raise ValueError("a marker is missing")
        stop = position + 2 + max(2, _number(data, position + 2))
        if marker not in PARAMETERS:
            _blank(data, position + (6 if marker == COMMENT else 4), stop)  # behind its length, and a comment's kind
        position = stop
    return position


def _blank_boxes(data: bytearray, start: int, stop: int) -> None:
    """T.800 annex I: XML, UUID and whatever else is not needed to decode."""
    while start < stop:
        length, kind, head = _number(data, start, 4), bytes(data[start + 4 : start + 8]), 8
        if length == 1:
            length, head = _number(data, start + 8, 8), 16
        end = start + length if length else stop
        if not start + head <= end <= stop:
            raise ValueError("a box is longer than what holds it")
        if kind == b"jp2c":
            _blank_codestream(data, start + head, end)
        elif kind in CONTAINERS:
            _blank_boxes(data, start + head, end)
        elif kind not in NEEDED:
            _blank(data, start + head, end)
        start = end


def _items(value: bytes) -> Iterator[tuple[int, int]]:
    """Where the content of each item begins and ends."""
    position = 0
    while value[position : position + 4] == ITEM:
        start = position + 8
        position = start + int.from_bytes(value[position + 4 : start], "little")
        if position > len(value):
            raise ValueError("a fragment breaks off")
        yield start, position
    if value[position:] not in (b"", END + bytes(4)):
        raise ValueError("a fragment is missing")

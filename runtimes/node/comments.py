"""Text that hides in compressed pixels: comments and application data, made blank where they stand.

Nothing moves and no length changes, so that offsets stay right and every value is decoded as before. Kept is what
decoding needs: JFIF (T.871) without its thumbnail, Adobe's colour transform (T.872 6.5.3), HP's of JPEG-LS.
"""

import re
from collections.abc import Iterator

__all__ = ["blanked", "blanked_pixels"]

COM, SOS, EOI = 0xFE, 0xDA, 0xD9  # T.81 table B.1
APPLICATION = range(0xE0, 0xF0)
ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a segment
KEPT = {(0xE0, b"JFIF\0"): 14, (0xEE, b"Adobe"): 12, (0xE8, b"mrfx"): 5}  # marker, identifier -> bytes kept
BEHIND_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # in entropy data FF is followed by less, or restarts (T.87 A.1)
SOC, SOT, SOD, EOC, COMMENT = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF64  # T.800 table A.2
JP2 = b"\0\0\0\x0cjP  "  # T.800 I.5.1
CONTAINERS = (b"jp2h",)
NEEDED = (b"jP  ", b"ftyp", b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef", b"res ")
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # PS3.5 A.4


def blanked_pixels(value: bytes, frames: int) -> bytes:
    """Encapsulated Pixel Data (PS3.5 A.4) of JPEG, JPEG-LS or JPEG 2000, each of its frames `blanked`.

    Raises ValueError where a frame cannot be found or read to its end.
    """
    spans = list(_items(value))[1:]  # the first is the offset table
    if frames != 1 and frames != len(spans):
        raise ValueError(f"{frames} frames in {len(spans)} fragments")
    made = bytearray(value)
    for group in [spans] if frames == 1 else [[span] for span in spans]:
        frame = blanked(b"".join(value[start:stop] for start, stop in group))
        for start, stop in group:
            made[start:stop], frame = frame[: stop - start], frame[stop - start :]
    return bytes(made)


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
        if marker == COM or marker in APPLICATION:
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
    """Blank the comments of one header; where it ends."""
    while (marker := _number(data, position)) not in (SOT, SOD, EOC):
        if marker < 0xFF00:
            raise ValueError("a marker is missing")
        stop = position + 2 + max(2, _number(data, position + 2))
        if marker == COMMENT:
            _blank(data, position + 6, stop)  # behind its length and its kind
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

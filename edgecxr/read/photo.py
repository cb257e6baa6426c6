"""PNG, TIFF and JPEG files as a `Radiograph`: stored values as they are, with the identity transform."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.radiograph import Radiograph
from edgecxr.read.codestreams import read_jpeg
from edgecxr.read.decoders import decompress, guarded
from edgecxr.read.guard import Limits, check_frame, check_ratio
from edgecxr.read.tiff import Directory, is_tiff, read_directory

__all__ = ["photo_reader"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # colour type -> channels that a decoder gives
TIFF_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
COLORS = {1: None, 3: "RGB"}  # JPEG components -> colour space asked of the decoder
ORIENTATION = 274  # TIFF 6.0 and EXIF tag
STRIPS, TILES = (273, 279), (324, 325)  # TIFF tags: where each lies, how many bytes it has
ROWS_PER_STRIP, TILE_WIDTH, TILE_ROWS = 278, 322, 323
TIFF_TAGS = frozenset({256, 257, 258, 259, 262, 277, 284, 339, ORIENTATION})
TIFF_TAGS |= {*STRIPS, *TILES, ROWS_PER_STRIP, TILE_WIDTH, TILE_ROWS}
TIFF_HEADER = 8  # bytes
SMALLEST_TILE = 16  # pixels a side, TIFF 6.0 section 15
# EXIF orientation -> (transpose, flip rows, flip columns), applied in this order
TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

Reader = Callable[[memoryview, str, Limits], Radiograph]


def photo_reader(data: memoryview) -> Reader | None:
    """The reader for this content, or None when it is none of the three."""
    if bytes(data[:8]) == PNG_SIGNATURE:
        return read_png
    if is_tiff(data):
        return read_tiff
    return read_jpeg_file if bytes(data[:3]) == b"\xff\xd8\xff" else None


def read_png(data: memoryview, source: str, limits: Limits) -> Radiograph:
    """A PNG file of 8 or 16 bits (ISO/IEC 15948). Raises Refusal."""
    chunks = list(_png_chunks(data, limits))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise Refusal(RefusalReason.UNREADABLE, "the PNG file does not begin with its header")
    columns, rows, bits, color, _, _, _ = struct.unpack(">IIBBBBB", chunks[0][1])
    if any(name == b"acTL" for name, _ in chunks):
        raise Refusal(RefusalReason.MULTI_FRAME, "the PNG file is animated")
    check_frame(rows, columns, limits)
    if bits not in (8, 16) or color not in PNG_CHANNELS:
        raise Refusal(
            RefusalReason.UNSUPPORTED_PIXELS, f"PNG of {bits} bits, colour type {color}; 8 or 16 bits are read"
        )
    stored = sum(len(body) for name, body in chunks if name == b"IDAT")
    check_ratio(rows * columns * PNG_CHANNELS[color] * bits // 8, stored, limits)
    values = guarded(imagecodecs.png_decode, data)
    _check_decoded(values, (rows, columns), bits)
    exif = [body for name, body in chunks if name == b"eXIf"]
    return _photograph(values, source, _orientation(exif[0]) if exif else 1)


def _png_chunks(data: memoryview, limits: Limits) -> Iterator[tuple[bytes, memoryview]]:
    """Name and body of each chunk up to IEND. Raises Refusal: TRUNCATED, TOO_LARGE, UNREADABLE (wrong checksum)."""
    position = len(PNG_SIGNATURE)
    for _ in range(limits.elements):
        if position + 8 > len(data):
            break
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if struct.pack(">I", zlib.crc32(data[position + 4 : end - 4])) != data[end - 4 : end]:
            raise Refusal(RefusalReason.UNREADABLE, f"the checksum of PNG chunk {name!r} is wrong")
        yield name, data[position + 8 : end - 4]
        if name == b"IEND":
            return
        position = end
    else:
        raise Refusal(RefusalReason.TOO_LARGE, f"more than {limits.elements:,} PNG chunks")
    raise Refusal(RefusalReason.TRUNCATED, f"the PNG file breaks off at byte {len(data):,}, before IEND")


def read_tiff(data: memoryview, source: str, limits: Limits) -> Radiograph:
    """A TIFF file with one image of 8 or 16 bits, without loss compressed. Raises Refusal."""
    directory = read_directory(data, TIFF_TAGS)
    if directory.more:
        raise Refusal(RefusalReason.MULTI_FRAME, "the TIFF file holds more than one image")
    columns, rows = directory.one(256, 0), directory.one(257, 0)
    check_frame(rows, columns, limits)
    bits, channels = _tiff_pixels(directory)
    pieces = _tiff_pieces(directory, rows, columns, limits)
    stored = _tiff_stored(directory, len(data), pieces, bits // 8 * channels)
    check_ratio(rows * columns * channels * bits // 8, stored, limits)
    values = guarded(imagecodecs.tiff_decode, data)
    _check_decoded(values, (rows, columns), bits)
    return _photograph(values, source, directory.one(ORIENTATION, 1), inverted=directory.one(262, 1) == 0)


def _tiff_pixels(directory: Directory) -> tuple[int, int]:
    """(bits, channels) once the directory describes pixels that are read."""
    compression, photometric = directory.one(259, 1), directory.one(262, -1)
    if compression not in TIFF_COMPRESSIONS:
        names = ", ".join(sorted(set(TIFF_COMPRESSIONS.values())))
        raise Refusal(RefusalReason.UNSUPPORTED_SYNTAX, f"TIFF compression {compression}; read are: {names}")
    if photometric not in (0, 1, 2):
        raise Refusal(RefusalReason.NOT_GRAYSCALE, f"TIFF photometric interpretation {photometric}")
    bits, formats = directory.entries.get(258, (1,)), directory.entries.get(339, (1,))
    if set(formats) != {1} or len(set(bits)) != 1 or bits[0] not in (8, 16):
        raise Refusal(
            RefusalReason.UNSUPPORTED_PIXELS,
            f"TIFF of {bits} bits, sample format {formats}; unsigned integers of 8 or 16 bits are read",
        )
    channels = directory.one(277, 1)
    if channels > 4 or (photometric < 2 and channels > 2) or (channels > 1 and directory.one(284, 1) != 1):
        raise Refusal(RefusalReason.NOT_GRAYSCALE, f"TIFF with {channels} channels")
    return bits[0], channels


def _tiff_pieces(directory: Directory, rows: int, columns: int, limits: Limits) -> list[int]:
    """Pixels of each strip or tile that the image is made of. Raises Refusal (CONTRADICTORY, TOO_LARGE)."""
    if TILES[0] in directory.entries:
        tile = directory.one(TILE_ROWS, 0), directory.one(TILE_WIDTH, 0)
        check_frame(*tile, limits)  # which a decoder allocates
        if min(tile) < SMALLEST_TILE:
            raise Refusal(
                RefusalReason.CONTRADICTORY,
                f"TIFF tiles of {tile[0]} x {tile[1]} pixels; the least is {SMALLEST_TILE} a side",
            )
        return [tile[0] * tile[1]] * (-(-rows // tile[0]) * -(-columns // tile[1]))
    step = min(directory.one(ROWS_PER_STRIP, rows), rows)
    if step < 1 or directory.entries.keys() & {TILE_ROWS, TILE_WIDTH}:
        raise Refusal(RefusalReason.CONTRADICTORY, f"TIFF strips of {step} rows, or of tiles")
    return [columns * min(step, rows - row) for row in range(0, rows, step)]


def _tiff_stored(directory: Directory, size: int, pieces: Sequence[int], width: int) -> int:
    """Bytes of all strips or tiles: as many as there must be, each inside the file and, uncompressed, whole.

    `pieces` are the pixels of each, `width` the bytes of a pixel. What is missing a decoder takes from anywhere in
    the file. Raises Refusal: TRUNCATED, UNREADABLE, CONTRADICTORY.
    """
    given = [tags for tags in (STRIPS, TILES) if set(tags) <= directory.entries.keys()]
    if len(given) != 1 or directory.entries.keys() & {*STRIPS, *TILES} != set(given[0]):
        raise Refusal(RefusalReason.UNREADABLE, "the TIFF file does not say, or says twice, where its pixels lie")
    begins, lengths = (directory.entries[tag] for tag in given[0])
    if (len(begins), len(lengths)) != (len(pieces), len(pieces)):
        short = min(len(begins), len(lengths)) < len(pieces)
        raise Refusal(
            RefusalReason.TRUNCATED if short else RefusalReason.CONTRADICTORY,
            f"{len(begins):,} places and {len(lengths):,} sizes of TIFF strips or tiles, the image has {len(pieces):,}",
        )
    for number, (begin, length, pixels) in enumerate(zip(begins, lengths, pieces, strict=True)):
        least = pixels * width if directory.one(259, 1) == 1 else 1
        if length < least or begin + length > size:
            raise Refusal(
                RefusalReason.TRUNCATED,
                f"TIFF strip or tile {number} has {length:,} bytes at byte {begin:,} of {size:,}; {least:,} are needed",
            )
        if begin < TIFF_HEADER:
            raise Refusal(RefusalReason.CONTRADICTORY, f"TIFF strip or tile {number} lies in the header of the file")
    return min(sum(lengths), size)  # several may lie at one place


def read_jpeg_file(data: memoryview, source: str, limits: Limits) -> Radiograph:
    """A JPEG file: baseline, extended, progressive or lossless. Raises Refusal."""
    stream = read_jpeg(data, limits)
    if stream.components not in COLORS:
        raise Refusal(RefusalReason.NOT_GRAYSCALE, f"a JPEG file with {stream.components} components")
    if not 8 <= stream.precision <= 16:
        raise Refusal(RefusalReason.UNSUPPORTED_PIXELS, f"a JPEG file of {stream.precision} bits; 8 to 16 are read")
    values = decompress(data[: stream.end], stream, COLORS[stream.components])
    exif = data[stream.exif[0] : stream.exif[1]] if stream.exif else None
    film = _photograph(values, source, _orientation(exif) if exif else 1, bits=stream.precision)
    return film


def _orientation(exif: memoryview) -> int:
    return read_directory(exif, {ORIENTATION}).one(ORIENTATION, 1) if is_tiff(exif) else 1


def _check_decoded(values: NDArray[Any], shape: tuple[int, int], bits: int) -> None:
    if values.shape[:2] != shape or values.dtype != np.dtype(f"u{bits // 8}"):
        raise Refusal(
            RefusalReason.CONTRADICTORY,
            f"declared: {shape[0]} x {shape[1]} pixels of {bits} bits, decoded: {values.shape} {values.dtype}",
        )


def _photograph(
    values: NDArray[Any], source: str, orientation: int, *, bits: int | None = None, inverted: bool = False
) -> Radiograph:
    notes: list[str] = []
    gray = _turned(_single_channel(values, notes), orientation, notes)
    stored = bits or 8 * gray.dtype.itemsize
    return Radiograph(np.ascontiguousarray(gray), stored, inverted=inverted, source=source, notes=tuple(notes))


def _single_channel(values: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """The gray channel of (H, W) or (H, W, 1 to 4) values. Raises Refusal (NOT_GRAYSCALE) unless colours are equal."""
    if values.ndim == 2:
        return values
    channels = values.shape[2]
    colors = channels - 1 if channels in (2, 4) else channels
    if colors < channels and int(values[..., -1].min()) != np.iinfo(values.dtype).max:
        raise Refusal(RefusalReason.NOT_GRAYSCALE, "the picture is partly transparent")
    for index in range(1, colors):
        if not np.array_equal(values[..., 0], values[..., index]):
            raise Refusal(RefusalReason.NOT_GRAYSCALE, "the picture has colours: its channels are not equal")
    notes.append(f"{channels} channels with equal colours; the first is used")
    return values[..., 0]


def _turned(values: NDArray[Any], orientation: int, notes: list[str]) -> NDArray[Any]:
    """Pixels as EXIF tag 274 says they are to be seen (1: as they are). Raises Refusal (CONTRADICTORY)."""
    if orientation == 1:
        return values
    if orientation not in TURNS:
        raise Refusal(RefusalReason.CONTRADICTORY, f"orientation {orientation}; 1 to 8 are defined")
    notes.append(f"turned upright, as the file's orientation {orientation} says")
    transpose, rows, columns = TURNS[orientation]
    values = values.T if transpose else values
    return values[:: -1 if rows else 1, :: -1 if columns else 1]

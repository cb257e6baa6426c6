"""The coarser images inside a JPEG 2000 codestream, and the codestream that holds only such a one (T.800).

A wavelet codestream holds the image at full, half, quarter ... resolution. Where the packets of the coarse ones come
first in every tile, a header that declares fewer resolutions and a smaller image makes the same bytes a codestream of
the coarse image: the decoder stops behind its last packet. The pixels are those that a decoder gives which is asked to
leave out resolutions (`opj_decompress -r`), bit for bit. They stand where the even samples of the finer image stood,
not in the middle of what they replace: `centred` moves them there.
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE_SEGMENTS", "centred", "reduced", "reductions"]

SIZ, COD, QCD, SOT = 0x51, 0x52, 0x5C, 0x90
# CAP, SIZ, COD, TLM, PLM, CPF, QCD, RGN, CRG, COM. Others (COC, QCC, POC, PPM) may change what COD says.
MAIN_SEGMENTS = frozenset({0x50, SIZ, COD, 0x55, 0x57, 0x59, QCD, 0x5E, 0x63, 0x64})
TILE_SEGMENTS = frozenset({0x58, 0x64})  # PLT, COM
LRCP, RLCP, RPCL = 0, 1, 2  # progressions of table A.16: by layer first; by resolution first
GRID = 2  # offset in SIZ of Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz


def reductions(data: memoryview) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of the image halved once, twice, ..., as far as `reduced` can make a codestream of it.

    `data` begins with a main header that is whole and within its ranges. () where the packets of coarse resolutions are
    not the first ones, a segment might say otherwise than COD, the image does not begin at the grid's origin; and as
    far as several tiles can be halved with it.
    """
    segments = list(_segments(data))
    content = dict(segments)
    once = [marker for marker, _ in segments if marker in (SIZ, COD)] == [SIZ, COD]
    if not once or not MAIN_SEGMENTS.issuperset(content) or len(content[SIZ]) < 36 or len(content[COD]) < 10:
        return ()
    progression, layers, levels = struct.unpack_from(">xBHxB", content[COD])
    if progression not in (RLCP, RPCL) and not (progression == LRCP and layers == 1):
        return ()
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6I", content[SIZ], GRID)
    if left or top:
        return ()
    several = (tile_width if tile_width < width else 0) | (tile_height if tile_height < height else 0)
    on_grid = [times for times in range(1, levels + 1) if several % (1 << times) == 0]
    return tuple((_halved(height, times), _halved(width, times)) for times in on_grid)


def reduced(data: memoryview, times: int) -> memoryview:
    """The codestream of the image halved `times` times, at most `len(reductions(data))`.

    QCD keeps the steps of the sub-bands that are left out; a decoder takes as many as it needs, the coarsest first.
    """
    parts = [bytes(data[:2])]
    position = 2
    for marker, content in _segments(data):
        position += 4 + len(content)
        body = bytes(content)
        if marker == SIZ:
            body = _smaller(body, times)
        elif marker == COD:
            levels = body[5] - times
            body = body[:5] + bytes([levels]) + body[6:10] + body[10 : 11 + levels]
        parts.append(struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body)
    return memoryview(b"".join((*parts, data[position:])))


def centred(values: NDArray[Any], times: int) -> NDArray[Any]:
    """(H, W) samples of an image halved `times` times, moved to the middle of the samples that each of them replaces.

    Sample k of a side stands at 2^times k, its middle at 2^times k + (2^times - 1) / 2; linear between neighbours, each
    side rounded to integers of the same type.
    """
    size, moved = 1 << times, values.astype(np.int32)
    for _ in range(2):
        following = np.concatenate((moved[1:], moved[-1:]))
        moved = (((size + 1) * moved + (size - 1) * following + size) >> (times + 1)).T
    return np.ascontiguousarray(moved.astype(values.dtype))


def _segments(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Marker and content of each segment of the main header."""
    position = 2
    while data[position + 1] != SOT:
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield data[position + 1], data[position + 4 : position + 2 + length]
        position += 2 + length


def _smaller(size: bytes, times: int) -> bytes:
    """SIZ of the image halved `times` times; the grid of several tiles is halved with it."""
    values = [_halved(value, times) for value in struct.unpack_from(">8I", size, GRID)]
    return size[:GRID] + struct.pack(">8I", *values) + size[GRID + 32 :]


def _halved(value: int, times: int) -> int:
    """value / 2^times, rounded up (T.800 B.5)."""
    return -(-value >> times)

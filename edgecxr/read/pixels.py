"""From stored bytes to (H, W) pixel values: the transfer syntaxes of PS3.5, exactly or not at all."""

from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.uid import UID

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.codestreams import CodeStream, read_jpeg
from edgecxr.read.decoders import decompress, guarded
from edgecxr.read.guard import Limits, check_ratio, only_zeros
from edgecxr.read.header import Header
from edgecxr.read.jpeg2000 import read_jpeg2000, unwrap_jp2
from edgecxr.read.layout import Layout, value_range
from edgecxr.read.resolutions import centred, reduced
from edgecxr.spec import PreprocessSpec

__all__ = ["Frame", "decode"]

NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"})
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"
RLE = "1.2.840.10008.1.2.5"
# transfer syntax -> the compressed frames that PS3.5 A.4 allows in it
FRAMES = {
    "1.2.840.10008.1.2.4.50": ("SOF0", "SOF1"),
    "1.2.840.10008.1.2.4.51": ("SOF0", "SOF1"),
    "1.2.840.10008.1.2.4.57": ("SOF3",),
    "1.2.840.10008.1.2.4.70": ("SOF3",),
    "1.2.840.10008.1.2.4.80": ("SOF55",),
    "1.2.840.10008.1.2.4.81": ("SOF55",),
    "1.2.840.10008.1.2.4.90": ("J2K",),
    "1.2.840.10008.1.2.4.91": ("J2K",),
    "1.2.840.10008.1.2.4.201": ("HTJ2K",),
    "1.2.840.10008.1.2.4.202": ("HTJ2K",),
    "1.2.840.10008.1.2.4.203": ("HTJ2K",),
}
LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    values: NDArray[Any]  # (rows, columns) (u)int8 or (u)int16, native byte order, as stored
    stored: int  # bits that hold a value
    notes: tuple[str, ...] = ()  # what was odd about it


def decode(
    header: Header, syntax: str, layout: Layout, limits: Limits, reduced_for: PreprocessSpec | None = None
) -> Frame:
    """The one frame of an image; with `reduced_for`, JPEG 2000 at the coarsest resolution that suffices for it.

    Raises Refusal: UNSUPPORTED_SYNTAX, TRUNCATED, CONTRADICTORY, UNREADABLE, TOO_LARGE, NO_PIXELS.
    """
    notes: list[str] = []
    if syntax in FRAMES:
        data, stream = _compressed(_fragments(header), syntax, layout, limits, notes)
        agreed = (stream.precision, stream.signed) == (layout.stored, layout.signed)  # else values are compared
        values = _samples(data, stream, reduced_for if agreed else None, notes)
        values, stored = _settle_samples(values, stream, layout, syntax in LOSSY, notes)
        return Frame(values, stored, tuple(notes))
    if syntax in NATIVE:
        cells = _native(header, layout, _plain_value(header), notes)
    elif syntax == ENCAPSULATED_NATIVE:
        cells = _native(header, layout, _fragments(header), notes)
    elif syntax == RLE:
        cells = _run_length(_fragments(header), layout, limits)
    else:
        raise Refusal(RefusalReason.UNSUPPORTED_SYNTAX, f"transfer syntax {_name(syntax)} has no decoder here")
    return Frame(_settle_cells(cells, layout), layout.stored, tuple(notes))


def _name(syntax: str) -> str:
    return UID(syntax, validation_mode=IGNORE).name[:64]


def _plain_value(header: Header) -> memoryview:
    element = header.element("PixelData")
    if element is not None and element.undefined:
        raise Refusal(
            RefusalReason.CONTRADICTORY, "the transfer syntax is uncompressed, the pixel data are encapsulated"
        )
    return header.value("PixelData")


def _fragments(header: Header) -> memoryview:
    """The one frame of encapsulated pixel data (PS3.5 A.4), its fragments joined; the offset table is not needed."""
    element = header.element("PixelData")
    if element is None or not element.undefined:
        raise Refusal(
            RefusalReason.CONTRADICTORY, "the transfer syntax is compressed, the pixel data are not encapsulated"
        )
    pieces = [header.data[start:stop] for start, stop in element.parts[1:]]
    if not any(len(piece) for piece in pieces):
        raise Refusal(RefusalReason.NO_PIXELS, "the encapsulated pixel data hold no fragment")
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _native(header: Header, layout: Layout, data: memoryview, notes: list[str]) -> NDArray[Any]:
    if not len(data):
        raise Refusal(RefusalReason.NO_PIXELS, "the pixel data are empty")
    if len(data) < layout.size:
        raise Refusal(
            RefusalReason.TRUNCATED, f"{len(data):,} bytes of pixel data where the header needs {layout.size:,}"
        )
    excess = data[layout.size :]
    if len(excess) > 1:
        if len(excess) >= layout.size or not only_zeros(excess):
            raise Refusal(
                RefusalReason.CONTRADICTORY, f"{len(data):,} bytes of pixel data where the header needs {layout.size:,}"
            )
        notes.append(f"{len(excess)} zero bytes follow the pixels")
    element = header.element("PixelData")
    if layout.allocated == 8 and header.order == ">" and element is not None and element.vr == "OW":
        return _swapped(data, layout)  # PS3.5 A.3 and 8.1.1: 8-bit cells travel in 16-bit words
    cells = np.frombuffer(data, np.dtype(f"{header.order}u{layout.allocated // 8}"), layout.rows * layout.columns)
    cells = np.ascontiguousarray(cells, cells.dtype.newbyteorder("="))
    return np.require(cells, requirements=["A", "W"]).reshape(layout.rows, layout.columns)


def _swapped(data: memoryview, layout: Layout) -> NDArray[Any]:
    words = np.frombuffer(data[: len(data) & ~1], np.dtype(">u2")).astype(np.dtype("<u2")).view(np.uint8)
    if len(words) < layout.size:
        raise Refusal(RefusalReason.TRUNCATED, "the last 16-bit word of the pixel data is cut in half")
    return words[: layout.size].reshape(layout.rows, layout.columns)


def _run_length(data: memoryview, layout: Layout, limits: Limits) -> NDArray[Any]:
    """RLE Lossless (PS3.5 G): one segment per byte of a cell.

    pylibjpeg-rle panics on damaged segments, with an exception that no `except Exception` sees; this decoder raises.
    """
    check_ratio(layout.size, len(data), limits)
    cells = np.zeros((layout.rows, layout.columns), f"<u{layout.allocated // 8}")
    decoded = guarded(imagecodecs.dicomrle_decode, data, dtype=cells.dtype, out=cells.reshape(-1).view(np.uint8))
    if decoded.size != layout.size:
        raise Refusal(RefusalReason.TRUNCATED, f"RLE segments hold {decoded.size:,} of {layout.size:,} bytes")
    return cells.astype(cells.dtype.newbyteorder("="), copy=False)


def _compressed(
    data: memoryview, syntax: str, layout: Layout, limits: Limits, notes: list[str]
) -> tuple[memoryview, CodeStream]:
    """The bytes of a JPEG, JPEG-LS or JPEG 2000 frame, once what it declares agrees with the header."""
    if "J2K" not in FRAMES[syntax][0]:
        stream = read_jpeg(data, limits)
    else:
        if bytes(data[4:8]) == b"jP  ":
            data = unwrap_jp2(data)
            notes.append("the JPEG 2000 stream lay in a JP2 file, which PS3.5 A.4.4 does not allow")
        stream = read_jpeg2000(data, limits)
    if stream.kind not in FRAMES[syntax]:
        raise Refusal(RefusalReason.CONTRADICTORY, f"{_name(syntax)} declared, the stream is {stream.kind}")
    if (stream.rows, stream.columns, stream.components) != (layout.rows, layout.columns, 1):
        raise Refusal(
            RefusalReason.CONTRADICTORY,
            f"header: {layout.rows} x {layout.columns} x 1, "
            f"compressed stream: {stream.rows} x {stream.columns} x {stream.components}",
        )
    if layout.high != layout.stored - 1:
        raise Refusal(
            RefusalReason.CONTRADICTORY, f"{layout.stored} bits below bit {layout.high} of a compressed sample"
        )
    if len(data) > stream.end + 1 and not only_zeros(data[stream.end :]):  # one byte of padding has any value
        raise Refusal(RefusalReason.CONTRADICTORY, f"{len(data) - stream.end:,} bytes follow the compressed frame")
    return data[: stream.end], stream


def _samples(data: memoryview, stream: CodeStream, spec: PreprocessSpec | None, notes: list[str]) -> NDArray[Any]:
    """Decoded samples: for `spec`, of the coarsest image inside the stream that suffices; else, and for None, all."""
    full = stream.rows, stream.columns
    fitting = [shape for shape in stream.reductions if spec is not None and spec.suffices(shape, full)]
    if not fitting:
        return decompress(data, stream)
    (rows, columns), times = fitting[-1], stream.reductions.index(fitting[-1]) + 1
    notes.append(
        f"JPEG 2000 was decoded at 1/{1 << times} of its resolution, as the model declares: "
        f"{rows} x {columns} of {full[0]} x {full[1]} pixels"
    )
    return centred(decompress(reduced(data, times), replace(stream, rows=rows, columns=columns)), times)


def _settle_cells(cells: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Stored values of unsigned cells: moved down to bit 0, bits outside the value cleared, the sign extended."""
    drop = layout.high + 1 - layout.stored
    if drop:
        cells >>= drop
    if layout.signed:
        return _extend_sign(cells, layout)
    mask = (1 << layout.stored) - 1
    if layout.stored < layout.allocated and int(cells.max()) > mask:
        cells &= mask
    return cells


def _extend_sign(cells: NDArray[Any], layout: Layout) -> NDArray[Any]:
    values: NDArray[Any] = cells.view(np.int8 if layout.allocated == 8 else np.int16)
    spare = layout.allocated - layout.stored
    if spare:
        values <<= spare
        values >>= spare
    return values


def _settle_samples(
    values: NDArray[Any], stream: CodeStream, layout: Layout, lossy: bool, notes: list[str]
) -> tuple[NDArray[Any], int]:
    """Stored values of decoded samples and their bits; refused when header and stream read them as different numbers.

    JPEG 2000 samples have a sign of their own. The others travel as two's complement of the stored bits.
    """
    own_sign = stream.kind.endswith("J2K")
    least, most = int(values.min()), int(values.max())
    claims = (
        f"header: {'signed' if layout.signed else 'unsigned'} {layout.stored} bits, "
        f"compressed stream: {'signed' if stream.signed else 'unsigned'} {stream.precision} bits"
    )
    stored = layout.stored
    if lossy and stream.signed == layout.signed:  # rounding may overshoot: the stream says by how many bits
        stored = min(max(stored, stream.precision), layout.allocated)
    low, high = value_range(stored, layout.signed and own_sign)
    if layout.signed and not own_sign and stream.precision < stored:
        high = (1 << stream.precision - 1) - 1  # above it, a bit is the sign to the stream and a value to the header
    if least < low or most > high:
        raise Refusal(RefusalReason.CONTRADICTORY, f"{claims}, values {least} to {most}")
    if (stream.precision, stream.signed) != (layout.stored, layout.signed and own_sign):
        notes.append(claims)
    kind = "i" if layout.signed and own_sign else "u"
    cells = np.ascontiguousarray(values.astype(f"{kind}{layout.allocated // 8}", copy=False))
    return (_extend_sign(cells, layout) if layout.signed and not own_sign else cells), stored

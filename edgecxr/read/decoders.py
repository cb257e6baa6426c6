"""Samples of JPEG, JPEG-LS and JPEG 2000 streams, by libraries that release the interpreter lock as they decode."""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.codestreams import CodeStream
from edgecxr.read.lossless import ends_with

__all__ = ["decompress", "guarded"]

LOSSY = ("SOF0", "SOF1", "SOF2")
PROBE = np.random.default_rng(0).integers(0, 255, 256, np.uint8).tobytes()  # entropy data without FF, see `_filled_in`
# What imagecodecs raises on bytes that it cannot decode.
DECODE_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, OverflowError)


def decompress(data: memoryview, stream: CodeStream, colorspace: str | None = None) -> NDArray[Any]:
    """Samples of a checked stream, (rows, columns[, components]), as its own header describes them.

    Raises Refusal: UNREADABLE, UNSUPPORTED_PIXELS, TRUNCATED (the decoder filled in what was missing).
    """
    decoder: Callable[..., NDArray[Any]]
    if stream.kind == "SOF55":
        decoder = imagecodecs.jpegls_decode
    elif stream.kind.endswith("J2K"):
        decoder = imagecodecs.jpeg2k_decode  # OpenJPEG also for HTJ2K: OpenJPH fills in for missing bytes
    else:
        return _decode_jpeg(data, stream, colorspace)
    return _shaped(guarded(decoder, data), stream)


def _decode_jpeg(data: memoryview, stream: CodeStream, colorspace: str | None) -> NDArray[Any]:
    if stream.precision == 8 and stream.kind in LOSSY and (stream.components == 1 or colorspace == "RGB"):
        return _shaped(_decode_strictly(data, colorspace or "GRAY"), stream)
    values = _shaped(guarded(imagecodecs.jpeg8_decode, data, outcolorspace=colorspace), stream)
    if _suspect(values, stream) and _filled_in(data, values, colorspace):
        raise Refusal(RefusalReason.TRUNCATED, "the JPEG scan ends before the last row")
    if stream.lossless is not None and not ends_with(data, stream.lossless, values):
        raise Refusal(RefusalReason.UNREADABLE, "the JPEG scan does not end with its last pixels: it is damaged")
    return values


def _decode_strictly(data: memoryview, colorspace: str) -> NDArray[Any]:
    """Eight bits by simplejpeg, the same library, which raises what that only warns of: data lost or left over."""
    try:
        values: NDArray[Any] = simplejpeg.decode_jpeg(data, colorspace, strict=True)
    except ValueError as error:
        reason = RefusalReason.TRUNCATED if "premature end" in str(error).lower() else RefusalReason.UNREADABLE
        raise Refusal(reason, f"the JPEG scan is damaged or ends before the last row: {error}") from error
    return values[..., 0] if colorspace == "GRAY" else values


def guarded(decoder: Callable[..., Any], data: memoryview, **options: Any) -> NDArray[Any]:
    """Run a decoder. Raises Refusal (UNREADABLE) for what it raises on damaged bytes."""
    try:
        values: NDArray[Any] = decoder(data, **options)
        return values
    except DECODE_ERRORS as error:
        raise Refusal(RefusalReason.UNREADABLE, f"the compressed pixels cannot be decoded: {error}") from error


def _shaped(values: NDArray[Any], stream: CodeStream) -> NDArray[Any]:
    if values.shape[:2] != (stream.rows, stream.columns) or values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        raise Refusal(
            RefusalReason.UNSUPPORTED_PIXELS, f"the decoder gave {values.dtype} {values.shape} for {stream.kind}"
        )
    return values


def _suspect(values: NDArray[Any], stream: CodeStream) -> bool:
    """Whether the end of a frame may be what libjpeg fills in when entropy data are missing: a flat corner."""
    if stream.kind == "SOF2" or stream.predictor > 1:
        return True
    corner = values[-1:, -8:]
    return bool((corner == corner[0, 0]).all())


def _filled_in(data: memoryview, values: NDArray[Any], colorspace: str | None) -> bool:
    """Whether other bytes before EOI change the pixels: then the scan had ended early. libjpeg only warns, unheard."""
    probed = b"".join((data[:-2], PROBE, b"\xff\xd9"))
    return not np.array_equal(guarded(imagecodecs.jpeg8_decode, memoryview(probed), outcolorspace=colorspace), values)

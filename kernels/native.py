"""The C++ kernel behind the frame function of `edgecxr.kernels`. Importing it fails where it was not compiled."""

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.kernels import _native
from edgecxr.kernels.transfer import Ramp, fold
from edgecxr.radiograph import Radiograph
from edgecxr.spec import PreprocessSpec

__all__ = ["levels", "preprocess_frame"]


def levels() -> list[str]:
    """Instruction-set levels on this machine, best first; the first one runs."""
    return _native.levels()


def preprocess_frame(radiograph: Radiograph, spec: PreprocessSpec, threads: int, level: str = "") -> NDArray[Any]:
    """The chain for one film that `check_film` has passed: (1, S, S) of `spec.dtype`.

    The result lies within 1e-5 (of the range's width) of the reference; float16 is rounded from float32.
    """
    pixels = radiograph.pixels
    padding = radiograph.padding
    if padding is not None and not _native.any_outside(pixels, *_within(padding, pixels.dtype)):
        raise Refusal(RefusalReason.NO_CONTRAST, f"{radiograph.source or 'film'}: every pixel is padding")
    transfer = fold(radiograph, spec, functools.partial(_counts, threads=threads))
    plane = np.empty((spec.size, spec.size), dtype=np.float32)
    box = spec.placement(*radiograph.shape)
    low, width = spec.range_low, spec.range_high - spec.range_low
    if isinstance(transfer, Ramp):
        line = _line(transfer, padding, pixels.dtype)
        _native.ramp(pixels, plane, box, low, width, **line, threads=threads, level=level)
    else:
        _native.table(pixels, plane, box, low, width, values=transfer.values, threads=threads, level=level)
    return plane.astype(np.dtype(spec.dtype), copy=False)[np.newaxis]


def _counts(pixels: NDArray[Any], together: tuple[int, int], threads: int) -> NDArray[np.int64]:
    counts = np.empty(2 ** (8 * pixels.dtype.itemsize), dtype=np.int64)
    _native.count_values(pixels, counts, *together, threads=threads)
    return counts


def _line(ramp: Ramp, padding: tuple[int, int] | None, pixel_type: np.dtype[Any]) -> dict[str, Any]:
    """A ramp split into an integer and a fraction, so that no digits are lost in float32."""
    origin = math.ceil(ramp.zero) if ramp.falling else math.floor(ramp.zero)
    first, last = (0, -1) if padding is None else _within(padding, pixel_type)
    return {
        "falling": ramp.falling,
        "origin": origin,
        "fraction": abs(ramp.zero - origin),
        "span": ramp.span,
        "padding_first": first,
        "padding_count": max(0, last - first + 1),
    }


def _within(padding: tuple[int, int], pixel_type: np.dtype[Any]) -> tuple[int, int]:
    """The part of the padding range that pixels of this type can hold; (0, -1) where none."""
    limits = np.iinfo(pixel_type)
    first, last = max(padding[0], int(limits.min)), min(padding[1], int(limits.max))
    return (first, last) if first <= last else (0, -1)

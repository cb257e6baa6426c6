"""Steps 1 to 3 of the chain (`reference.py`) folded in float64 into one function of the stored value.

Where they are a clamped straight line, a `Ramp`; else (LUTs, SIGMOID, windows narrower than RAMP_STEPS) a `Table` with
one entry per bit pattern. Shares no code with the reference, which it is held to by the tests.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.radiograph import Lut, Radiograph
from edgecxr.spec import PreprocessSpec

__all__ = ["Ramp", "Table", "Transfer", "fold"]

RAMP_STEPS = 16.0  # a window over fewer stored values goes through a table, which keeps float32 exact for any slope
FARTHEST = 2.0**24  # stored value beyond which float32 has no integers

Values = NDArray[np.float64]
Span = tuple[int, int]  # stored values, inclusive; EMPTY holds none
EMPTY = (1, 0)
# (pixels, together): counts per stored value, the least of the type first; those of `together` are all at its first.
Counter = Callable[[NDArray[Any], Span], NDArray[np.int64]]

BLOCK = 8192  # entries of a table made at a time, so that what comes between stays in the processor's cache
SAMPLED = 64  # of so many rows one is looked at, to learn about where the percentiles lie


@dataclass(frozen=True)
class Ramp:
    """v = clamp(x - zero, 0, span) / span, or with `falling` clamp(zero - x, 0, span) / span. Padding is not in it."""

    zero: float  # the stored value where v leaves 0
    span: float  # stored values from v = 0 to v = 1
    falling: bool


@dataclass(frozen=True)
class Table:
    """v by bit pattern of the stored value, padding black."""

    values: NDArray[np.float32]  # (256,) or (65536,), in [0, 1]


Transfer: TypeAlias = Ramp | Table


def fold(radiograph: Radiograph, spec: PreprocessSpec, count: Counter) -> Transfer:
    """Steps 1 to 3; `count` is called only where the percentile pair needs it. Raises Refusal(NO_CONTRAST)."""
    bounds = _linear_bounds(radiograph, spec, count)
    if bounds is not None and radiograph.modality_lut is None:
        ramp = _ramp(radiograph, *bounds)
        if ramp is not None:
            return ramp
    return Table(_table(radiograph, bounds))


def _linear_bounds(radiograph: Radiograph, spec: PreprocessSpec, count: Counter) -> tuple[float, float] | None:
    """Modality values (low, high) at which v leaves 0 and reaches 1; None where v is no straight line between."""
    window = radiograph.window
    if radiograph.voi_lut is not None:
        return None
    if window is None:
        return _percentiles(radiograph, spec, count)
    if window.function == "SIGMOID":
        return None
    if window.function == "LINEAR":
        return window.center - 0.5 - (window.width - 1) / 2, window.center - 0.5 + (window.width - 1) / 2
    return window.center - window.width / 2, window.center + window.width / 2


def _ramp(radiograph: Radiograph, low: float, high: float) -> Ramp | None:
    slope = radiograph.slope
    if slope == 0.0 or not RAMP_STEPS <= (high - low) / abs(slope) < FARTHEST:
        return None
    dark = high if radiograph.inverted else low
    zero = (dark - radiograph.intercept) / slope
    if not abs(zero) < FARTHEST:
        return None
    return Ramp(zero=zero, span=(high - low) / abs(slope), falling=(slope < 0) != radiograph.inverted)


def _table(radiograph: Radiograph, bounds: tuple[float, float] | None) -> NDArray[np.float32]:
    pixel_type = radiograph.pixels.dtype
    patterns = np.arange(2 ** (8 * pixel_type.itemsize), dtype=f"u{pixel_type.itemsize}")
    values = np.empty(patterns.size, dtype=np.float32)
    for start in range(0, patterns.size, BLOCK):
        block = slice(start, start + BLOCK)
        values[block] = _tabulated(radiograph, bounds, patterns[block].view(pixel_type))
    return values


def _tabulated(radiograph: Radiograph, bounds: tuple[float, float] | None, stored: NDArray[Any]) -> Values:
    modality = _modality(radiograph, stored.astype(np.float64))
    values = _sigmoid_or_lut(radiograph, modality) if bounds is None else _clamped(modality, *bounds)
    if radiograph.inverted:
        values = 1.0 - values
    if radiograph.padding is not None:
        values[(stored >= radiograph.padding[0]) & (stored <= radiograph.padding[1])] = 0.0
    return values


def _modality(radiograph: Radiograph, stored: Values) -> Values:
    if radiograph.modality_lut is not None:
        return _entries(radiograph.modality_lut, stored)
    return radiograph.slope * stored + radiograph.intercept


def _clamped(modality: Values, low: float, high: float) -> Values:
    if high == low:  # LINEAR of width 1: a step, 0 at the bound itself
        return (modality > high).astype(np.float64)
    return np.clip((modality - low) / (high - low), 0.0, 1.0)


def _sigmoid_or_lut(radiograph: Radiograph, modality: Values) -> Values:
    if radiograph.voi_lut is not None:
        return _entries(radiograph.voi_lut, np.floor(modality + 0.5)) / float((1 << radiograph.voi_lut.bits) - 1)
    window = radiograph.window
    if window is None:
        raise Refusal(RefusalReason.UNSUPPORTED_PIXELS, f"{radiograph.source or 'film'}: neither window nor VOI LUT")
    exponent = np.minimum((window.center - modality) * (4.0 / window.width), 700.0)
    result: Values = 1.0 / (1.0 + np.exp(exponent))
    return result


def _entries(lut: Lut, values: Values) -> Values:
    last = float(lut.first + lut.values.size - 1)
    index = np.minimum(np.maximum(values, float(lut.first)), last) - lut.first
    return lut.values[index.astype(np.intp)].astype(np.float64)


def _percentiles(radiograph: Radiograph, spec: PreprocessSpec, count: Counter) -> tuple[float, float]:
    """The percentile pair of modality values, by nearest rank over counts per stored value."""
    together = _middle(radiograph, spec, count)
    stored = _ranked(radiograph, spec, count(radiograph.pixels, together))
    if np.any((stored >= together[0]) & (stored <= together[1])):  # the sample misled: count every value by itself
        stored = _ranked(radiograph, spec, count(radiograph.pixels, EMPTY))
    low, high, least, greatest = _modality(radiograph, stored.astype(np.float64))
    if low == high:
        low, high = least, greatest
    if low == high:
        raise Refusal(
            RefusalReason.NO_CONTRAST,
            f"{radiograph.source or 'film'}: every pixel has the modality value {low:g}; nothing was exposed",
        )
    return float(low), float(high)


def _ranked(radiograph: Radiograph, spec: PreprocessSpec, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stored values at the low and high percentile of modality values, and at their least and greatest."""
    stored = np.flatnonzero(counts) + _least(radiograph)
    if radiograph.padding is not None:
        stored = stored[(stored < radiograph.padding[0]) | (stored > radiograph.padding[1])]
    if stored.size == 0:
        raise Refusal(RefusalReason.NO_CONTRAST, f"{radiograph.source or 'film'}: every pixel is padding")
    stored = stored[np.argsort(_modality(radiograph, stored.astype(np.float64)), kind="stable")]
    cumulative = np.cumsum(counts[stored - _least(radiograph)])
    ranks = [
        max(1, math.ceil(percent * int(cumulative[-1]) / 100))
        for percent in (spec.low_percentile, spec.high_percentile)
    ]
    return stored[[*np.searchsorted(cumulative, ranks), 0, -1]]


def _middle(radiograph: Radiograph, spec: PreprocessSpec, count: Counter) -> Span:
    """Stored values that lie between the percentiles by all that a sample of the rows tells; EMPTY where unsure.

    As long as no percentile turns out to lie in it, how its pixels are spread is of no account: counting them together
    leaves the result exact, because without a Modality LUT modality values are in the order of stored values.
    """
    if radiograph.modality_lut is not None:
        return EMPTY
    counts, least = count(np.ascontiguousarray(radiograph.pixels[::SAMPLED]), EMPTY), _least(radiograph)
    padding = EMPTY if radiograph.padding is None else radiograph.padding
    counts[max(0, padding[0] - least) : max(0, padding[1] + 1 - least)] = 0
    cumulative = np.cumsum(counts)
    share = 0.001 + 1.5 * max(spec.low_percentile, 100 - spec.high_percentile) / 100
    below, above = np.searchsorted(cumulative, np.array([share, 1 - share]) * int(cumulative[-1])) + least
    padded = padding[0] < above and padding[1] > below and padding != EMPTY
    return EMPTY if padded or above - below < 2 else (int(below) + 1, int(above) - 1)


def _least(radiograph: Radiograph) -> int:
    return int(np.iinfo(radiograph.pixels.dtype).min)

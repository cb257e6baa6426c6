"""The preprocessing chain in NumPy float64, written from the standard. This file is the contract; kernels follow it.

Input: a `Radiograph` of H×W stored values x (8 or 16 bit, signed or not). Output: (1, S, S), `spec.dtype`.

1. Modality (PS3.3 C.11.1). With a Modality LUT of K entries: m = values[clip(x - first, 0, K - 1)].
   Else m = x * slope + intercept. With slope 2, intercept -1024 the stored value 512 is m = 0.
2. VOI (PS3.3 C.11.2), to v in [0, 1] (the standard's y with ymin = 0, ymax = 1). The first of these that applies:
   a. VOI LUT: v = values[clip(floor(m + 0.5) - first, 0, K - 1)] / (2^bits - 1). 10 bits: entry 1023 is v = 1.
   b. window LINEAR, centre c, width w >= 1:  v = 0 where m <= c - 0.5 - (w-1)/2;  v = 1 where m > c - 0.5 + (w-1)/2;
      else (m - (c - 0.5)) / (w - 1) + 0.5.  c = 2048, w = 4096: 0 up to m = 0, 1 above m = 4095, between them
      (m - 2047.5) / 4095 + 0.5. Width 1 is a step: c = 2048: 0 up to 2047.5, 1 above.
   c. LINEAR_EXACT, w > 0: v = 0 where m <= c - w/2; v = 1 where m > c + w/2; else (m - c)/w + 0.5.
   d. SIGMOID, w > 0: v = 1 / (1 + exp(-4 (m - c) / w)).  m = c gives 0.5, m = c + w/2 gives 0.880797.
   e. no table and no window: the percentile pair. Of the n modality values of non-padding pixels in ascending order,
      percentile p is the one of rank max(1, ceil(p * n / 100)) (nearest rank, first is 1; float64, p * n first).
      low and high are the values at `spec.low_percentile` and `spec.high_percentile`; where they are equal, the least
      and the greatest value. v = clip((m - low) / (high - low), 0, 1).
      n = 200, p = 99.5: p * n / 100 = 199, so the second greatest.
3. Polarity: where `inverted`, v becomes 1 - v. Then pixels whose stored value is in `padding` (inclusive) become v = 0.
4. Resampling to the box of `spec.placement(H, W)`; rows and columns separately, each from n to k samples:
   - k < n, area mean: sample j is the mean of v over [j n/k, (j+1) n/k), border pixels by the fraction covered.
     3 to 2 samples: weights (2/3, 1/3, 0) and (0, 1/3, 2/3).
   - k >= n, bilinear: sample j lies at (j + 0.5) n/k - 0.5 (half-pixel centres), clamped to [0, n - 1], and is
     interpolated between its two neighbours. 2 to 4 samples: at 0, 0.25, 0.75, 1. k = n copies.
   Outside the box v = 0.
5. Range: range_low + v * (range_high - range_low), rounded once to float32 or float16.

`bits_stored` plays no part: the pixel's own value does. Raises Refusal(NO_CONTRAST) where every pixel is padding, and
in 2e where every non-padding pixel has the same modality value.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

__all__ = ["film_values", "modality_values", "preprocess_frame", "resampling_matrix", "windowed"]

Float64s = NDArray[np.float64]


def preprocess_frame(radiograph: Radiograph, spec: PreprocessSpec) -> NDArray[Any]:
    """The chain for one film: (1, S, S) of `spec.dtype`."""
    height, width = radiograph.shape
    box = spec.placement(height, width)
    rows = resampling_matrix(height, box.height)
    columns = resampling_matrix(width, box.width)
    plane = np.zeros((spec.size, spec.size))
    plane[box.top : box.top + box.height, box.left : box.left + box.width] = (
        rows @ film_values(radiograph, spec) @ columns.T
    )
    plane = spec.range_low + plane * (spec.range_high - spec.range_low)
    return plane.astype(np.dtype(spec.dtype))[np.newaxis]


def film_values(radiograph: Radiograph, spec: PreprocessSpec) -> Float64s:
    """Steps 1 to 3: (H, W) in [0, 1], bone bright, padding 0."""
    padding = padding_mask(radiograph)
    if padding.all():
        raise Refusal(RefusalReason.NO_CONTRAST, f"{radiograph.source or 'film'}: every pixel is padding")
    modality = modality_values(radiograph)
    if radiograph.voi_lut is not None:
        values = looked_up(radiograph.voi_lut, np.floor(modality + 0.5)) / (2**radiograph.voi_lut.bits - 1)
    elif radiograph.window is not None:
        values = windowed(modality, radiograph.window)
    else:
        values = percentile_scaled(modality, modality[~padding], radiograph, spec)
    if radiograph.inverted:
        values = 1.0 - values
    return np.where(padding, 0.0, values)


def padding_mask(radiograph: Radiograph) -> NDArray[np.bool_]:
    """(H, W), True where the stored value is no part of the film."""
    if radiograph.padding is None:
        return np.zeros(radiograph.shape, dtype=bool)
    low, high = radiograph.padding
    stored = radiograph.pixels.astype(np.int64)
    mask: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return mask


def modality_values(radiograph: Radiograph) -> Float64s:
    """Step 1."""
    stored = radiograph.pixels.astype(np.float64)
    if radiograph.modality_lut is not None:
        return looked_up(radiograph.modality_lut, stored)
    values: Float64s = stored * radiograph.slope + radiograph.intercept
    return values


def looked_up(lut: Lut, values: Float64s) -> Float64s:
    """Entries of a LUT for integral `values`; those outside take the first or the last entry."""
    index = np.clip(values - lut.first, 0, len(lut.values) - 1).astype(np.int64)
    entries: Float64s = lut.values[index].astype(np.float64)
    return entries


def windowed(values: Float64s, window: Window) -> Float64s:
    """Step 2b to 2d: modality values to [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):  # exp may reach infinity: 1 / (1 + inf) is the 0 that is meant
            result: Float64s = 1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))
        return result
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    result = np.zeros_like(values)
    inside = (values > center - width / 2) & (values <= center + width / 2)
    result[inside] = (values[inside] - center) / width + 0.5
    result[values > center + width / 2] = 1.0
    return result


def percentile_scaled(values: Float64s, film: Float64s, radiograph: Radiograph, spec: PreprocessSpec) -> Float64s:
    """Step 2e; `film` holds the modality values of non-padding pixels."""
    ordered = np.sort(film, axis=None)
    low = ordered[max(1, math.ceil(spec.low_percentile * ordered.size / 100)) - 1]
    high = ordered[max(1, math.ceil(spec.high_percentile * ordered.size / 100)) - 1]
    if low == high:
        low, high = ordered[0], ordered[-1]
    if low == high:
        raise Refusal(
            RefusalReason.NO_CONTRAST,
            f"{radiograph.source or 'film'}: every pixel has the modality value {low:g}; nothing was exposed",
        )
    scaled: Float64s = np.clip((values - low) / (high - low), 0.0, 1.0)
    return scaled


def resampling_matrix(source: int, target: int) -> Float64s:
    """Step 4 along one axis: (target, source) weights, each row adding up to 1."""
    matrix = np.zeros((target, source))
    for j in range(target):
        if target < source:
            start, stop = j * source / target, (j + 1) * source / target
            for i in range(math.floor(start), min(source, math.ceil(stop))):
                matrix[j, i] = max(0.0, min(i + 1, stop) - max(i, start)) * target / source
        else:
            position = min(max((j + 0.5) * source / target - 0.5, 0.0), source - 1.0)
            left = math.floor(position)
            matrix[j, left] += 1.0 - (position - left)
            matrix[j, min(left + 1, source - 1)] += position - left
    return matrix

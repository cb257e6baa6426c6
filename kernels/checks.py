"""What a film must be before any kernel touches it."""

import math

import numpy as np

from edgecxr.errors import KernelError, Refusal, RefusalReason
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

__all__ = ["PIXEL_TYPES", "check_film", "check_spec"]

PIXEL_TYPES = ("uint8", "int8", "uint16", "int16")
LARGEST_FLOAT16 = 65504.0
LARGEST_SIDE = 65536
LARGEST_NUMBER = 1e30  # of slope, intercept, centre and width: no product of two overflows


def check_film(radiograph: Radiograph) -> None:
    """Raise KernelError for an array that breaks its type's contract, Refusal for a transform that nothing defines."""
    _check_pixels(radiograph)
    if not (abs(radiograph.slope) < LARGEST_NUMBER and abs(radiograph.intercept) < LARGEST_NUMBER):
        _refuse(radiograph, f"rescale slope {radiograph.slope}, intercept {radiograph.intercept} are no numbers to use")
    if radiograph.modality_lut is not None:
        _check_lut(radiograph, "modality LUT", radiograph.modality_lut)
    if radiograph.voi_lut is not None:
        _check_lut(radiograph, "VOI LUT", radiograph.voi_lut)
    if radiograph.window is not None:
        _check_window(radiograph, radiograph.window)
    if radiograph.padding is not None and radiograph.padding[0] > radiograph.padding[1]:
        _refuse(radiograph, f"padding range {radiograph.padding} is empty; the lower value comes first")


def check_spec(spec: PreprocessSpec) -> None:
    """Raise KernelError where the model's range does not fit its type, or does not rise."""
    largest = max(abs(spec.range_low), abs(spec.range_high))
    if not math.isfinite(largest) or (spec.dtype == "float16" and largest > LARGEST_FLOAT16):
        raise KernelError(f"range {spec.range_low} .. {spec.range_high} does not fit {spec.dtype}")
    if not spec.range_low < spec.range_high:
        raise KernelError(f"range {spec.range_low} .. {spec.range_high} does not rise; black must be below white")


def _check_pixels(radiograph: Radiograph) -> None:
    pixels, name = radiograph.pixels, radiograph.source or "film"
    if pixels.ndim != 2 or 0 in pixels.shape or max(pixels.shape) > LARGEST_SIDE:
        raise KernelError(f"{name}: pixels of shape {pixels.shape}; wanted (H, W), each 1 to {LARGEST_SIDE}")
    if pixels.dtype.name not in PIXEL_TYPES or not pixels.dtype.isnative:
        raise KernelError(f"{name}: pixels of type {pixels.dtype.str}; wanted native {', '.join(PIXEL_TYPES)}")
    if not pixels.flags.c_contiguous:
        raise KernelError(f"{name}: pixels with strides {pixels.strides}; pass them through np.ascontiguousarray")


def _check_lut(radiograph: Radiograph, what: str, lut: Lut) -> None:
    if lut.values.ndim != 1 or lut.values.size == 0 or lut.values.dtype != np.uint16:
        _refuse(radiograph, f"{what} is {lut.values.dtype} of shape {lut.values.shape}; wanted (K,) uint16, K >= 1")
    if not 1 <= lut.bits <= 16:
        _refuse(radiograph, f"{what} has entries of {lut.bits} bits; wanted 1 to 16")
    if int(lut.values.max()) >= 2**lut.bits:
        _refuse(radiograph, f"{what} has the entry {int(lut.values.max())}, more than its {lut.bits} bits hold")


def _check_window(radiograph: Radiograph, window: Window) -> None:
    if window.function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        _refuse(radiograph, f"VOI function {window.function!r}; wanted LINEAR, LINEAR_EXACT or SIGMOID")
    if not (abs(window.center) < LARGEST_NUMBER and abs(window.width) < LARGEST_NUMBER):
        _refuse(radiograph, f"window centre {window.center}, width {window.width} are no numbers to use")
    if window.width <= 0 or (window.function == "LINEAR" and window.width < 1):
        least = ">= 1" if window.function == "LINEAR" else "> 0"
        _refuse(radiograph, f"window width {window.width}; {window.function} wants {least} (PS3.3 C.11.2.1.2)")


def _refuse(radiograph: Radiograph, detail: str) -> None:
    raise Refusal(RefusalReason.UNSUPPORTED_PIXELS, f"{radiograph.source or 'film'}: {detail}")

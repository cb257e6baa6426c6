"""A radiograph as stored: pixel values plus what the header says they mean. Nothing is transformed here."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lut", "Radiograph", "VoiFunction", "Window"]

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Lut:
    """A lookup table of a DICOM LUT Sequence (PS3.3 C.11.1.1, C.11.2.1.1).

    Input values below `first` take the first entry, values past the end the last one.
    """

    first: int  # first input value mapped
    values: NDArray[np.uint16]  # (K,) entries, K >= 1
    bits: int  # bits of an entry: output range is 0 .. 2^bits - 1


@dataclass(frozen=True)
class Window:
    """Window centre and width in modality values (PS3.3 C.11.2.1.2). Width >= 1 for LINEAR, > 0 otherwise."""

    center: float
    width: float
    function: VoiFunction = "LINEAR"


@dataclass(frozen=True)
class Radiograph:
    """One frame, one channel, as stored, with the transforms its header asks for (not yet applied).

    `pixels` is (H, W), C-contiguous, uint8, int8, uint16 or int16; signed values are already sign-extended, and bits
    above `bits_stored` are cleared. `slope` and `intercept` are ignored when `modality_lut` is given, and `window` when
    `voi_lut` is given (the table wins, as in DESIGN 1).
    """

    pixels: NDArray[Any]
    bits_stored: int
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    window: Window | None = None
    voi_lut: Lut | None = None
    inverted: bool = False  # MONOCHROME1, or Presentation LUT Shape INVERSE: turned once, after the VOI step
    padding: tuple[int, int] | None = None  # inclusive range of stored values that are not part of the film
    source: str = ""  # path or name, for messages
    identity: dict[str, str] = field(default_factory=dict)  # SOPInstanceUID, StudyInstanceUID, … where there are any
    notes: tuple[str, ...] = ()  # contradictions in the header, how it was read; recorded with the result

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.pixels.shape
        return int(height), int(width)

"""How the pixels of a DICOM image are laid out, as its header declares it (PS3.3 C.7.6.3)."""

from dataclasses import dataclass

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.guard import Limits, check_frame, shown
from edgecxr.read.header import Header

__all__ = ["Layout", "read_layout", "value_range"]

OBLONG = 1.05  # of a pixel's sides: less changes a chest less than patients differ
SHAPES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")  # down, then across


@dataclass(frozen=True)
class Layout:
    """How one frame is stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    allocated: int  # bits of a cell: 8 or 16
    stored: int  # bits that hold the value
    high: int  # position of the most significant of them
    signed: bool

    @property
    def size(self) -> int:
        """Bytes of the uncompressed frame."""
        return self.rows * self.columns * self.allocated // 8


def read_layout(header: Header, limits: Limits) -> Layout:
    """The layout of a single grayscale frame of 8 to 16 bits.

    Raises Refusal: MULTI_FRAME, NOT_GRAYSCALE, UNSUPPORTED_PIXELS, CONTRADICTORY, TOO_LARGE, UNREADABLE.
    """
    frames = header.integer("NumberOfFrames")
    if frames is not None and frames != 1:
        reason = RefusalReason.MULTI_FRAME if frames > 1 else RefusalReason.CONTRADICTORY
        raise Refusal(reason, f"the header declares {frames:,} frames; one is read")
    photometric = header.text("PhotometricInterpretation")
    samples = header.required("SamplesPerPixel")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refusal(
            RefusalReason.NOT_GRAYSCALE,
            f"{samples} sample(s) per pixel, photometric interpretation {shown(photometric)}",
        )
    allocated, stored = header.required("BitsAllocated"), header.required("BitsStored")
    high, sign = header.required("HighBit"), header.required("PixelRepresentation")
    if allocated not in (8, 16) or stored < 8 or sign > 1:
        raise Refusal(
            RefusalReason.UNSUPPORTED_PIXELS,
            f"{allocated} bits allocated, {stored} stored, representation {sign}; 8 to 16 in cells of 8 or 16 are read",
        )
    if not stored - 1 <= high < allocated:
        raise Refusal(RefusalReason.CONTRADICTORY, f"{stored} bits below bit {high} do not fit into {allocated}")
    rows, columns = header.required("Rows"), header.required("Columns")
    check_frame(rows, columns, limits)
    _check_square(header)
    return Layout(rows, columns, allocated, stored, high, bool(sign))


def _check_square(header: Header) -> None:
    """Raise Refusal (UNSUPPORTED_PIXELS) where pixels are declared that are not square (PS3.3 10.7, C.7.6.3.1.7)."""
    for keyword in SHAPES:
        try:
            sides = header.decimals(keyword)
        except Refusal:
            continue  # no numbers: nothing is declared
        if len(sides) == 2 and min(sides) > 0 and max(sides) > OBLONG * min(sides):
            raise Refusal(
                RefusalReason.UNSUPPORTED_PIXELS,
                f"{keyword} {sides[0]:g} by {sides[1]:g}: the pixels are not square, the chest would be out of shape",
            )


def value_range(bits: int, signed: bool) -> tuple[int, int]:
    """The least and the greatest value that `bits` hold."""
    return (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

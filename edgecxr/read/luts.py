"""The gray transforms a DICOM header asks for (PS3.3 C.11.1, C.11.2), read but not applied."""

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.radiograph import Lut, Radiograph, VoiFunction, Window
from edgecxr.read.guard import shown
from edgecxr.read.header import Header
from edgecxr.read.layout import Layout

__all__ = ["check_shown", "inversion", "modality", "padding", "voi"]

FUNCTIONS: dict[str, VoiFunction] = {
    "": "LINEAR",
    "LINEAR": "LINEAR",
    "LINEAR_EXACT": "LINEAR_EXACT",
    "SIGMOID": "SIGMOID",
}


def modality(header: Header, layout: Layout, notes: list[str]) -> tuple[float, float, Lut | None]:
    """(slope, intercept, table) of the modality transform; the table wins. Raises Refusal (CONTRADICTORY)."""
    slope, intercept = _single(header, "RescaleSlope", 1.0, notes), _single(header, "RescaleIntercept", 0.0, notes)
    items = header.items("ModalityLUTSequence")
    if items:
        if (slope, intercept) != (1.0, 0.0):
            notes.append("Modality LUT Sequence and rescale are both present; the table is used")
        return 1.0, 0.0, _table(items, "Modality LUT", layout.signed, notes)
    if slope == 0:
        raise Refusal(RefusalReason.CONTRADICTORY, "RescaleSlope is 0: every pixel would have the same value")
    return slope, intercept, None


def _single(header: Header, keyword: str, default: float, notes: list[str]) -> float:
    values = header.decimals(keyword)
    if len(values) > 1:
        notes.append(f"{keyword} has {len(values)} values; the first is used")
    return values[0] if values else default


def voi(header: Header, floor: float, notes: list[str]) -> tuple[Window | None, Lut | None]:
    """(window, table) of the VOI transform; the table wins, and a broken one gives way to a window.

    `floor` is the least modality value the layout can hold: it tells whether a table of an implicit data set begins at
    a signed value. Raises Refusal: CONTRADICTORY, UNSUPPORTED_PIXELS (a function that PS3.3 does not know).
    """
    items = header.items("VOILUTSequence")
    if not items:
        return _window(header, notes), None
    try:
        return None, _table(items, "VOI LUT", floor < 0, notes)
    except Refusal as refusal:
        window = _window(header, notes)
        if window is None:
            raise
        notes.append(f"{refusal.detail}; the window is used")
        return window, None


def _window(header: Header, notes: list[str]) -> Window | None:
    centers, widths = header.decimals("WindowCenter"), header.decimals("WindowWidth")
    if not centers and not widths:
        return None
    if len(centers) != len(widths):
        raise Refusal(RefusalReason.CONTRADICTORY, f"{len(centers)} window centre(s), {len(widths)} window width(s)")
    if len(centers) > 1:
        notes.append(f"the header has {len(centers)} windows; the first is used")
    name = header.text("VOILUTFunction")
    if name not in FUNCTIONS:
        raise Refusal(RefusalReason.UNSUPPORTED_PIXELS, f"PS3.3 C.11.2 has no VOI LUT function {shown(name)}")
    function = FUNCTIONS[name]
    if widths[0] <= 0 or (function == "LINEAR" and widths[0] < 1):
        raise Refusal(RefusalReason.CONTRADICTORY, f"window width {widths[0]:g} is too small for {function}")
    return Window(centers[0], widths[0], function)


def check_shown(film: Radiograph) -> None:
    """Raise Refusal (CONTRADICTORY) when the film has contrast and its window or VOI LUT shows none of it.

    Every 64th row decides where they show something, which they nearly always do; the rest is looked at where not.
    """
    if film.window is None and film.voi_lut is None:
        return
    stored = None
    for rows in (film.pixels[::64], film.pixels):
        stored = _stored_ends(film, rows)
        if stored and _shows(film, *_modality_ends(film, *stored)):
            return
    if stored is None or stored[0] == stored[1]:
        return  # nothing but padding, or one flat value
    ends = _modality_ends(film, *stored)
    what = "the VOI LUT gives one gray for all of the film, which"
    if ends[0] == ends[1]:
        what = "the Modality LUT gives one value for all of the film, which"
    elif film.window is not None:
        low, high = _limits(film.window)
        what = f"the window shows values {low:g} to {high:g}, the film"
    raise Refusal(RefusalReason.CONTRADICTORY, f"{what} has {ends[0]:g} to {ends[1]:g}")


def _stored_ends(film: Radiograph, rows: NDArray[Any]) -> tuple[int, int] | None:
    """The least and the greatest stored value in `rows` that is no padding; None where all is."""
    least, most = int(rows.min()), int(rows.max())
    if film.padding is not None and (film.padding[0] <= least or most <= film.padding[1]):
        values = rows[(rows < film.padding[0]) | (rows > film.padding[1])]
        if not values.size:
            return None
        least, most = int(values.min()), int(values.max())
    return least, most


def _modality_ends(film: Radiograph, least: int, most: int) -> tuple[float, float]:
    """The modality values between which stored values from `least` to `most` lie."""
    if film.modality_lut is not None:
        part = _part(film.modality_lut, least, most)
        return float(part.min()), float(part.max())
    one, other = film.slope * least + film.intercept, film.slope * most + film.intercept
    return min(one, other), max(one, other)


def _shows(film: Radiograph, least: float, most: float) -> bool:
    if film.voi_lut is not None:
        part = _part(film.voi_lut, least, most)
        return least < most and bool(part.min() < part.max())
    if film.window is None or film.window.function == "SIGMOID":
        return True
    low, high = _limits(film.window)
    return least < most and least <= high and most >= low


def _limits(window: Window) -> tuple[float, float]:
    return window.center - window.width / 2, window.center + window.width / 2


def _part(lut: Lut, least: float, most: float) -> NDArray[np.uint16]:
    """The entries that inputs between `least` and `most` find, at least one."""
    start, stop = (min(max(value - lut.first, 0), len(lut.values) - 1) for value in (least, most))
    return lut.values[math.floor(start) : math.ceil(stop) + 1]


def _table(items: list[Header], name: str, signed: bool, notes: list[str]) -> Lut:
    """A table of C.11.1.1 or C.11.2.1.1; `signed` says how an implicit data set stores its first input value."""
    if len(items) > 1:
        notes.append(f"the header has {len(items)} items of {name} Sequence; the first is used")
    item = items[0]
    raw = item.value("LUTDescriptor")
    if len(raw) != 6:
        raise Refusal(RefusalReason.CONTRADICTORY, f"{name}: the descriptor has {len(raw)} bytes, not three values")
    count, first, bits = struct.unpack(item.order + "3H", raw)
    count = count or 1 << 16
    element = item.element("LUTDescriptor")
    if element is not None and (element.vr == "SS" or (element.vr != "US" and signed)) and first >= 1 << 15:
        first -= 1 << 16
    if not 8 <= bits <= 16:
        raise Refusal(RefusalReason.CONTRADICTORY, f"{name}: entries of {bits} bits; 8 to 16 are defined")
    values = _entries(item, name, count, bits)
    if int(values.max()) >= 1 << bits:
        raise Refusal(RefusalReason.CONTRADICTORY, f"{name}: entry {int(values.max())} does not fit into {bits} bits")
    return Lut(first, values, bits)


def _entries(item: Header, name: str, count: int, bits: int) -> NDArray[np.uint16]:
    raw = item.value("LUTData")
    if len(raw) == 2 * count:
        return np.frombuffer(raw, item.order + "u2").astype(np.uint16)
    if bits == 8 and len(raw) == count + count % 2:
        element = item.element("LUTData")
        if item.order == ">" and element is not None and element.vr != "OB":
            return np.frombuffer(raw, ">u2").astype("<u2").view(np.uint8)[:count].astype(np.uint16)
        return np.frombuffer(raw, np.uint8, count).astype(np.uint16)
    raise Refusal(RefusalReason.CONTRADICTORY, f"{name}: {count:,} entries declared, {len(raw):,} bytes given")


def inversion(header: Header, notes: list[str]) -> bool:
    """Whether low values are bright: MONOCHROME1, or Presentation LUT Shape INVERSE (PS3.3 C.8.11.3.1, C.11.6).

    Raises Refusal (UNSUPPORTED_PIXELS) for a Presentation LUT Sequence or a shape that the chain does not define.
    """
    photometric, shape = header.text("PhotometricInterpretation"), header.text("PresentationLUTShape")
    if header.items("PresentationLUTSequence"):
        raise Refusal(RefusalReason.UNSUPPORTED_PIXELS, "the header holds a Presentation LUT Sequence")
    if shape not in ("", "IDENTITY", "INVERSE"):
        raise Refusal(
            RefusalReason.UNSUPPORTED_PIXELS, f"Presentation LUT Shape {shown(shape)}; IDENTITY or INVERSE is read"
        )
    inverted = photometric == "MONOCHROME1"
    if shape and inverted != (shape == "INVERSE"):
        notes.append(
            f"the header contradicts itself: {photometric} with Presentation LUT Shape {shape}; read as inverted"
        )
    return inverted or shape == "INVERSE"


def padding(header: Header, layout: Layout, notes: list[str]) -> tuple[int, int] | None:
    """The inclusive range of stored values that are no film (PS3.3 C.7.5.1.1.2), or None. Raises Refusal."""
    ends = [_stored(header, keyword, layout) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    known = [end for end in ends if end is not None]
    if ends[0] is None:
        if known:
            notes.append("PixelPaddingRangeLimit without PixelPaddingValue is ignored")
        return None
    return min(known), max(known)


def _stored(header: Header, keyword: str, layout: Layout) -> int | None:
    value: Any = header.integer(keyword)
    if value is not None and layout.signed and value >= 1 << 15:
        return int(value) - (1 << 16)
    return None if value is None else int(value)

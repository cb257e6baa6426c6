"""The picture of a capture: film, heatmap and result on one dark sheet, to be read in a dark room."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgecxr.errors import DrawingError, Refusal
from edgecxr.heatmap import colour_overlay
from edgecxr.runtimes.node.drawing_process import LARGEST
from edgecxr.runtimes.node.results.making import Making
from edgecxr.runtimes.node.results.record import heatmap, most_urgent

__all__ = ["sheet"]

NARROWEST = 680  # of its width, so that every line fits
SMALLEST = 640  # long side of the film as shown; a smaller film is enlarged to it
MARGIN = 20
BANNER, ROW, FOOT, HEAD = 46, 44, 74, 40  # heights
SHOWN = 5  # findings on the sheet; the report has them all

BLACK, PLATE = (0, 0, 0), (17, 18, 20)
WHITE, GRAY, FAINT = (224, 224, 224), (150, 154, 160), (58, 62, 68)
AMBER, CYAN = (255, 176, 46), (92, 190, 214)

Colour = tuple[int, int, int]


class _Film(NamedTuple):
    """What stands in the middle of the sheet."""

    image: Image.Image
    caption: str
    scale: str = ""  # how it was scaled
    mapped: bool = False  # whether colours lie over it
    missing: str = ""  # why no film is shown that was read


def sheet(making: Making) -> tuple[NDArray[np.uint8], str]:
    """(H, W, 3) uint8, at most `LARGEST` on a side; why it has no picture of a film that was read, "" where it has.

    Raises DrawingError while that may pass.
    """
    findings = _ordered(making.record)[:SHOWN]
    below = HEAD + FOOT + (max(len(findings), 1) * ROW if not making.refused else 3 * ROW)
    shown = _film(making, LARGEST - BANNER - below)
    film = shown.image
    width = max(film.width, NARROWEST)
    canvas = Image.new("RGB", (width, BANNER + film.height + below), BLACK)
    pen = ImageDraw.Draw(canvas)
    _banner(pen, width, bool(making.doubt))
    canvas.paste(film, ((width - film.width) // 2, BANNER))
    top = BANNER + film.height
    pen.rectangle((0, top, width, canvas.height), fill=PLATE)
    _caption(pen, shown, (width, top))
    if making.refused:
        _refusal(pen, making, (width, top + HEAD))
    else:
        for index, finding in enumerate(findings):
            _finding(pen, finding, width, top + HEAD + index * ROW)
    _foot(pen, making, shown.missing or shown.scale, (width, canvas.height - FOOT))
    return np.asarray(canvas, np.uint8), shown.missing


def _film(making: Making, tallest: int) -> _Film:
    """The film, under the map of its most urgent finding. Raises DrawingError while it may yet be drawn."""
    try:
        picture = making.draw(tallest, SMALLEST)
    except Refusal:
        return _Film(_no_film(), "The picture cannot be shown")
    except DrawingError as error:
        if not error.given_up:
            raise
        return _Film(_no_film(), "The picture cannot be shown", missing=f"No picture: {error.detail}")
    gray = picture.gray
    rows, columns = gray.shape
    scale = f"Film of {picture.columns} × {picture.rows} pixels, shown at {columns} × {rows}"
    finding = most_urgent(making.record)
    if finding is None or making.cam is None:
        return _Film(Image.fromarray(gray).convert("RGB"), "The film, without a heatmap", scale)
    strength = heatmap(making.record, making.cam, finding, (rows, columns))
    caption = f"Heatmap: where the film speaks for {_title(finding['name'])}"
    return _Film(Image.fromarray(colour_overlay(gray, strength)), caption, scale, mapped=True)


def _no_film() -> Image.Image:
    plate = Image.new("RGB", (NARROWEST, 300), BLACK)
    pen = ImageDraw.Draw(plate)
    pen.rectangle((MARGIN, MARGIN, NARROWEST - MARGIN, 300 - MARGIN), outline=FAINT, width=2)
    pen.text((NARROWEST // 2, 150), "No picture", font=_font(24), fill=GRAY, anchor="mm")
    return plate


def _banner(pen: ImageDraw.ImageDraw, width: int, doubtful: bool) -> None:
    pen.rectangle((0, 0, width, BANNER - 1), fill=(38, 26, 4))
    pen.rectangle((0, BANNER - 2, width, BANNER - 1), fill=AMBER)
    text = "RESEARCH USE ONLY – NOT FOR DIAGNOSIS" + (" – RESULT IN DOUBT" if doubtful else "")
    pen.text((width // 2, BANNER // 2 - 1), text, font=_font(18 if doubtful else 22, True), fill=AMBER, anchor="mm")


def _caption(pen: ImageDraw.ImageDraw, shown: _Film, corner: tuple[int, int]) -> None:
    """What is shown, and the key to the colours."""
    width, top = corner
    pen.text((MARGIN, top + HEAD // 2), shown.caption, font=_font(14), fill=GRAY, anchor="lm")
    if not shown.mapped:
        return
    ramp = colour_overlay(np.full((10, 120), 90, np.uint8), np.tile(np.linspace(0, 1, 120), (10, 1)))
    left = width - MARGIN - 36 - 120
    pen.text((left - 8, top + HEAD // 2), "less", font=_font(13), fill=GRAY, anchor="rm")
    for column in range(120):
        colour = tuple(int(value) for value in ramp[0, column])
        pen.line((left + column, top + HEAD // 2 - 5, left + column, top + HEAD // 2 + 5), fill=colour)
    pen.text((left + 128, top + HEAD // 2), "more", font=_font(13), fill=GRAY, anchor="lm")


def _finding(pen: ImageDraw.ImageDraw, finding: Mapping[str, Any], width: int, top: int) -> None:
    """One row: name, bar with a tick at the threshold, score against threshold, decision."""
    positive = finding["decision"] == "positive"
    colour, middle = AMBER if positive else CYAN, top + ROW // 2
    pen.text(
        (MARGIN, middle),
        _fitting(_title(finding["name"]), 170, 19, True),
        font=_font(19, True),
        fill=WHITE,
        anchor="lm",
    )
    left, right = MARGIN + 182, width - MARGIN - 300
    probability, threshold = finding["probability"], finding["threshold"]
    _bar(pen, (left, right, middle), (probability, threshold), colour)
    numbers = f"{_digits(probability)} {'≥' if positive else '<'} {_digits(threshold)}"
    pen.text((width - MARGIN - 142, middle), numbers, font=_font(18), fill=WHITE, anchor="rm")
    box = (width - MARGIN - 126, middle - 15, width - MARGIN, middle + 15)
    pen.rounded_rectangle(box, 6, fill=colour if positive else None, outline=colour, width=2)
    centre = ((box[0] + box[2]) // 2, middle)
    pen.text(centre, finding["decision"].upper(), font=_font(17, True), fill=BLACK if positive else colour, anchor="mm")


def _bar(pen: ImageDraw.ImageDraw, place: tuple[int, int, int], values: tuple[float, float], colour: Colour) -> None:
    """A score in [0, 1] and its threshold, in the same linear scale."""
    left, right, middle = place
    score, threshold = (left + round(value * (right - left)) for value in values)
    pen.rounded_rectangle((left, middle - 6, right, middle + 6), 4, fill=FAINT)
    pen.rectangle((left, middle - 6, max(score, left + 1), middle + 6), fill=colour)
    pen.rectangle((threshold - 1, middle - 13, threshold + 1, middle + 13), fill=WHITE)


def _refusal(pen: ImageDraw.ImageDraw, making: Making, corner: tuple[int, int]) -> None:
    width, top = corner
    pen.rounded_rectangle((MARGIN, top + 2, MARGIN + 138, top + 38), 6, fill=WHITE)
    pen.text((MARGIN + 69, top + 20), "REFUSED", font=_font(22, True), fill=BLACK, anchor="mm")
    title = "Not screened: no finding was looked for"
    pen.text((MARGIN + 156, top + 20), title, font=_font(19, True), fill=WHITE, anchor="lm")
    for index, line in enumerate(_lines(making.reason, width - 2 * MARGIN, 17)[:3]):
        pen.text((MARGIN, top + 62 + index * 24), line, font=_font(17), fill=WHITE, anchor="lm")


def _foot(pen: ImageDraw.ImageDraw, making: Making, scale: str, corner: tuple[int, int]) -> None:
    """Who decided, by which rule, on what, and when."""
    width, top = corner
    record, right = making.record, width - MARGIN
    hidden = len(record["findings"]) - SHOWN
    pen.line((MARGIN, top, right, top), fill=FAINT)
    who = f"EdgeCXR {making.version}   Model {making.model}   {record['operating_point']} operating point"
    pen.text((MARGIN, top + 18), _fitting(who, width - 2 * MARGIN, 14), font=_font(14), fill=WHITE, anchor="lm")
    what = f"Bundle {record['bundle'][:16]}   {record['engine']}, {record['precision']}"
    pen.text((MARGIN, top + 39), what, font=_font(13), fill=GRAY, anchor="lm")
    when = f"{making.moment:%Y-%m-%d %H:%M} {making.offset}"
    pen.text((right, top + 39), when, font=_font(13), fill=GRAY, anchor="rm")
    pen.text((MARGIN, top + 58), _fitting(scale, width - 2 * MARGIN, 13), font=_font(13), fill=GRAY, anchor="lm")
    if hidden > 0:
        pen.text((right, top + 58), f"{hidden} more findings in the report", font=_font(13), fill=GRAY, anchor="rm")


def _ordered(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings, the most urgent first: the one whose map is shown is the first row."""
    rest, ordered = list(record["findings"]), []
    while rest:
        first = most_urgent({"findings": rest})
        if first is None:
            break
        ordered.append(first)
        rest.remove(first)
    return ordered


def _digits(probability: float) -> str:
    """Three digits; more where the score would look like 0, 1 or its threshold."""
    return f"{probability:.3f}" if 0.01 <= probability <= 0.99 else f"{probability:.4f}"


def _title(name: str) -> str:
    words = name.replace("_", " ")
    return "COVID-19" if words.lower() == "covid" else words[:1].upper() + words[1:]


def _lines(text: str, width: int, size: int) -> list[str]:
    """`text` broken at blanks into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_fitting(line, width, size) for line in lines]


def _fitting(text: str, width: int, size: int, bold: bool = False) -> str:
    """`text` cut to at most `width` pixels."""
    while len(text) > 1 and _font(size, bold).getlength(text) > width:
        text = text[:-2] + "…"
    return text


@lru_cache(maxsize=32)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, as matplotlib ships it."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)

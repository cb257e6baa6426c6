"""The pens that every plot is drawn with: a plot is text and lines in SVG, and takes its colours from the page.

Everything returns markup whose texts are escaped. Data are given in the unit square, x to the right and y up, and land
in a frame of SIDE × SIDE SVG units; plots scale with the page.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

__all__ = ["BELOW", "COLOURS", "HEIGHT", "LEFT", "SIDE", "TOP", "WIDTH"]
__all__ += [
    "Ticks",
    "axes",
    "beside",
    "dot",
    "frame",
    "length",
    "line",
    "place_x",
    "place_y",
    "svg",
    "text",
    "ticks",
    "write_svg",
]

SIDE = 200  # of a square plot's frame
LEFT, TOP, BELOW = 42, 8, 30
WIDTH, HEIGHT = LEFT + SIDE + 10, TOP + SIDE + BELOW
COLOURS = 8  # that the page tells apart; after them they begin again
STYLE = Path(__file__).parent / "templates" / "plots.css"
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)

Ticks = Sequence[tuple[float, str]]  # (place in 0 … 1, what stands there)


def ticks(low: float, high: float, wanted: int = 5) -> Ticks:
    """About `wanted` round numbers (1, 2 or 5 times a power of ten) in [low, high], by their place in it."""
    span = high - low
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
    digits = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [((count * step - low) / span, f"{count * step:.{digits}f}") for count in range(first, last + 1)]


def axes(
    across: str, up: str, parts: Sequence[Markup], x_ticks: Ticks | None = None, y_ticks: Ticks | None = None
) -> Markup:
    """A frame of the unit square with a faint grid, ticks (quarters unless given) and axis names, and `parts` in it."""
    quarters = [(tick, f"{tick:g}") for tick in QUARTERS]
    grid = [Markup('<rect class="frame" x="{}" y="{}" width="{}" height="{}"/>').format(LEFT, TOP, SIDE, SIDE)]
    for place, label in quarters if x_ticks is None else x_ticks:
        grid += [line((place, place), (0, 1), "grid"), text(place_x(place), TOP + SIDE + 12, label, "middle")]
    for place, label in quarters if y_ticks is None else y_ticks:
        low = length(TOP + SIDE * (1 - place) + 3)
        grid += [line((0, 1), (place, place), "grid"), text(LEFT - 5, low, label, "end")]
    grid.append(text(LEFT + SIDE / 2, TOP + SIDE + 26, across, "middle", "axis"))
    turned = '<text class="axis" text-anchor="middle" transform="translate(8 {}) rotate(-90)">{}</text>'
    grid.append(Markup(turned).format(TOP + SIDE / 2, up))
    return Markup("").join([*grid, *parts])


def frame(
    across: str,
    up: str,
    parts: Sequence[Markup],
    title: str,
    x_ticks: Ticks | None = None,
    y_ticks: Ticks | None = None,
) -> Markup:
    """One square plot."""
    return svg(WIDTH, HEIGHT, [axes(across, up, parts, x_ticks, y_ticks)], title, "plot")


def beside(panels: Sequence[Markup], names: Sequence[tuple[str, str]], title: str, note: str = "") -> Markup:
    """Panels (of `axes`) side by side in one figure over a legend of (name, class of its line) and a note."""
    width, row = WIDTH * len(panels), 14
    columns = max(1, width // 160)
    parts = [
        Markup('<g transform="translate({} 0)">{}</g>').format(WIDTH * index, panel)
        for index, panel in enumerate(panels)
    ]
    for index, (name, kind) in enumerate(names):
        x, y = LEFT + 160 * (index % columns), HEIGHT + 10 + row * (index // columns)
        stroke = Markup('<polyline class="{}" points="{},{} {},{}"/>').format(kind, x, y - 3, x + 16, y - 3)
        parts += [stroke, text(x + 21, y, name, "start", "axis")]
    rows = -(-len(names) // columns)
    height = HEIGHT + row * rows + (8 if rows else 0)
    if note:
        parts.append(text(LEFT, height + 8, note, "start"))
        height += row
    return svg(width, height, parts, title, "chart wide" if len(panels) > 1 else "chart")


def line(xs: Sequence[float], ys: Sequence[float], kind: str) -> Markup:
    """A line through points of the unit square."""
    points = " ".join(f"{place_x(x)},{place_y(y)}" for x, y in zip(xs, ys, strict=True))
    return Markup('<polyline class="{}" points="{}"/>').format(kind, points)


def dot(x: float, y: float, radius: float, kind: str, hint: str) -> Markup:
    """A dot in the unit square; the hint shows under the pointer."""
    return Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
        kind, place_x(x), place_y(y), length(radius), hint
    )


def text(x: object, y: object, content: str, anchor: str, kind: str = "tick-label") -> Markup:
    """A text at SVG units."""
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, content)


def svg(
    width: float, height: float, parts: Sequence[Markup], title: str, kind: str, *, stretch: bool = False
) -> Markup:
    """A whole drawing of width × height SVG units."""
    fit = "none" if stretch else "xMinYMid meet"
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="{}" role="img" aria-label="{}">{}</svg>'
    ).format(kind, length(width), length(height), fit, title, Markup("").join(parts))


def write_svg(path: str | Path, drawing: Markup) -> Path:
    """Write a plot as a file of its own, with the page's colours and letters inside."""
    style = f"<style>svg {{ font-family: sans-serif; }} {STYLE.read_text(encoding='utf-8')}</style>"
    head, body = str(drawing).split(">", 1)
    Path(path).write_text(f'{head} xmlns="http://www.w3.org/2000/svg">{style}{body}\n', encoding="utf-8")
    return Path(path)


def place_x(value: float) -> str:
    """Where a number of the unit square lies across, in SVG units."""
    return length(LEFT + SIDE * value)


def place_y(value: float) -> str:
    """Where a number of the unit square lies from above, in SVG units."""
    return length(TOP + SIDE * (1 - value))


def length(value: float) -> str:
    """A length with two decimals at most, so that pages stay small."""
    return f"{value:.2f}".rstrip("0").rstrip(".")

"""Plots as inline SVG that follows the page's colours: one small function each, nothing but text and lines.

Every function returns markup whose texts are escaped. Lengths are in SVG units; plots scale with the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

__all__ = [
    "bar",
    "confusion_matrix",
    "forest",
    "precision_recall_plot",
    "reliability_plot",
    "roc_plot",
    "training_plot",
]

SIDE = 200  # of a square plot's frame
LEFT, TOP, BELOW = 42, 8, 30
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

Json = Mapping[str, Any]
Series = Sequence[
    tuple[str, Json]
]  # (name, one entry of an evaluation's `classes`), at most as many as the page has colours


def roc_plot(series: Series) -> Markup:
    """Sensitivity over 1 - specificity, with the operating points of each series and their intervals."""
    parts = [_line((0, 1), (0, 1), "chance")]
    for number, (_, entry) in enumerate(series):
        if entry["roc"]:
            parts.append(_line(entry["roc"]["false_positive_rate"], entry["roc"]["sensitivity"], f"series s{number}"))
    for number, (_, entry) in enumerate(series):
        parts += [_operating_point(point, number) for point in entry["operating_points"]]
    return _frame("1 − specificity", "sensitivity", parts, "ROC curves")


def precision_recall_plot(series: Series) -> Markup:
    """Precision over recall; the dashed line is chance, the share of positive films."""
    parts = []
    for number, (_, entry) in enumerate(series):
        if number == 0 and entry["films"]:
            share = entry["positives"] / entry["films"]
            parts.append(_line((0, 1), (share, share), "chance"))
        if entry["precision_recall"]:
            curve = entry["precision_recall"]
            parts.append(_line(curve["recall"], curve["precision"], f"series s{number}"))
    return _frame("recall (sensitivity)", "precision", parts, "precision-recall curves")


def reliability_plot(bins: Sequence[Json], number: int = 0) -> Markup:
    """Observed share over mean probability, with each bin's interval; on the diagonal a probability means itself."""
    used = [item for item in bins if item["count"]]
    parts = [_line((0, 1), (0, 1), "chance")]
    for item in used:
        x, observed = item["mean_probability"], item["observed"]
        parts.append(_line((x, x), (observed["low"], observed["high"]), f"whisker s{number}"))
    shares = [item["observed"]["value"] for item in used]
    parts.append(_line([item["mean_probability"] for item in used], shares, f"series s{number} thin"))
    for item, share in zip(used, shares, strict=True):
        parts.append(_dot(item["mean_probability"], share, 3.2, f"s{number}", f"{item['count']} films"))
    return _frame("mean probability", "observed share", parts, "reliability diagram")


def confusion_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Film counts, rows truth and columns answer; the shade is the share of the row."""
    cell, left, top = 58, 70, 32
    parts = [_text(0, top - 12, "truth ↓  answer →", "start", "axis small")]
    for row, line in enumerate(counts):
        parts.append(_text(left - 8, top + row * cell + cell / 2 + 3, classes[row], "end"))
        parts.append(_text(left + row * cell + cell / 2 - 1, top - 12, classes[row], "middle"))
        for column, count in enumerate(line):
            shade = 0.06 + 0.5 * count / max(1, sum(line))
            place = (left + column * cell, top + row * cell)
            parts.append(_cell(place, cell, "right" if row == column else "wrong", shade, count))
    return _svg(left + cell * len(classes), top + cell * len(classes), parts, "confusion matrix", "matrix")


def _cell(place: tuple[int, int], side: int, kind: str, shade: float, count: int) -> Markup:
    return Markup(
        '<rect class="cell {}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"/>'
        '<text class="count" x="{}" y="{}" text-anchor="middle">{}</text>'
    ).format(kind, *place, side - 2, side - 2, _n(shade), place[0] + side / 2 - 1, place[1] + side / 2 + 4, count)


def forest(interval: Json, margin: float, worse: int) -> Markup:
    """A difference with its interval beside no difference and the accepted loss; `worse` is the sign of a loss."""
    width, height, reach = 190, 22, max(abs(interval["low"]), abs(interval["high"]), margin) * 1.12

    def at(value: float) -> str:
        return _n(width / 2 * (1 + value / reach))

    middle, edge = height / 2, at(worse * margin)
    spoiled = (edge, width - float(edge)) if worse > 0 else ("0", edge)
    parts = [
        Markup('<rect class="beyond" x="{}" y="1" width="{}" height="{}"/>').format(*spoiled, height - 2),
        Markup('<line class="zero" x1="{0}" x2="{0}" y1="1" y2="{1}"/>').format(at(0), height - 1),
        Markup('<line class="margin" x1="{0}" x2="{0}" y1="1" y2="{1}"/>').format(edge, height - 1),
        Markup('<line class="range" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            at(interval["low"]), at(interval["high"]), middle, middle
        ),
        Markup('<circle class="value" cx="{}" cy="{}" r="3.2"/>').format(at(interval["value"]), middle),
    ]
    return _svg(width, height, parts, f"difference {interval['value']:.3f}, accepted loss {margin:g}", "forest")


def bar(probability: float, threshold: float, positive: bool) -> Markup:
    """A probability as a bar, and the threshold as a tick."""
    width, height = 120, 10
    parts = [
        Markup('<rect class="track" x="0" y="3" width="{}" height="4" rx="2"/>').format(width),
        Markup('<rect class="{}" x="0" y="3" width="{}" height="4" rx="2"/>').format(
            "level positive" if positive else "level", _n(width * min(1, max(0, probability)))
        ),
        Markup('<line class="tick" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(_n(width * threshold), height),
    ]
    title = f"probability {probability:.3f}, threshold {threshold:.3f}"
    return _svg(width, height, parts, title, "bar", stretch=True)


def training_plot(records: Sequence[Json], key: str) -> Markup:
    """One number of each epoch, scaled between its smallest and largest value."""
    values = [float(record[key]) for record in records if isinstance(record.get(key), (int, float))]
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = (high - low) or 1.0
    steps = max(1, len(values) - 1)
    points = _line([i / steps for i in range(len(values))], [(value - low) / span for value in values], "series s0")
    labels = [f"{low:.3g}", "", f"{low + span / 2:.3g}", "", f"{low + span:.3g}"]
    epochs = ["1", "", "", "", str(len(values))]
    return _frame("epoch", key.replace("_", " "), [points], f"{key} by epoch", epochs, labels)


def _frame(
    across: str,
    up: str,
    parts: Sequence[Markup],
    title: str,
    x_labels: Sequence[str] | None = None,
    y_labels: Sequence[str] | None = None,
) -> Markup:
    """A square plot of the unit square with a faint grid, ticks and axis names."""
    grid: list[Markup] = [
        Markup('<rect class="frame" x="{}" y="{}" width="{}" height="{}"/>').format(LEFT, TOP, SIDE, SIDE)
    ]
    for index, tick in enumerate(TICKS):
        grid.extend((_line((tick, tick), (0, 1), "grid"), _line((0, 1), (tick, tick), "grid")))
        x_label = f"{tick:g}" if x_labels is None else x_labels[index]
        y_label = f"{tick:g}" if y_labels is None else y_labels[index]
        grid.append(_text(_x(tick), TOP + SIDE + 12, x_label, "middle"))
        grid.append(_text(LEFT - 5, _n(TOP + SIDE * (1 - tick) + 3), y_label, "end"))
    grid.append(_text(LEFT + SIDE / 2, TOP + SIDE + 26, across, "middle", "axis"))
    grid.append(
        Markup('<text class="axis" text-anchor="middle" transform="translate(8 {}) rotate(-90)">{}</text>').format(
            TOP + SIDE / 2, up
        )
    )
    return _svg(LEFT + SIDE + 10, TOP + SIDE + BELOW, [*grid, *parts], title, "plot")


def _operating_point(point: Json, number: int) -> Markup:
    """A dot on the ROC plane with its two intervals; nothing where one of them could not be computed."""
    found, cleared = point["sensitivity"], point["specificity"]
    if not found or not cleared:
        return Markup("")
    x, y = 1 - cleared["value"], found["value"]
    hint = f"{point['name']}: threshold {point['threshold']:.3f}"
    across = _line((1 - cleared["high"], 1 - cleared["low"]), (y, y), f"whisker s{number}")
    up = _line((x, x), (found["low"], found["high"]), f"whisker s{number}")
    return Markup("").join((across, up, _dot(x, y, 3.4, f"s{number}", hint)))


def _line(xs: Sequence[float], ys: Sequence[float], kind: str) -> Markup:
    points = " ".join(f"{_x(x)},{_y(y)}" for x, y in zip(xs, ys, strict=True))
    return Markup('<polyline class="{}" points="{}"/>').format(kind, points)


def _dot(x: float, y: float, radius: float, kind: str, hint: str) -> Markup:
    return Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
        kind, _x(x), _y(y), _n(radius), hint
    )


def _text(x: object, y: object, content: str, anchor: str, kind: str = "tick-label") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, content)


def _svg(
    width: float, height: float, parts: Sequence[Markup], title: str, kind: str, *, stretch: bool = False
) -> Markup:
    fit = "none" if stretch else "xMinYMid meet"
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="{}" role="img" aria-label="{}">{}</svg>'
    ).format(kind, _n(width), _n(height), fit, title, Markup("").join(parts))


def _x(value: float) -> str:
    return _n(LEFT + SIDE * value)


def _y(value: float) -> str:
    return _n(TOP + SIDE * (1 - value))


def _n(value: float) -> str:
    """A length with two decimals at most, so that pages stay small."""
    return f"{value:.2f}".rstrip("0").rstrip(".")

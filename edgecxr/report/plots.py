"""Plots as inline SVG that follows the page's colours: one small function each, nothing but text and lines."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from edgecxr.report.drawing import COLOURS, axes, beside, dot, frame, length, line, svg, text, ticks
from edgecxr.report.learning import fusion_weights, learning_curves

__all__ = [
    "bar",
    "confusion_matrix",
    "forest",
    "fusion_weights",
    "histogram_plot",
    "learning_curves",
    "neighbour_map",
    "precision_recall_plot",
    "reliability_plot",
    "roc_plot",
]

Json = Mapping[str, Any]
Series = Sequence[
    tuple[str, Json]
]  # (name, one entry of an evaluation's `classes`), at most as many as the page has colours


def roc_plot(series: Series) -> Markup:
    """Sensitivity over 1 - specificity, with the operating points of each series and their intervals."""
    parts = [line((0, 1), (0, 1), "chance")]
    for number, (_, entry) in enumerate(series):
        if entry["roc"]:
            parts.append(line(entry["roc"]["false_positive_rate"], entry["roc"]["sensitivity"], f"series s{number}"))
    for number, (_, entry) in enumerate(series):
        parts += [_operating_point(point, number) for point in entry["operating_points"]]
    return frame("1 − specificity", "sensitivity", parts, "ROC curves")


def precision_recall_plot(series: Series) -> Markup:
    """Precision over recall; the dashed line is chance, the share of positive films."""
    parts = []
    for number, (_, entry) in enumerate(series):
        if number == 0 and entry["films"]:
            share = entry["positives"] / entry["films"]
            parts.append(line((0, 1), (share, share), "chance"))
        if entry["precision_recall"]:
            curve = entry["precision_recall"]
            parts.append(line(curve["recall"], curve["precision"], f"series s{number}"))
    return frame("recall (sensitivity)", "precision", parts, "precision-recall curves")


def reliability_plot(bins: Sequence[Json], number: int = 0) -> Markup:
    """Observed share over mean probability, with each bin's interval; on the diagonal a probability means itself."""
    used = [item for item in bins if item["count"]]
    parts = [line((0, 1), (0, 1), "chance")]
    for item in used:
        x, observed = item["mean_probability"], item["observed"]
        parts.append(line((x, x), (observed["low"], observed["high"]), f"whisker s{number}"))
    shares = [item["observed"]["value"] for item in used]
    parts.append(line([item["mean_probability"] for item in used], shares, f"series s{number} thin"))
    for item, share in zip(used, shares, strict=True):
        parts.append(dot(item["mean_probability"], share, 3.2, f"s{number}", f"{item['count']} films"))
    return frame("mean probability", "observed share", parts, "reliability diagram")


def confusion_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Film counts and their share of the row; rows truth and columns answer, the shade is that share."""
    cell, left, top = 58, 70, 32
    parts = [text(0, top - 12, "truth ↓  answer →", "start", "axis small")]
    for row, films in enumerate(counts):
        parts.append(text(left - 8, top + row * cell + cell / 2 + 3, classes[row], "end"))
        parts.append(text(left + row * cell + cell / 2 - 1, top - 12, classes[row], "middle"))
        for column, count in enumerate(films):
            share = count / max(1, sum(films))
            place = (left + column * cell, top + row * cell)
            parts.append(_cell(place, cell, "right" if row == column else "wrong", count, share))
    return svg(left + cell * len(classes), top + cell * len(classes), parts, "confusion matrix", "matrix")


def _cell(place: tuple[int, int], side: int, kind: str, count: int, share: float) -> Markup:
    middle = place[0] + side / 2 - 1
    square = '<rect class="cell {}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"/>'
    return Markup("").join(
        (
            Markup(square).format(kind, *place, side - 2, side - 2, length(0.06 + 0.5 * share)),
            text(middle, place[1] + side / 2 + 1, str(count), "middle", "count"),
            text(middle, place[1] + side / 2 + 14, f"{100 * share:.1f} %", "middle", "share"),
        )
    )


def histogram_plot(histogram: Json, name: str, points: Sequence[Json] = ()) -> Markup:
    """How the scores of a class spread over the films of each true class, as shares; dashed lines are thresholds."""
    edges, counts = histogram["edges"], {key: values for key, values in histogram["counts"].items() if sum(values)}
    shares = {key: [count / sum(values) for count in values] for key, values in counts.items()}
    top = max((share for values in shares.values() for share in values), default=1.0)
    parts = [line((point["threshold"],) * 2, (0, 1), "chance") for point in points]
    corners = [edge for pair in pairwise(edges) for edge in pair]
    names = []
    for key, values in shares.items():
        kind = f"series s{list(histogram['counts']).index(key) % COLOURS}"
        heights = [share / top for share in values for _ in range(2)]
        parts.append(line([0, *corners, 1], [0, *heights, 0], kind))
        names.append((f"{key}, {_films(sum(counts[key]))}", kind))
    drawn = axes(f"score of {name}", "share of the films", parts, y_ticks=ticks(0.0, top))
    return beside([drawn], names, f"histograms of the score of {name}")


def _films(count: int) -> str:
    return f"{count} film" if count == 1 else f"{count} films"


def neighbour_map(found: Json) -> Markup:
    """Films in a plane where those that the network sees alike lie together, coloured by their true class."""
    xs, ys, classes = zip(*found["points"], strict=True)
    wide = max(max(xs) - min(xs), max(ys) - min(ys)) * 1.06 or 1.0
    left, low = (max(xs) + min(xs) - wide) / 2, (max(ys) + min(ys) - wide) / 2
    parts = [
        dot((x - left) / wide, (y - low) / wide, 2.5, f"s{index % COLOURS}", found["classes"][index])
        for x, y, index in found["points"]
    ]
    names = [
        (f"{name}, {_films(classes.count(index))}", f"series s{index % COLOURS}")
        for index, name in enumerate(found["classes"])
        if index in classes
    ]
    return beside([axes("", "", parts, (), ())], names, f"map of the embeddings, head {found['head']}")


def forest(interval: Json, margin: float | None, worse: int) -> Markup:
    """A difference with its interval beside no difference and the accepted loss, if any; `worse` is a loss's sign."""
    width, height, reach = 190, 22, max(abs(interval["low"]), abs(interval["high"]), margin or 1e-9) * 1.12

    def at(value: float) -> str:
        return length(width / 2 * (1 + value / reach))

    middle, accepted = height / 2, "" if margin is None else f", accepted loss {margin:g}"
    parts = [Markup('<line class="zero" x1="{0}" x2="{0}" y1="1" y2="{1}"/>').format(at(0), height - 1)]
    if margin is not None:
        edge = at(worse * margin)
        spoiled = (edge, width - float(edge)) if worse > 0 else ("0", edge)
        parts.insert(
            0, Markup('<rect class="beyond" x="{}" y="1" width="{}" height="{}"/>').format(*spoiled, height - 2)
        )
        parts.append(Markup('<line class="margin" x1="{0}" x2="{0}" y1="1" y2="{1}"/>').format(edge, height - 1))
    parts += [
        Markup('<line class="range" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            at(interval["low"]), at(interval["high"]), middle, middle
        ),
        Markup('<circle class="value" cx="{}" cy="{}" r="3.2"/>').format(at(interval["value"]), middle),
    ]
    return svg(width, height, parts, f"difference {interval['value']:.3f}{accepted}", "forest")


def bar(probability: float, threshold: float, positive: bool) -> Markup:
    """A probability as a bar, and the threshold as a tick."""
    width, height = 120, 10
    parts = [
        Markup('<rect class="track" x="0" y="3" width="{}" height="4" rx="2"/>').format(width),
        Markup('<rect class="{}" x="0" y="3" width="{}" height="4" rx="2"/>').format(
            "level positive" if positive else "level", length(width * min(1, max(0, probability)))
        ),
        Markup('<line class="tick" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(length(width * threshold), height),
    ]
    title = f"probability {probability:.3f}, threshold {threshold:.3f}"
    return svg(width, height, parts, title, "bar", stretch=True)


def _operating_point(point: Json, number: int) -> Markup:
    """A dot on the ROC plane with its two intervals; nothing where one of them could not be computed."""
    found, cleared = point["sensitivity"], point["specificity"]
    if not found or not cleared:
        return Markup("")
    x, y = 1 - cleared["value"], found["value"]
    hint = f"{point['name']}: threshold {point['threshold']:.3f}"
    across = line((1 - cleared["high"], 1 - cleared["low"]), (y, y), f"whisker s{number}")
    up = line((x, x), (found["low"], found["high"]), f"whisker s{number}")
    return Markup("").join((across, up, dot(x, y, 3.4, f"s{number}", hint)))

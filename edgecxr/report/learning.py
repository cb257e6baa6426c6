"""How trainings went: losses and scores by epoch, and the weights of fused networks while they move."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from edgecxr.report.drawing import COLOURS, Ticks, axes, beside, dot, line, ticks

__all__ = ["WEIGHT", "fusion_weights", "learning_curves"]

Record = Mapping[str, float]
Points = list[tuple[float, float]]  # (epoch, value)
LOSSES = {"train_loss": "train", "validation_loss": ""}  # key and the class that its line has beside its colour
SCORES = {"validation_auroc": "validation AUROC", "validation_accuracy": "validation accuracy"}
WEIGHT = "weight_"


def learning_curves(histories: Mapping[str, Sequence[Record]]) -> Markup:
    """Losses and validation scores by epoch of several trainings in one figure, one colour for each.

    `histories` has the records of each training by its name, as history.json has them: `epoch` (from 1; where it is
    absent, the place in the list), `train_loss` (dashed), `validation_loss`, and for each of `validation_auroc` and
    `validation_accuracy` that is there a panel of its own (else one of `score`). What is absent, NaN or infinite is
    left out of its line.
    """
    panels = [_panel(histories, LOSSES, "loss")]
    scored = [key for key in SCORES if any(_points(records, key) for records in histories.values())]
    panels += [_panel(histories, {key: ""}, SCORES[key]) for key in scored]
    if not scored:
        panels.append(_panel(histories, {"score": ""}, "validation score"))
    names = [(name, f"series s{index % COLOURS}") for index, name in enumerate(histories)]
    return beside(
        panels, names, f"learning curves of {', '.join(histories)}", "loss: dashed training, solid validation"
    )


def fusion_weights(history: Sequence[Record]) -> Markup:
    """The share of each member in a fused network by epoch: every `weight_<member>` of one training's records."""
    keys = list(dict.fromkeys(key for record in history for key in record if key.startswith(WEIGHT)))
    lines = {key.removeprefix(WEIGHT): _points(history, key) for key in keys}
    names = [(name, f"series s{index % COLOURS}") for index, name in enumerate(lines)]
    series = [(points, kind) for points, (_, kind) in zip(lines.values(), names, strict=True)]
    return beside([_drawn(series, "weight", (0.0, 1.0))], names, f"fusion weights of {', '.join(lines)}")


def _panel(histories: Mapping[str, Sequence[Record]], keys: Mapping[str, str], name: str) -> Markup:
    series = [
        (_points(records, key), f"series s{index % COLOURS} {extra}".rstrip())
        for index, records in enumerate(histories.values())
        for key, extra in keys.items()
    ]
    return _drawn(series, name)


def _points(records: Sequence[Record], key: str) -> Points:
    pairs = [(float(record.get("epoch", place)), record.get(key)) for place, record in enumerate(records, start=1)]
    return [(epoch, float(value)) for epoch, value in pairs if value is not None and math.isfinite(value)]


def _drawn(series: Sequence[tuple[Points, str]], name: str, least: tuple[float, ...] = ()) -> Markup:
    """Lines over the epochs, in a frame that holds them all and the values of `least`."""
    last = max((epoch for points, _ in series for epoch, _ in points), default=2.0)
    values = [value for points, _ in series for _, value in points]
    low, high = _range([*values, *least])
    span = max(1.0, last - 1)
    parts = []
    for points, kind in series:
        xs = [(epoch - 1) / span for epoch, _ in points]
        ys = [(value - low) / (high - low) for _, value in points]
        parts.append(line(xs, ys, kind))
        if len(points) == 1:
            parts.append(dot(xs[0], ys[0], 2.2, kind.split()[1], f"{name} {points[0][1]:.4g}"))
    return axes("epoch", name, parts, _epochs(last), ticks(low, high))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the smallest to the largest value, and some room where they are one."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.5 * abs(low) or 0.5
    return (low, high) if high > low else (low - room, high + room)


def _epochs(last: float) -> Ticks:
    step = max(1, round(last / 6))
    shown = sorted({1, *range(step, int(last) + 1, step)})
    near = [epoch for epoch in shown if epoch == 1 or epoch - 1 >= step / 2]
    return [((epoch - 1) / max(1.0, last - 1), str(epoch)) for epoch in near]

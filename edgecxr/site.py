"""Thresholds of a site, from the scores of its own confirmed films: how many it takes, and what is no threshold."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecxr.decision import OperatingRule, derive_operating_point
from edgecxr.errors import StatisticsError
from edgecxr.scores import columns
from edgecxr.spec import Head, OperatingPoint, Precision

__all__ = ["LEAST", "site_points", "swapped_points"]

LEAST = 10  # films of each kind: of fewer, no share is worth a threshold


def site_points(
    heads: Sequence[Head],
    scores: NDArray[np.float64],
    labels: NDArray[np.float32],
    rule: OperatingRule,
    *,
    precision: Precision,
    engine: str,
) -> list[OperatingPoint]:
    """The threshold of every finding, on the films that are labelled for it.

    `scores` (N, C) calibrated, as this precision on this engine gave them; `labels` (N, C) 0, 1 or NaN (unknown).
    Raises StatisticsError where films are too few for the rule, and where what it gives is no better than chance.
    """
    found = []
    for head, part in zip(heads, columns(heads), strict=True):
        for name, column in zip(head.classes, range(part.start, part.stop), strict=True):
            if name == head.reference:
                continue
            known = ~np.isnan(labels[:, column])
            truth = labels[known, column]
            _check_count(name, truth, rule)
            point = derive_operating_point(
                name, scores[known, column], truth, rule, precision=precision, engine=engine, films="films of the site"
            )
            _check_worth(point)
            found.append(point)
    return found


def swapped_points(before: Sequence[OperatingPoint], after: Sequence[OperatingPoint]) -> list[str]:
    """A sentence for each two points of a finding whose thresholds have changed places: the stricter is now the other.

    Points that have one threshold on either side of the change have not.
    """
    was = _ordered(before)
    found: dict[tuple[str, str, str], list[str]] = {}
    for finding, origin, lower, higher in _ordered(after):
        if (finding, origin, higher, lower) in was:
            found.setdefault((finding, lower, higher), []).append(origin)
    return [
        f"{finding}: the threshold of {higher} lies above that of {lower} now, and was below it before "
        f"({', '.join(origins)})"
        for (finding, lower, higher), origins in found.items()
    ]


def _ordered(points: Sequence[OperatingPoint]) -> dict[tuple[str, str, str, str], None]:
    """Finding, precision and engine, and the names of each two points there, the lower threshold first."""
    return {
        (a.finding, f"{a.precision} on {a.engine}", a.name, b.name): None
        for a in points
        for b in points
        if (a.finding, a.precision, a.engine) == (b.finding, b.precision, b.engine) and a.threshold < b.threshold
    }


def _check_count(finding: str, truth: NDArray[np.floating], rule: OperatingRule) -> None:
    """98 % of 20 films is all of them: the rule would say nothing."""
    of_sick = rule.sensitivity is not None
    target = rule.sensitivity if rule.sensitivity is not None else rule.specificity or 0.0
    wanted = max(LEAST, math.ceil(round(1 / (1 - target), 6)))
    number = int((truth == (1 if of_sick else 0)).sum())
    other = len(truth) - number
    if number < wanted or other < LEAST:
        kind, rest = ("positive", "negative") if of_sick else ("negative", "positive")
        raise StatisticsError(
            f"{finding}: {number} {kind} and {other} {rest} films; {rule} wants at least {wanted} {kind} and {LEAST} "
            f"{rest} ones that the bundle does not refuse"
        )


def _check_worth(point: OperatingPoint) -> None:
    """Of labels that were swapped, or of a model that does not know these films, comes a threshold all the same."""
    if point.sensitivity + point.specificity <= 1:
        raise StatisticsError(
            f"{point.finding}: {point.rule} has sensitivity {point.sensitivity:.3f} and specificity "
            f"{point.specificity:.3f} with {point.precision} on {point.engine}, no better than chance; look whether "
            "the labels are right, and evaluate the bundle on these films"
        )

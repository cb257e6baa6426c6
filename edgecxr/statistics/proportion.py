"""Proportions: sensitivity, specificity, accuracy, flip rates, and paired differences of them.

Wilson, JASA 22 (1927); Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17 (1998).
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from edgecxr.errors import StatisticsError
from edgecxr.statistics.interval import Interval, normal_quantile
from edgecxr.statistics.sample import binary_labels, finite_scores

__all__ = ["films_needed", "paired_difference", "sensitivity", "specificity", "wilson"]


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Score interval of `successes` out of `n`; never empty and never outside [0, 1], also at 0 and at n."""
    if not 0 <= successes <= n or n == 0:
        raise StatisticsError(f"{successes} of {n} films is not a proportion")
    z = normal_quantile(level)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - reach)
    high = 1.0 if successes == n else min(1.0, centre + reach)
    return Interval(share, low, high, level)


def sensitivity(labels: ArrayLike, scores: ArrayLike, threshold: float, *, level: float = 0.95) -> Interval:
    """Share of the positive films that score at or above `threshold`, with its Wilson interval."""
    truth = binary_labels(labels)
    called = finite_scores(scores, len(truth)) >= threshold
    if not truth.any():
        raise StatisticsError(f"sensitivity needs positive films: 0 of {len(truth)} are")
    return wilson(int(called[truth].sum()), int(truth.sum()), level=level)


def specificity(labels: ArrayLike, scores: ArrayLike, threshold: float, *, level: float = 0.95) -> Interval:
    """Share of the negative films that score below `threshold`, with its Wilson interval."""
    truth = binary_labels(labels)
    called = finite_scores(scores, len(truth)) >= threshold
    if truth.all():
        raise StatisticsError(f"specificity needs negative films: 0 of {len(truth)} are")
    return wilson(int((~called[~truth]).sum()), int((~truth).sum()), level=level)


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Interval:
    """Share of successes of b minus that of a, on the same films (N,), with Tango's score interval.

    Unlike the bootstrap and the Wald interval it does not shrink to [0, 0] when no film changed: it then says
    ±z²/(n + z²), which is what n unchanged films can show.
    """
    first, second = binary_labels(a), binary_labels(b)
    if first.shape != second.shape or len(first) == 0:
        raise StatisticsError(f"paired samples of {len(first)} and {len(second)} films")
    n, gained, lost = len(first), int((second & ~first).sum()), int((first & ~second).sum())
    value, z = (gained - lost) / n, normal_quantile(level)

    def excess(delta: float, sign: int) -> float:
        return sign * _tango_score(n, gained, lost, delta) - z

    edge = 1 - 1e-12
    low = float(brentq(excess, -edge, value, args=(1,), xtol=1e-10)) if value > -edge else -1.0
    high = float(brentq(excess, value, edge, args=(-1,), xtol=1e-10)) if value < edge else 1.0
    return Interval(value, low, high, level)


def films_needed(margin: float, *, level: float = 0.95) -> int:
    """The fewest paired films that can show a loss below `margin`, when not one of them changes (Tango)."""
    z = normal_quantile(level)
    return math.ceil(z * z * (1 - margin) / margin)


def _tango_score(n: int, gained: int, lost: int, delta: float) -> float:
    """Standardised distance of the observed difference from `delta` (Tango 1998, eqs. 5 to 8)."""
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # restricted maximum-likelihood share of lost
    variance = n * (2 * share + delta * (1 - delta))
    distance = gained - lost - n * delta
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return float(distance / np.sqrt(variance))

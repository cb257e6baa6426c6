"""Area under the ROC curve, its confidence interval, and the difference between two models on the same films.

DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic
curves", Biometrics 44 (1988); computed from midranks after Sun and Xu, IEEE Signal Processing Letters 21 (2014).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr
from scipy.stats import rankdata

from edgecxr.statistics.interval import Interval, normal_quantile
from edgecxr.statistics.proportion import paired_difference, wilson
from edgecxr.statistics.sample import binary_labels, finite_scores, need_both

__all__ = ["Difference", "auroc", "delong", "delong_difference", "weighted_auroc"]


@dataclass(frozen=True)
class Difference:
    """AUROC of b minus AUROC of a, on the same films, with the two-sided p-value of "they are equal"."""

    interval: Interval
    p_value: float


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a positive film scores above a negative one, ties counting half (Mann-Whitney).

    `labels` (N,) 0/1 or bool, `scores` (N,) finite, higher is more positive. Raises StatisticsError with the counts
    when a class is absent.
    """
    truth = binary_labels(labels)
    values = finite_scores(scores, len(truth))
    positives, negatives = need_both(truth)
    ranks = rankdata(values)[truth].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def delong(labels: ArrayLike, scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """AUROC with DeLong's variance on the logit scale (Pepe 2003, 5.2.2), so the interval stays inside [0, 1].

    Scores that separate the classes without error have a DeLong variance of zero, which says nothing about the next
    film; there the Wilson interval of min(positives, negatives) correct out of as many is given instead.
    Raises StatisticsError below two films of either class.
    """
    truth = binary_labels(labels)
    values = finite_scores(scores, len(truth))
    counts = need_both(truth, least=2)
    up, down = _placements(truth, values)
    area = float(up.mean())
    if area in (0.0, 1.0):
        few = min(counts)
        return wilson(few if area else 0, few, level=level)
    error = np.sqrt(_variance(up, down)) / (area * (1 - area))
    reach = normal_quantile(level) * error
    return Interval(area, float(expit(logit(area) - reach)), float(expit(logit(area) + reach)), level)


def delong_difference(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, *, level: float = 0.95
) -> Difference:
    """AUROC(b) - AUROC(a) on the same films: DeLong's paired variance, plain normal interval cut to [-1, 1].

    Two models that rank every pair of films alike have difference 0, interval [0, 0] and p = 1. Two that rank them
    differently, and both separate the classes without error, are not alike on the next film: there the interval is what
    Tango's gives when none of min(positives, negatives) films changes. Raises StatisticsError below two films of either
    class.
    """
    truth = binary_labels(labels)
    counts = need_both(truth, least=2)
    a, b = (finite_scores(scores, len(truth)) for scores in (scores_a, scores_b))
    (up_a, down_a), (up_b, down_b) = _placements(truth, a), _placements(truth, b)
    value = float(up_b.mean() - up_a.mean())
    error = float(np.sqrt(_variance(up_b - up_a, down_b - down_a)))
    reach = normal_quantile(level) * error
    alike = np.array_equal(rankdata(a), rankdata(b))
    if up_a.mean() == up_b.mean() and up_a.mean() in (0.0, 1.0) and not alike:
        nothing_lost = np.ones(min(counts), bool)
        reach = paired_difference(nothing_lost, nothing_lost, level=level).high
    interval = Interval(value, max(-1.0, value - reach), min(1.0, value + reach), level)
    return Difference(interval, float(2 * ndtr(-abs(value) / error)) if error > 0 else float(value == 0))


def weighted_auroc(
    labels: NDArray[np.floating], scores: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(B,) AUROCs, one per row of film counts `weights` (B, N): the resamples of a bootstrap, sorted only once.

    Films with a NaN label take no part. A row without positives or without negatives gives NaN.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # first film of each distinct score
    rows = weights[:, order]
    up = np.add.reduceat(rows * (labels[order] == 1), starts, axis=1)
    down = np.add.reduceat(rows * (labels[order] == 0), starts, axis=1)
    wins = (up * (np.cumsum(down, axis=1) - down / 2)).sum(axis=1)
    pairs = up.sum(axis=1) * down.sum(axis=1)
    return np.asarray(np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0))


def _placements(
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(P,) share of negatives below each positive, (Q,) share of positives above each negative; ties count half."""
    together = rankdata(scores)
    up, down = scores[truth], scores[~truth]
    below = (together[truth] - rankdata(up)) / len(down)
    above = 1 - (together[~truth] - rankdata(down)) / len(up)
    return below, above


def _variance(up: NDArray[np.float64], down: NDArray[np.float64]) -> float:
    """DeLong's variance of a mean placement (or of a difference of two, given differences of placements)."""
    return float(up.var(ddof=1) / len(up) + down.var(ddof=1) / len(down))

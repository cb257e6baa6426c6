"""Sensitivity where the specificity is chosen, and the other way round: the threshold is set on the films themselves.

The interval is the stratified bootstrap's over films, threshold included (Robin et al., "pROC", BMC Bioinformatics 12
(2011)), and never narrower than Wilson's for that many films: with few films or none wrong a bootstrap says too little.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.statistics.bootstrap import paired_bootstrap
from edgecxr.statistics.interval import Interval
from edgecxr.statistics.proportion import wilson
from edgecxr.statistics.sample import binary_labels, finite_scores, need_both

__all__ = ["ChosenRate", "sensitivity_at", "specificity_at"]

SLACK = 1e-9  # rates are compared as shares of films, not as floats


@dataclass(frozen=True)
class ChosenRate:
    """A rate with its interval, and the threshold (positive at or above it) where the other rate is as chosen."""

    interval: Interval
    threshold: float


def sensitivity_at(
    labels: ArrayLike, scores: ArrayLike, specificity: float, *, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> ChosenRate:
    """The largest sensitivity at a specificity of at least `specificity`.

    `labels` (N,) 0/1 or bool, `scores` (N,) finite. The threshold is infinite where only calling nothing positive is
    specific enough. Raises StatisticsError when a class is absent.
    """
    truth = binary_labels(labels)
    values = finite_scores(scores, len(truth))
    positives, _ = need_both(truth)
    found, threshold = _best(truth, values, specificity)
    return ChosenRate(_interval(truth, values, specificity, (found, positives), level, samples, seed), threshold)


def specificity_at(
    labels: ArrayLike, scores: ArrayLike, sensitivity: float, *, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> ChosenRate:
    """The largest specificity at a sensitivity of at least `sensitivity`; as `sensitivity_at`, which is its mirror."""
    truth = binary_labels(labels)
    values = finite_scores(scores, len(truth))
    _, negatives = need_both(truth)
    cleared, last = _best(~truth, -values, sensitivity)
    interval = _interval(~truth, -values, sensitivity, (cleared, negatives), level, samples, seed)
    above = values[values > -last]
    return ChosenRate(interval, float(above.min(initial=np.inf)))


def _best(truth: NDArray[np.bool_], scores: NDArray[np.float64], wanted: float) -> tuple[int, float]:
    """How many positives are found where at least `wanted` of the negatives are not, and from which score on."""
    cuts = np.unique(scores)[::-1]
    kept = np.searchsorted(np.sort(scores[~truth]), cuts) / (~truth).sum() >= wanted - SLACK
    if not kept.any():
        return 0, float("inf")
    threshold = cuts[kept][-1]
    return int((scores[truth] >= threshold).sum()), float(threshold)


def _interval(
    truth: NDArray[np.bool_],
    scores: NDArray[np.float64],
    wanted: float,
    count: tuple[int, int],
    level: float,
    samples: int,
    seed: int,
) -> Interval:
    def statistic(
        weights: NDArray[np.float64], labels: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return _weighted(weights, labels, values, wanted)

    drawn = paired_bootstrap(statistic, truth, scores, strata=truth, samples=samples, seed=seed, level=level)
    exact = wilson(*count, level=level)
    return Interval(exact.value, min(drawn.low, exact.low), max(drawn.high, exact.high), level)


def _weighted(
    weights: NDArray[np.float64], labels: NDArray[np.bool_], scores: NDArray[np.float64], wanted: float
) -> NDArray[np.float64]:
    """(B,) the rate under film counts (B, N)."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    rows = weights[:, order]
    found = np.cumsum(np.add.reduceat(rows * labels[order], starts, axis=1), axis=1)
    alarms = np.cumsum(np.add.reduceat(rows * ~labels[order], starts, axis=1), axis=1)
    fits = (1 - alarms / alarms[:, -1:] >= wanted - SLACK).sum(axis=1)  # alarms only grow: the first ones fit
    best = found[np.arange(len(rows)), np.maximum(fits - 1, 0)] / found[:, -1]
    return np.where(fits > 0, best, 0.0)

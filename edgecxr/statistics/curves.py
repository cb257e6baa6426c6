"""Curves and tables that a report draws: ROC, precision-recall, reliability, confusion."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.errors import StatisticsError
from edgecxr.statistics.calibration import BINS, equal_mass_bins
from edgecxr.statistics.interval import Interval
from edgecxr.statistics.proportion import wilson
from edgecxr.statistics.sample import binary_labels, finite_scores, need_both

__all__ = [
    "Bin",
    "average_precision",
    "confusion",
    "precision_recall",
    "reliability",
    "roc",
    "thin",
    "weighted_average_precision",
]

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram."""

    count: int
    mean_probability: float
    observed: Interval  # share of positives, Wilson


def roc(labels: ArrayLike, scores: ArrayLike) -> Curve:
    """(false-positive rate, sensitivity), both (K,), from (0, 0) to (1, 1)."""
    truth = binary_labels(labels)
    values = finite_scores(scores, len(truth))
    need_both(truth)
    from sklearn.metrics import roc_curve  # a second to import; screening never draws a curve

    false_positive, true_positive, _ = roc_curve(truth, values)
    return np.asarray(false_positive), np.asarray(true_positive)


def precision_recall(labels: ArrayLike, scores: ArrayLike) -> Curve:
    """(recall, precision), both (K,), recall rising from 0 to 1."""
    truth = binary_labels(labels)
    values = finite_scores(scores, len(truth))
    need_both(truth)
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, values)
    return np.asarray(recall)[::-1], np.asarray(precision)[::-1]


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Sum over distinct scores of (gain in recall) times precision; no interpolation."""
    truth = binary_labels(labels)
    values = finite_scores(scores, len(truth))
    need_both(truth)
    return float(weighted_average_precision(np.ones((1, len(truth))), truth, values)[0])


def weighted_average_precision(
    weights: NDArray[np.float64], labels: NDArray[np.bool_], scores: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(B,) average precisions under film counts (B, N); NaN where no positive film was drawn."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    rows = weights[:, order]
    hits = np.add.reduceat(rows * labels[order], starts, axis=1)
    found = np.cumsum(hits, axis=1)
    called = np.cumsum(np.add.reduceat(rows, starts, axis=1), axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    total = found[:, -1]
    return np.asarray(
        np.divide((hits * precision).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    )


def thin(curve: Curve, points: int = 200) -> Curve:
    """At most `points` vertices of a curve, evenly spaced, ends kept: for drawing, not for measuring."""
    x, y = curve
    if len(x) <= points:
        return curve
    keep = np.linspace(0, len(x) - 1, points).round().astype(int)
    return x[keep], y[keep]


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Equal-mass bins by rising probability: what was said and what was seen (the bins of `calibration.ece`)."""
    truth = binary_labels(labels)
    values = finite_scores(probabilities, len(truth))
    if len(truth) == 0:
        raise StatisticsError("a reliability diagram of 0 films")
    order, starts = equal_mass_bins(values, bins)
    return [
        Bin(len(films), float(values[films].mean()), wilson(int(truth[films].sum()), len(films)))
        for films in np.split(order, starts[1:])
    ]


def confusion(targets: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """(K, K) film counts, rows the truth, columns the prediction; both inputs (N,) in 0 … K-1."""
    truth, answer = np.asarray(targets, np.int64), np.asarray(predicted, np.int64)
    both = np.concatenate([truth, answer])
    if truth.shape != answer.shape or (len(both) and not 0 <= both.min() <= both.max() < classes):
        raise StatisticsError(f"a confusion matrix of {classes} classes needs pairs of 0 … {classes - 1}, no -1")
    return np.bincount(truth * classes + answer, minlength=classes**2).reshape(classes, classes)

"""Whether a probability means what it says: temperature, calibration error, Brier score.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Nixon et al., "Measuring Calibration in Deep
Learning", CVPR workshops 2019 (equal-mass bins).
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from edgecxr.errors import StatisticsError
from edgecxr.spec import TEMPERATURES
from edgecxr.statistics.bootstrap import CHUNK, paired_bootstrap, weighted_mean
from edgecxr.statistics.interval import Interval
from edgecxr.statistics.sample import binary_labels, finite_scores

__all__ = [
    "BINS",
    "brier",
    "ece",
    "ece_change",
    "ece_interval",
    "equal_mass_bins",
    "fit_temperature",
    "weighted_ece",
]

BINS = 15


def fit_temperature(logits: ArrayLike, targets: ArrayLike, kind: Literal["softmax", "sigmoid"]) -> float:
    """The temperature T > 0 for which ``logits / T`` has the smallest negative log-likelihood.

    `logits` is (N, K). For `softmax`, `targets` is (N,) int with -1 for a film without a label; for `sigmoid` it is
    (N, K) in {0, 1} with NaN for unknown. A weak prior, ln T ~ N(0, 1), worth less than one film, is added: on films
    that are separated without error the likelihood alone would run to T = 0 and round every probability to 0 or 1.
    """
    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise StatisticsError(f"logits of shape {values.shape} must be (N, K) and finite")
    loss = _softmax_loss if kind == "softmax" else _sigmoid_loss
    truth = np.asarray(targets)
    loss(values, truth)  # its checks, before the search

    def objective(log_temperature: float) -> float:
        return loss(values / np.exp(log_temperature), truth) + log_temperature**2 / 2

    return float(
        np.exp(minimize_scalar(objective, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6}).x)
    )


def ece(probabilities: ArrayLike, targets: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error over `bins` equal-mass bins: mean over films of |mean probability - share positive|.

    `probabilities` (N,) in [0, 1] of one class, `targets` (N,) 0/1; or top-label confidence and whether it was right.
    """
    truth = binary_labels(targets)
    values = finite_scores(probabilities, len(truth))
    if len(truth) == 0:
        raise StatisticsError("a calibration error of 0 films")
    return float(weighted_ece(np.ones((1, len(truth))), values, truth, bins)[0])


def equal_mass_bins(probabilities: NDArray[np.floating], bins: int = BINS) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(order (N,), starts (min(bins, N),)): films by rising probability, and where each bin begins."""
    films = len(probabilities)
    used = min(bins, films)
    return np.argsort(probabilities, kind="stable"), np.arange(used) * films // used


def weighted_ece(
    weights: NDArray[np.float64], probabilities: NDArray[np.floating], targets: NDArray[np.bool_], bins: int = BINS
) -> NDArray[np.float64]:
    """(B,) calibration errors under film counts (B, N); the bins are those of the films as given."""
    order, starts = equal_mass_bins(probabilities, bins)
    gaps = weights[:, order] * (probabilities - targets)[order]
    return np.asarray(np.abs(np.add.reduceat(gaps, starts, axis=1)).sum(axis=1) / weights.sum(axis=1))


def ece_interval(
    probabilities: ArrayLike, targets: ArrayLike, *, samples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """`ece` with an interval for the calibration error of the population.

    An ECE is never below 0, so chance alone raises it, and resampling raises it once more. The basic bootstrap takes
    that back out; its lower end is 0 where labels drawn from the probabilities themselves reach the value as well
    (consistency resampling, Bröcker and Smith, Weather and Forecasting 22, 2007).
    """
    truth = binary_labels(targets)
    values = finite_scores(probabilities, len(truth))
    found = paired_bootstrap(weighted_ece, values, truth, samples=samples, seed=seed, level=level, kind="basic")
    by_chance = np.quantile(_ece_when_calibrated(values, samples, seed), 0.5 + level / 2)
    low = 0.0 if found.value <= by_chance else max(0.0, found.low)
    return Interval(found.value, min(low, found.value), max(found.high, found.value), level)


def ece_change(
    reference: ArrayLike,
    candidate: ArrayLike,
    targets: ArrayLike,
    *,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """ECE of the candidate minus that of the reference, (N,) probabilities of the same films.

    Not a bootstrap of the difference: chance raises the smaller of two errors more, so that a real loss looks smaller
    than it is. Each limit is the nearer one of two that hold:

    - a calibration error moves by at most what the probabilities move, in the mean over films, unless the moves
      themselves tell the label; their mean is known well, whatever the labels are;
    - it is at most the upper limit of the one error minus the lower limit of the other (`ece_interval`).
    """
    truth = binary_labels(targets)
    first, second = (finite_scores(side, len(truth)) for side in (reference, candidate))
    options = {"samples": samples, "seed": seed, "level": level}
    moved = paired_bootstrap(weighted_mean, np.abs(second - first), **options).high  # type: ignore[arg-type]
    one, other = (ece_interval(side, truth, **options) for side in (first, second))  # type: ignore[arg-type]
    value = other.value - one.value
    low, high = max(-moved, other.low - one.high), min(moved, other.high - one.low)
    return Interval(value, min(value, low), max(value, high), level)


def _ece_when_calibrated(probabilities: NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    """(samples,) calibration errors of labels that are drawn from the probabilities themselves."""
    generator = np.random.default_rng(seed)
    order, starts = equal_mass_bins(probabilities)
    rising, found = probabilities[order], []
    for start in range(0, samples, step := max(1, CHUNK // len(rising))):
        drawn = generator.random((min(step, samples - start), len(rising))) < rising
        found.append(np.abs(np.add.reduceat(rising - drawn, starts, axis=1)).sum(axis=1) / len(rising))
    return np.concatenate(found)


def brier(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Mean squared distance of probability and truth, both (N,): 0 is perfect (Brier 1950)."""
    truth = binary_labels(targets)
    return float(np.mean((finite_scores(probabilities, len(truth)) - truth) ** 2))


def _softmax_loss(logits: NDArray[np.float64], targets: NDArray[np.integer]) -> float:
    known = targets >= 0
    if targets.shape != logits.shape[:1] or not known.any() or targets.max() >= logits.shape[1]:
        raise StatisticsError(
            f"{int(known.sum())} labelled films of {targets.shape} for softmax logits {logits.shape}: "
            "want one class index per film, -1 for unlabelled, at least one labelled"
        )
    return float(-log_softmax(logits[known], axis=1)[np.arange(known.sum()), targets[known]].sum())


def _sigmoid_loss(logits: NDArray[np.float64], targets: NDArray[np.floating]) -> float:
    known = ~np.isnan(targets)
    if targets.shape != logits.shape or not known.any():
        raise StatisticsError(
            f"{int(known.sum())} known labels of {targets.shape} for sigmoid logits {logits.shape}: "
            "want the same shape, NaN for unknown, at least one known"
        )
    return float(np.logaddexp(0, np.where(targets == 1, -logits, logits)[known]).sum())

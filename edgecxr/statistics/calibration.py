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
from edgecxr.statistics.sample import binary_labels, finite_scores

__all__ = ["BINS", "brier", "ece", "equal_mass_bins", "fit_temperature", "weighted_ece"]

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

"""The checks that every statistic shares: what a sample must be before a figure is computed from it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.errors import StatisticsError

__all__ = ["binary_labels", "finite_scores", "need_both"]


def binary_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """(N,) booleans from booleans or from 0 and 1; anything else (NaN, -1 …) is refused, not guessed at."""
    values: NDArray[Any] = np.asarray(labels)
    if values.ndim != 1:
        raise StatisticsError(f"labels have shape {values.shape}, not (N,)")
    if not np.isin(values, (0, 1)).all():
        raise StatisticsError("labels are not all 0 or 1: leave out the films whose label is unknown")
    return values.astype(bool)


def finite_scores(scores: ArrayLike, films: int) -> NDArray[np.float64]:
    """(N,) finite float64 scores, one for each of `films`."""
    values = np.asarray(scores, np.float64)
    if values.shape != (films,):
        raise StatisticsError(f"scores have shape {values.shape}, but there are {films} labels")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise StatisticsError(f"{bad} of {films} scores are NaN or infinite")
    return values


def need_both(labels: NDArray[np.bool_], least: int = 1) -> tuple[int, int]:
    """(positives, negatives); raises StatisticsError when there are fewer than `least` of either."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if min(positives, negatives) < least:
        raise StatisticsError(
            f"{positives} positive and {negatives} negative films: at least {least} of each is needed"
        )
    return positives, negatives

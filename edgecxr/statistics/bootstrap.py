"""The bootstrap over films: paired, stratified, vectorised (Efron and Tibshirani 1993; Davison and Hinkley 1997)."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.errors import StatisticsError
from edgecxr.statistics.interval import Interval

__all__ = ["paired_bootstrap", "weighted_mean", "weighted_median"]

Statistic = Callable[..., NDArray[np.float64]]
CHUNK = 4_000_000  # counts held at once: 32 MB


def paired_bootstrap(
    statistic: Statistic,
    *arrays: NDArray[Any],
    strata: ArrayLike | None = None,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    kind: Literal["percentile", "basic"] = "percentile",
) -> Interval:
    """Interval of ``statistic(weights, *arrays)`` over resamples of the films.

    `arrays` are (N, …), one row per film; every resample draws whole films, so that what belongs to one film stays
    together (that is the pairing). `weights` is (B, N) float64: how often each film was drawn in each of B resamples;
    the statistic returns (B,). Within each value of `strata` (N,) the number of films is kept. Resamples whose
    statistic is NaN (a class that was not drawn) are left out; if more than a tenth are, StatisticsError is raised.

    `kind` is the percentile interval, or the basic one (twice the estimate minus the percentiles) for statistics that
    resampling biases, such as a calibration error.
    """
    films = _length(arrays)
    groups = np.zeros(films, np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    value = float(statistic(np.ones((1, films)), *arrays)[0])
    drawn = np.concatenate([statistic(counts, *arrays) for counts in _counts(groups, samples, seed)])
    kept = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(kept) < 0.9 * samples:
        raise StatisticsError(f"too few films: {samples - len(kept)} of {samples} resamples of {films} lack a class")
    low, high = np.quantile(kept, (0.5 - level / 2, 0.5 + level / 2))
    if kind == "basic":
        low, high = 2 * value - high, 2 * value - low
    return Interval(value, float(low), float(high), level)


def weighted_mean(weights: NDArray[np.float64], values: NDArray[Any]) -> NDArray[np.float64]:
    """(B,) means of `values` (N,) under counts (B, N)."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def weighted_median(weights: NDArray[np.float64], values: NDArray[Any]) -> NDArray[np.float64]:
    """(B,) medians of `values` (N,) under counts (B, N); the lower one of two middle films."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    middle = (reached >= reached[:, -1:] / 2).argmax(axis=1)
    return np.asarray(values[order][middle], np.float64)


def _length(arrays: tuple[NDArray[Any], ...]) -> int:
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise StatisticsError(f"the arrays of a paired bootstrap have {sorted(lengths)} films")
    return lengths.pop()


def _counts(groups: NDArray[np.int64], samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Chunks of (B, N) film counts; each row keeps the size of every group."""
    generator = np.random.default_rng(seed)
    films = len(groups)
    members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    for start in range(0, samples, step := max(1, CHUNK // films)):
        rows = min(step, samples - start)
        counts = np.empty((rows, films))
        for member in members:
            size = len(member)
            picks = generator.integers(size, size=(rows, size)) + np.arange(rows)[:, None] * size
            counts[:, member] = np.bincount(picks.ravel(), minlength=rows * size).reshape(rows, size)
        yield counts

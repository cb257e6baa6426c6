"""Who belongs together, and into which fold they go."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["assign_folds", "joined"]


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.intp]:
    """(count,) the number of the group that each item is in, when the two of every pair are in one."""
    edges = np.array(list(pairs), np.intp).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def assign_folds(
    groups: NDArray[np.intp], classes: NDArray[np.bool_], kept: NDArray[np.intp], folds: int, seed: int
) -> NDArray[np.intp]:
    """(N,) a fold for each film, the same for all films of a group.

    `classes` (N, K) says which classes each film counts for; `kept` (N,) has the fold of films that bring their own,
    else -1. The other groups go one after another, those that weigh most in any class first and equals in the
    order of `seed`, to the fold where the squares of the class counts grow least: the rule of scikit-learn's
    StratifiedGroupKFold with the variance in place of the deviation, and with several classes for a film.
    """
    size = int(groups.max(initial=-1)) + 1
    counts = np.zeros((size, classes.shape[1] + 1))
    np.add.at(counts, groups, np.column_stack([classes, np.ones(len(groups))]))
    weights = 1 / np.maximum(1, counts.sum(axis=0))
    given = np.full(size, -1, np.intp)
    given[groups[kept >= 0]] = kept[kept >= 0]
    filled = np.zeros((folds, counts.shape[1]))
    np.add.at(filled, given[given >= 0], counts[given >= 0])
    free = np.random.default_rng(seed).permutation(np.flatnonzero(given < 0))
    for group in free[np.argsort(-(counts[free] * weights).max(axis=1), kind="stable")]:
        growth = filled @ (counts[group] * weights**2)
        given[group] = np.lexsort((filled[:, -1], growth))[0]
        filled[given[group]] += counts[group]
    return np.asarray(given[groups])

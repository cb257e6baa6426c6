"""Embeddings laid out in a plane, so that films that the network sees alike lie together."""

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import StatisticsError

__all__ = ["PERPLEXITY", "tsne"]

PERPLEXITY = 30.0
FEWEST = 10  # films that a picture of neighbours says anything of


def tsne(embeddings: NDArray[np.floating], *, seed: int = 0) -> tuple[NDArray[np.float64], float]:
    """((N, 2) places, the perplexity used) of (N, D) embeddings, each dimension scaled to variance 1 before.

    t-SNE (van der Maaten and Hinton, JMLR 9 (2008)) from the principal axes; the perplexity is PERPLEXITY, less for
    few films. Distances between far groups mean nothing, and neither do axes. Raises StatisticsError below 10 films.
    """
    films = len(embeddings)
    if films < FEWEST:
        raise StatisticsError(f"a map of {films} films: at least {FEWEST} are needed")
    from sklearn.manifold import TSNE  # a second to import

    values = np.asarray(embeddings, np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    perplexity = min(PERPLEXITY, (films - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(layout.fit_transform(values), np.float64), perplexity

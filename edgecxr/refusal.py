"""Films that the network has never seen the like of: refused, because the score of a hand means nothing.

Pooled ReLU features are mapped to the Hellinger sphere, sqrt(x / sum x) (RootSIFT, Arandjelovic and Zisserman, CVPR
2012), so that pictures which excite little or everything are not mistaken for the middle of the training films. There
two distances are taken, and the larger one counts:

- Mahalanobis distance from the training films under probabilistic PCA (Tipping and Bishop, J. R. Statist. Soc. B 61,
  1999): k principal directions keep their own variance and all others share one, so that an unusual mixture of known
  features and a feature outside their span (the residual of ViM, Wang et al., CVPR 2022) both count;
- where misfits were given (outlier exposure, Hendrycks et al., ICLR 2019), the log-odds of a logistic regression of
  misfits against training films: it knows a film upside down, which the first distance hardly does.

Only moments and weights are kept, no film's own embedding. What the gate refused and let through when it was measured
is in `docs/statistics.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.errors import EngineError, Refusal, RefusalReason, StatisticsError

__all__ = ["FEWEST", "EmbeddingGate"]

FEWEST = 20  # films of either kind that a gate is fitted to

DIRECTIONS = 100  # most principal directions kept: 100 × 1280 float32 is 0.5 MB
PENALTY = 1.0  # inverse strength of the logistic regression's L2 penalty, on features of unit mean variance


@dataclass(frozen=True)
class EmbeddingGate:
    """Refuses a film whose distance is above 1. Made by `fit`, stored as `to_arrays`.

    Of real frontal chest films like those of its validation set about 1 - quantile (0.5 %) are refused, fewer with
    slack. A film that is accepted is not thereby a frontal chest film: the gate knows only what the features can tell.
    """

    threshold: ClassVar[float] = 1.0  # largest distance that is accepted: distances are in units of the limit

    mean: NDArray[np.float32]  # (D,) of the mapped training films
    basis: NDArray[np.float32]  # (K, D) orthonormal rows: the principal directions
    spread: NDArray[np.float32]  # (K + 1,) > 0: standard deviation along each, then along every other direction
    weights: NDArray[np.float32]  # (D + 1,) of the log-odds, then its offset; all zero without misfits

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        *,
        validation: ArrayLike,
        misfits: ArrayLike | None = None,
        variants: ArrayLike | None = None,
        quantile: float = 0.995,
        slack: float = 1.05,
    ) -> "EmbeddingGate":
        """From `embeddings` (N, D) of training films and of `validation` films (M, D), none of them trained on.

        `misfits` (any, D) are embeddings of pictures that must be refused, `variants` (any, D) those of altered films
        that must not (`edgecxr.export.misfits` makes both); without misfits only the first distance is taken.
        Each limit is `slack` times the conformal quantile of the validation distances, the ceil((M + 1) * quantile)-th
        smallest, or the largest where M is too small (below 199 films at 0.995); with two distances each has half of
        1 - quantile. Before slack, a further film like them is refused with a probability of at most
        max(1 - quantile, 2 / (M + 1)). Raises StatisticsError on fewer than `FEWEST` films of either, or NaN.
        """
        train, held = _mapped(embeddings, "training"), _mapped(validation, "validation")
        if train.shape[1] != held.shape[1] or not 0 < quantile < 1 or slack < 1:
            raise StatisticsError(
                f"training {train.shape}, validation {held.shape}, quantile {quantile}, slack {slack}: "
                "want the same embedding size, a quantile in (0, 1), slack >= 1"
            )
        share = quantile if misfits is None else (1 + quantile) / 2
        gate = _moments(train)
        gate = replace(gate, spread=gate.spread * np.float32(slack * _conformal(gate._unusual(held), share)))
        if misfits is None:
            return gate
        familiar = train if variants is None else np.concatenate([train, _mapped(variants, "variant")])
        weights = _discriminant(familiar, _mapped(misfits, "misfit"))
        said = held @ weights[:-1] + weights[-1]
        weights[-1] -= said.mean()
        return replace(gate, weights=np.asarray(weights / (slack * _conformal(said - said.mean(), share)), np.float32))

    def distance(self, embeddings: ArrayLike) -> NDArray[np.float64]:
        """(N,) distances of embeddings (N, D), in units of the limit: above 1 is refused. Raises EngineError on NaN."""
        films = np.asarray(embeddings, np.float64)
        if films.ndim != 2 or films.shape[1] != len(self.mean):
            raise EngineError(f"embeddings have shape {films.shape}; the refusal gate wants (N, {len(self.mean)})")
        if not np.isfinite(films).all():
            raise EngineError("the embedding has NaN or infinite values: the engine failed on this film")
        mapped = _hellinger(films)
        said = mapped @ self.weights[:-1].astype(np.float64) + self.weights[-1]
        return np.asarray(np.maximum(self._unusual(mapped), said))

    def check(self, embedding: ArrayLike) -> float:
        """The distance of one film's embedding (D,); raises Refusal(NOT_FRONTAL_CHEST) above 1."""
        distance = float(self.distance(np.asarray(embedding)[None])[0])
        if distance > self.threshold:
            raise Refusal(
                RefusalReason.NOT_FRONTAL_CHEST,
                "unlike the frontal chest films that the model was made from: "
                f"{distance:.3g} times as far as the furthest that is accepted",
            )
        return distance

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """float32 arrays that `from_arrays` turns back into a gate with the very same distances."""
        return {"mean": self.mean, "basis": self.basis, "spread": self.spread, "weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> "EmbeddingGate":
        """The gate of `to_arrays`; raises StatisticsError where an array is missing, misshapen or out of range."""
        names = ("mean", "basis", "spread", "weights")
        missing = [name for name in names if name not in arrays]
        if missing:
            raise StatisticsError(f"the refusal gate lacks {', '.join(missing)}; it has {', '.join(sorted(arrays))}")
        mean, basis, spread, weights = (np.asarray(arrays[name], np.float32) for name in names)
        size = mean.size
        wanted = [(size,), (max(0, spread.size - 1), size), (spread.size,), (size + 1,)]
        found = [array.shape for array in (mean, basis, spread, weights)]
        if found != wanted or not all(np.isfinite(array).all() for array in (mean, basis, spread, weights)):
            raise StatisticsError(f"the refusal gate's arrays {found} are misshapen or not finite")
        if not (spread > 0).all():
            raise StatisticsError("the refusal gate has a standard deviation that is not above zero")
        return cls(mean, basis, spread, weights)

    def _unusual(self, mapped: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) Mahalanobis distances of mapped embeddings (N, D)."""
        centred = mapped - self.mean
        along = centred @ self.basis.T.astype(np.float64)
        outside = np.maximum(0, (centred**2).sum(axis=1) - (along**2).sum(axis=1))
        return np.asarray(np.sqrt(((along / self.spread[:-1]) ** 2).sum(axis=1) + outside / self.spread[-1] ** 2))


def _hellinger(films: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, D) unit vectors sqrt(x / sum x); what is below zero counts as zero, and nothing at all stays zero."""
    active = np.maximum(films, 0)
    total = active.sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(np.divide(active, total, out=np.zeros_like(active), where=total > 0)))


def _mapped(embeddings: ArrayLike, what: str) -> NDArray[np.float64]:
    films = np.asarray(embeddings, np.float64)
    usable = films.ndim == 2 and len(films) >= FEWEST and bool(np.isfinite(films).all())
    mapped = _hellinger(films) if usable else films
    if not usable or not (mapped.std(axis=0) > 1e-9).any():
        raise StatisticsError(
            f"{what} embeddings of shape {films.shape}: want {FEWEST} different ones or more, finite (N, D)"
        )
    return mapped


def _moments(train: NDArray[np.float64]) -> EmbeddingGate:
    """Probabilistic PCA of mapped films: the directions of 95 % of the variance, at most `DIRECTIONS` and N / 4."""
    mean = train.mean(axis=0)
    _, values, rows = np.linalg.svd(train - mean, full_matrices=False)
    variance = values**2 / (len(train) - 1)
    share = int(np.searchsorted(np.cumsum(variance) / variance.sum(), 0.95)) + 1
    kept = min(share, DIRECTIONS, max(1, len(train) // 4), len(variance) - 1)
    rest = max(variance[kept:].sum() / (train.shape[1] - kept), 1e-6 * variance[0])
    spread = np.sqrt([*np.maximum(variance[:kept], rest), rest])
    narrow = [np.asarray(array, np.float32) for array in (mean, rows[:kept], spread)]
    return EmbeddingGate(narrow[0], narrow[1], narrow[2], np.zeros(len(mean) + 1, np.float32))


def _discriminant(familiar: NDArray[np.float64], strange: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D + 1,) weights and offset of the log-odds that mapped features are `strange`; both sides weigh the same."""
    from sklearn.linear_model import LogisticRegression  # for building only; screening has no use for it

    scale = np.sqrt(familiar.var(axis=0).mean())
    model = LogisticRegression(C=PENALTY, max_iter=2000, class_weight="balanced")
    truth = np.repeat([0, 1], [len(familiar), len(strange)])
    model.fit((np.concatenate([familiar, strange]) - familiar.mean(axis=0)) / scale, truth)
    weights = np.asarray(model.coef_[0], np.float64) / scale
    return np.append(weights, float(model.intercept_[0]) - weights @ familiar.mean(axis=0))


def _conformal(distances: NDArray[np.float64], quantile: float) -> float:
    """The smallest value that a further distance exceeds with probability <= 1 - quantile, or the largest of few."""
    rank = min(len(distances), int(np.ceil((len(distances) + 1) * quantile - 1e-9)))
    return float(np.sort(distances)[rank - 1])

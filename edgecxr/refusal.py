"""Films that the network has never seen the like of: refused, because the score of a hand means nothing.

The distance is the Mahalanobis distance of the embedding from the training films under probabilistic PCA (Tipping and
Bishop, J. R. Statist. Soc. B 61, 1999): k principal directions keep their own variance and all others share one, so
that both an unusual mixture of known features and a feature outside their span (the residual of ViM, Wang et al., CVPR
2022) move a film away. Only moments of the training set are kept, no film's own embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.errors import EngineError, Refusal, RefusalReason, StatisticsError

__all__ = ["EmbeddingGate"]

DIRECTIONS = 128  # most principal directions kept: 128 × 1024 float32 is 0.5 MB


@dataclass(frozen=True)
class EmbeddingGate:
    """Refuses a film whose embedding is further from the training films than `threshold`.

    Of real frontal chest films like those it was fitted on, about 1 - quantile (0.5 %) are refused before the slack.
    A film inside the threshold is not thereby a frontal chest film: the gate only knows what the features can tell.
    """

    mean: NDArray[np.float32]  # (D,)
    basis: NDArray[np.float32]  # (K, D) orthonormal rows: the principal directions
    spread: NDArray[np.float32]  # (K,) standard deviation along each, > 0
    residual: float  # standard deviation along every other direction, > 0
    threshold: float  # largest distance that is accepted, > 0

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        *,
        validation: ArrayLike,
        quantile: float = 0.995,
        slack: float = 1.1,
        directions: int | None = None,
    ) -> "EmbeddingGate":
        """From `embeddings` (N, D) of training films and of `validation` films (M, D), none of them trained on.

        The directions that hold 95 % of the variance are kept, at most `DIRECTIONS` and N / 4 (or `directions`). The
        threshold is `slack` times the conformal `quantile` of the validation distances: the ceil((M + 1) * quantile)-th
        smallest, or the largest where M is too small for that (below 199 films at 0.995), so that before the slack a
        further film is refused with a probability of at most max(1 - quantile, 1 / (M + 1)).
        """
        train, held = _rows(embeddings, "training"), _rows(validation, "validation")
        if train.shape[1] != held.shape[1] or not 0 < quantile < 1 or slack < 1:
            raise StatisticsError(
                f"training {train.shape}, validation {held.shape}, quantile {quantile}, slack {slack}: "
                "want the same embedding size, a quantile in (0, 1), slack >= 1"
            )
        mean = train.mean(axis=0)
        _, values, rows = np.linalg.svd(train - mean, full_matrices=False)
        variance = values**2 / (len(train) - 1)
        kept = directions or _directions(variance)
        rest = max(variance[kept:].sum() / max(1, train.shape[1] - kept), 1e-6 * variance[0])
        spread = np.sqrt(np.maximum(variance[:kept], rest))
        narrow = [np.asarray(array, np.float32) for array in (mean, rows[:kept], spread)]
        draft = cls(narrow[0], narrow[1], narrow[2], float(np.float32(np.sqrt(rest))), 1.0)
        distances = np.sort(draft.distance(held))
        rank = min(len(held), int(np.ceil((len(held) + 1) * quantile - 1e-9)))
        limit = float(np.float32(slack * distances[rank - 1]))
        return cls(draft.mean, draft.basis, draft.spread, draft.residual, limit)

    def distance(self, embeddings: ArrayLike) -> NDArray[np.float64]:
        """(N,) Mahalanobis distances of embeddings (N, D), >= 0; about sqrt(D) for a typical training film."""
        films = np.asarray(embeddings, np.float64)
        if films.ndim != 2 or films.shape[1] != len(self.mean):
            raise EngineError(f"embeddings have shape {films.shape}; the refusal gate wants (N, {len(self.mean)})")
        if not np.isfinite(films).all():
            raise EngineError("the embedding has NaN or infinite values: the engine failed on this film")
        centred = films - self.mean
        along = centred @ self.basis.T.astype(np.float64)
        outside = np.maximum(0, (centred**2).sum(axis=1) - (along**2).sum(axis=1))
        return np.asarray(np.sqrt(((along / self.spread) ** 2).sum(axis=1) + outside / self.residual**2))

    def check(self, embedding: ArrayLike) -> float:
        """The distance of one film's embedding (D,); raises Refusal(NOT_FRONTAL_CHEST) beyond the threshold."""
        distance = float(self.distance(np.asarray(embedding)[None])[0])
        if distance > self.threshold:
            raise Refusal(
                RefusalReason.NOT_FRONTAL_CHEST,
                f"unlike the frontal chest films that the model was made from: distance {distance:.4g}, "
                f"at most {self.threshold:.4g} is accepted",
            )
        return distance

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """float32 arrays that `from_arrays` turns back into a gate with the very same distances."""
        scalars = np.array([self.residual, self.threshold], np.float32)
        return {"mean": self.mean, "basis": self.basis, "spread": self.spread, "residual_threshold": scalars}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> "EmbeddingGate":
        """The gate of `to_arrays`; raises StatisticsError where an array is missing, misshapen or out of range."""
        names = ("mean", "basis", "spread", "residual_threshold")
        missing = [name for name in names if name not in arrays]
        if missing:
            raise StatisticsError(f"the refusal gate lacks {', '.join(missing)}; it has {', '.join(sorted(arrays))}")
        mean, basis, spread, scalars = (np.asarray(arrays[name], np.float32) for name in names)
        whole = mean.ndim == 1 and basis.shape == (len(spread), len(mean)) and scalars.shape == (2,)
        if not whole or not all(np.isfinite(array).all() for array in (mean, basis, spread, scalars)):
            raise StatisticsError(
                f"the refusal gate has mean {mean.shape}, basis {basis.shape}: misshapen or not finite"
            )
        if spread.min() <= 0 or scalars.min() <= 0:
            raise StatisticsError("the refusal gate has a standard deviation or a threshold that is not above zero")
        return cls(mean, basis, spread, float(scalars[0]), float(scalars[1]))


def _rows(embeddings: ArrayLike, what: str) -> NDArray[np.float64]:
    films = np.asarray(embeddings, np.float64)
    if films.ndim != 2 or len(films) < 20 or not np.isfinite(films).all() or not films.std(axis=0).any():
        raise StatisticsError(
            f"{what} embeddings of shape {films.shape}: want at least 20 different films (N, D), finite"
        )
    return films


def _directions(variance: NDArray[np.float64]) -> int:
    share = int(np.searchsorted(np.cumsum(variance) / variance.sum(), 0.95)) + 1
    return max(1, min(share, DIRECTIONS, (len(variance) + 3) // 4))

"""What one model said about a set of films: the input of the gate and of the evaluation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import StageError
from edgecxr.refusal import EmbeddingGate
from edgecxr.spec import OperatingPoint

__all__ = ["Scored"]


@dataclass(frozen=True)
class Scored:
    """Outputs of one model, at one precision on one engine, for N films; film i is the same film in every `Scored`.

    Raises StageError when the shapes do not belong together or a value is NaN or infinite.
    """

    name: str  # e.g. "student int8 openvino-cpu"
    logits: NDArray[np.floating]  # (N, C)
    probabilities: NDArray[np.floating]  # (N, C) calibrated, in [0, 1]
    cam: NDArray[np.floating] | None = None  # (N, C, h, w)
    embeddings: NDArray[np.floating] | None = None  # (N, D)
    points: tuple[OperatingPoint, ...] = ()  # this model's own thresholds
    refusal: EmbeddingGate | None = None  # this model's own gate, for `embeddings`

    def __post_init__(self) -> None:
        shape = self.logits.shape
        if self.logits.ndim != 2 or self.probabilities.shape != shape:
            raise StageError(
                f"{self.name}: logits {shape}, probabilities {self.probabilities.shape}: want (N, C) twice"
            )
        for what, values, lead in (("cam", self.cam, shape), ("embeddings", self.embeddings, shape[:1])):
            if values is not None and values.shape[: len(lead)] != lead:
                raise StageError(f"{self.name}: {what} has shape {values.shape}, want it to begin with {lead}")
        for what, values in (("logits", self.logits), ("cam", self.cam), ("embeddings", self.embeddings)):
            if values is not None and not np.isfinite(values).all():
                bad = int((~np.isfinite(values)).sum())
                raise StageError(f"{self.name}: {bad} values of {what} are NaN or infinite")
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise StageError(f"{self.name}: probabilities outside [0, 1]")
        if self.refusal is not None and self.embeddings is None:
            raise StageError(f"{self.name}: a refusal gate without embeddings to apply it to")

    @property
    def films(self) -> int:
        """N."""
        return len(self.logits)

    @property
    def refused(self) -> NDArray[np.bool_] | None:
        """(N,) films that the model's own gate would refuse; None for a model without one."""
        if self.refusal is None or self.embeddings is None:
            return None
        return self.refusal.distance(self.embeddings) > self.refusal.threshold

    def threshold(self, finding: str, point: str) -> float:
        """This model's own threshold; raises StageError when it has none of that name."""
        for entry in self.points:
            if (entry.name, entry.finding) == (point, finding):
                return entry.threshold
        there = ", ".join(sorted({f"{entry.name}/{entry.finding}" for entry in self.points})) or "none"
        raise StageError(f"{self.name} has no threshold {point}/{finding}; it has: {there}")

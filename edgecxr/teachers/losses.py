"""One loss over mixed heads: softmax heads by cross-entropy, sigmoid heads by binary cross-entropy, gaps left out."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.scores import columns
from edgecxr.spec import Head, Strict

__all__ = ["LossSettings", "MixedLoss", "class_weights", "positive_weights"]

Targets = Mapping[str, NDArray[np.generic]]


class LossSettings(Strict):
    """How errors are weighed."""

    balance: Annotated[
        float, Field(ge=0, le=1, description="1: inverse class frequency, 0: none, between: its power")
    ] = 1.0
    positive_limit: Annotated[float, Field(ge=1, description="largest weight of a rare positive")] = 20.0
    smoothing: Annotated[float, Field(ge=0, lt=1, description="label smoothing")] = 0.0
    head_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="by head name; 1 where absent"
    )


def class_weights(labels: NDArray[np.integer], classes: int, power: float) -> NDArray[np.float32]:
    """(classes,) weights (N / (K n_k))^power of the labelled rows (King & Zeng 2001); 0 for a class that is absent."""
    counts = np.bincount(labels[labels >= 0], minlength=classes).astype(np.float64)
    with np.errstate(divide="ignore"):
        weights = np.where(counts > 0, (counts.sum() / (classes * counts)) ** power, 0.0)
    return weights.astype(np.float32)


def positive_weights(targets: NDArray[np.floating], power: float, limit: float) -> NDArray[np.float32]:
    """(K,) weights (negatives / positives)^power of the known entries, held in [1/limit, limit]."""
    positives = np.nansum(targets, axis=0, dtype=np.float64)
    negatives = np.sum(~np.isnan(targets), axis=0) - positives
    ratio = (np.maximum(negatives, 1) / np.maximum(positives, 1)) ** power
    weights: NDArray[np.float32] = np.clip(ratio, 1 / limit, limit).astype(np.float32)
    return weights


class MixedLoss(nn.Module):
    """Weighted sum over heads of the mean loss of the labelled entries; a batch without any label gives 0.

    Class weights come from the training targets, so build it from those. forward(logits (N, C), targets) with the
    targets of a softmax head (N,) int64, -1 unlabelled, and of a sigmoid head (N, K) float32, NaN unknown.
    """

    def __init__(self, heads: Sequence[Head], targets: Targets, settings: LossSettings) -> None:
        super().__init__()
        self.heads, self.settings, self.columns = tuple(heads), settings, columns(heads)
        unknown = set(settings.head_weights) - {head.name for head in heads}
        if unknown:
            raise StageError(
                f"loss.head_weights names {sorted(unknown)}; the heads are {[head.name for head in heads]}"
            )
        for index, head in enumerate(heads):
            self.register_buffer(f"weights_{index}", torch.from_numpy(self._weights(head, targets[head.name])))

    def _weights(self, head: Head, targets: NDArray[np.generic]) -> NDArray[np.float32]:
        if head.kind == "softmax":
            return class_weights(targets.astype(np.int64), len(head.classes), self.settings.balance)
        return positive_weights(targets.astype(np.float32), self.settings.balance, self.settings.positive_limit)

    def forward(self, logits: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        total = logits.new_zeros((), dtype=torch.float32)
        for index, (head, place) in enumerate(zip(self.heads, self.columns, strict=True)):
            part = logits[:, place].float()
            loss = self._softmax if head.kind == "softmax" else self._sigmoid
            weights = self.get_buffer(f"weights_{index}")
            total = total + self.settings.head_weights.get(head.name, 1.0) * loss(part, targets[head.name], weights)
        return total

    def _softmax(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        if not bool((labels >= 0).any()):
            return logits.sum() * 0
        return functional.cross_entropy(
            logits, labels, weight=weights, ignore_index=-1, label_smoothing=self.settings.smoothing
        )

    def _sigmoid(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        known = ~torch.isnan(targets)
        smoothed = targets.nan_to_num(0.0) * (1 - self.settings.smoothing) + self.settings.smoothing / 2
        errors = functional.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weights, reduction="none")
        return (errors * known).sum() / known.sum().clamp(min=1)

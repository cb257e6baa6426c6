"""What is watched while a network learns: macro AUROC over all classes, and the loss on held-out films."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from edgecxr.scores import columns
from edgecxr.spec import Head
from edgecxr.statistics import auroc

__all__ = ["macro_auroc"]


def macro_auroc(
    logits: NDArray[np.floating], targets: Mapping[str, NDArray[np.generic]], heads: Sequence[Head]
) -> float:
    """Mean one-against-rest AUROC over the classes that have both kinds among the labelled films; NaN when none has."""
    values = [
        auroc(labels, scores)
        for head, place in zip(heads, columns(heads), strict=True)
        for scores, labels in _pairs(logits[:, place], targets[head.name], head)
        if labels.any() and not labels.all()
    ]
    return float(np.mean(values)) if values else float("nan")


Pair = tuple[NDArray[np.floating], NDArray[np.bool_]]


def _pairs(logits: NDArray[np.floating], targets: NDArray[np.generic], head: Head) -> list[Pair]:
    """(scores, labels) of each class of the head, labelled films only."""
    if head.kind == "softmax":
        known = targets.astype(np.int64) >= 0
        scores = log_softmax(logits.astype(np.float64), axis=1)[known]
        return [(scores[:, index], targets[known] == index) for index in range(len(head.classes))]
    values = targets.astype(np.float32)
    known = ~np.isnan(values)
    return [(logits[rows, index], values[rows, index] > 0.5) for index, rows in enumerate(known.T)]

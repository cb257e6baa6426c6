"""What is watched while a network learns: macro AUROC over all classes, accuracy, and the loss on held-out films."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from edgecxr.scores import columns
from edgecxr.spec import Head
from edgecxr.statistics import auroc

__all__ = ["accuracy", "macro_auroc"]


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


def accuracy(logits: NDArray[np.floating], targets: Mapping[str, NDArray[np.generic]], heads: Sequence[Head]) -> float:
    """Mean over heads of the share of labelled films (sigmoid: of known labels) that are answered right; NaN for none.

    A softmax head answers with its largest logit, a sigmoid class with yes above a probability of 0.5.
    """
    shares = [
        _share(logits[:, place], targets[head.name], head) for head, place in zip(heads, columns(heads), strict=True)
    ]
    known = [share for share in shares if np.isfinite(share)]
    return float(np.mean(known)) if known else float("nan")


def _share(logits: NDArray[np.floating], targets: NDArray[np.generic], head: Head) -> float:
    if head.kind == "softmax":
        truth = targets.astype(np.int64)
        right, known = logits.argmax(axis=1) == truth, truth >= 0
    else:
        values = targets.astype(np.float32)
        right, known = (logits > 0) == (values > 0.5), ~np.isnan(values)
    return float(right[known].mean()) if known.any() else float("nan")


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

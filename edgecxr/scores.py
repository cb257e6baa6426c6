"""From the logits of an engine to calibrated probabilities."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from edgecxr.errors import EngineError, StatisticsError
from edgecxr.spec import Head

__all__ = ["class_labels", "columns", "predicted", "probabilities"]


def columns(heads: Sequence[Head]) -> list[slice]:
    """The slice of the `logits` output that belongs to each head."""
    ends = np.cumsum([len(head.classes) for head in heads]).tolist()
    return [slice(end - len(head.classes), end) for head, end in zip(heads, ends, strict=True)]


def probabilities(logits: ArrayLike, heads: Sequence[Head], temperatures: Sequence[float]) -> NDArray[np.float64]:
    """(N, C) calibrated probabilities in [0, 1]: softmax or sigmoid of ``logits / temperature``, head by head.

    `logits` is (N, C) or (C,), which gives (C,); one temperature per head. Raises EngineError on NaN or infinity: an
    engine that overflowed has no result.
    """
    values = np.asarray(logits, np.float64)
    classes = sum(len(head.classes) for head in heads)
    if values.ndim not in (1, 2) or values.shape[-1] != classes:
        raise EngineError(f"logits have shape {values.shape}; the heads have {classes} classes: want (N, {classes})")
    if len(temperatures) != len(heads):
        raise EngineError(f"{len(temperatures)} temperatures for {len(heads)} heads: want one each")
    if not np.isfinite(values).all():
        raise EngineError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} logits are NaN or infinite: "
            "the engine failed on this film; run `edgecxr doctor`, or choose another precision"
        )
    out = np.empty_like(values)
    for head, part, temperature in zip(heads, columns(heads), temperatures, strict=True):
        scaled = values[..., part] / temperature
        out[..., part] = softmax(scaled, axis=-1) if head.kind == "softmax" else expit(scaled)
    return out


def predicted(scores: NDArray[np.floating], head: Head) -> NDArray[np.intp]:
    """(N,) index of the most probable class of one softmax head; `scores` is (N, K), that head's columns only."""
    if head.kind != "softmax":
        raise ValueError(f"head {head.name!r} is a sigmoid head: its classes do not exclude each other")
    return np.asarray(scores.argmax(axis=1))


def class_labels(heads: Sequence[Head], targets: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
    """(N, C) in {0, 1, NaN}: whether each class of the `logits` output holds, NaN where nobody knows.

    `targets` has an entry per head name, as `Dataset.targets` gives them: softmax (N,) int, -1 unlabelled; sigmoid
    (N, K) with NaN unknown.
    """
    missing = [head.name for head in heads if head.name not in targets]
    if missing:
        raise StatisticsError(f"no targets for head(s) {', '.join(missing)}; there are: {', '.join(targets) or 'none'}")
    return np.asarray(np.concatenate([_head_labels(head, np.asarray(targets[head.name])) for head in heads], axis=1))


def _head_labels(head: Head, targets: NDArray[np.generic]) -> NDArray[np.float32]:
    count = len(head.classes)
    if head.kind == "sigmoid":
        known = np.asarray(targets, np.float32)
        if known.ndim != 2 or known.shape[1] != count or not (np.isin(known, (0, 1)) | np.isnan(known)).all():
            raise StatisticsError(f"targets of sigmoid head {head.name!r}: want (N, {count}) of 0, 1 or NaN")
        return known
    index = np.asarray(targets)
    if index.ndim != 1 or not np.isin(index, np.arange(-1, count)).all():
        raise StatisticsError(f"targets of softmax head {head.name!r}: want (N,) of -1 … {count - 1}")
    labels: NDArray[np.float32] = np.equal(index[:, None], np.arange(count)).astype(np.float32)
    labels[index < 0] = np.nan
    return labels

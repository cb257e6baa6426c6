"""Candidates in the order of their validation accuracy, and the best of them.

Wang, Liu & Xu (ICEIEC 2020) chose the networks to fuse "according to the accuracy and loss value".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.scores import columns
from edgecxr.spec import Head, Strict
from edgecxr.teachers.ensemble import negative_log_likelihood
from edgecxr.teachers.metrics import accuracy

__all__ = ["Selection", "Standing", "select", "standing"]


class Standing(Strict):
    """How a candidate did on the validation films: accuracy 0 to 1, loss in nats per film."""

    name: str
    architecture: str
    accuracy: float
    loss: float


class Selection(Strict):
    """All candidates, the best first, and the names of those that go on."""

    candidates: tuple[Standing, ...]
    chosen: tuple[str, ...]


def standing(
    name: str,
    architecture: str,
    logits: NDArray[np.floating],
    targets: Mapping[str, NDArray[Any]],
    heads: Sequence[Head],
) -> Standing:
    """What logits (N, C) of validation films say of a candidate."""
    parts = zip(heads, columns(heads), strict=True)
    loss = sum(negative_log_likelihood(logits[:, part], targets[head.name], head) for head, part in parts)
    right = accuracy(logits, targets, heads)
    return Standing(name=name, architecture=architecture, accuracy=right, loss=loss / len(logits))


def select(standings: Sequence[Standing], count: int) -> Selection:
    """The `count` candidates of the largest accuracy; of equal ones, those of the smaller loss."""
    order = sorted(standings, key=lambda item: (-item.accuracy, item.loss))
    return Selection(candidates=tuple(order), chosen=tuple(item.name for item in order[:count]))

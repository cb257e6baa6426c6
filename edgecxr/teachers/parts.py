"""A teacher's network as the networks that it adds up: one, or those that were joined (`teachers.joint`).

The joined logit is the weighted sum of the parts' logits, so whatever is linear in the logit is the same sum of what
each part gives by itself: class activation maps, and the relevance that the sum hands on to its terms.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecxr.teachers.architecture import Network
from edgecxr.teachers.explained import ExplainedNetwork
from edgecxr.teachers.joint import Joint

__all__ = ["Part", "parts_of", "weighted_maps"]

Maps = NDArray[np.float32]


class Part(NamedTuple):
    """`network` counts with `weight` in the whole, in which its modules are named `prefix`…"""

    weight: float
    prefix: str
    network: ExplainedNetwork


def parts_of(whole: ExplainedNetwork) -> tuple[Part, ...]:
    """The joined networks, each with the normalization of its own, or the network itself with weight 1."""
    joint = whole.body
    if not isinstance(joint, Joint):
        return (Part(1.0, "", whole),)
    members = zip(joint.names, joint.weights.tolist(), joint.networks.children(), strict=True)
    return tuple(
        Part(weight, f"networks.{place}.body.", _member(whole, name, network))
        for place, (name, weight, network) in enumerate(members)
        if isinstance(network, Network)
    )


def weighted_maps(weights: Sequence[float], maps: Sequence[Maps]) -> Maps:
    """(C, h, w), the sum of maps (C, ·, ·) on the cells of the finest; means stay what they are."""
    height, width = (max(part.shape[axis] for part in maps) for axis in (1, 2))
    total = np.zeros((len(maps[0]), height, width))
    for weight, part in zip(weights, maps, strict=True):
        total += weight * (_shares(height, part.shape[1]) @ part @ _shares(width, part.shape[2]).T)
    return total.astype(np.float32)


def _member(whole: ExplainedNetwork, name: str, network: Network) -> ExplainedNetwork:
    scale, shift = whole.scale / network.std, (whole.shift - network.mean) / network.std
    return ExplainedNetwork(f"{whole.name} ({name})", network.body, scale, shift, whole.columns)


def _shares(fine: int, coarse: int) -> NDArray[np.float64]:
    """(fine, coarse): how much of each fine cell lies in each coarse one, along one side."""
    starts, others = np.arange(fine)[:, None] / fine, np.arange(coarse)[None] / coarse
    common = np.minimum(starts + 1 / fine, others + 1 / coarse) - np.maximum(starts, others)
    return np.asarray(common.clip(0) * fine)

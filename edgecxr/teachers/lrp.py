"""Layer-wise relevance propagation (Bach et al. 2015) by zennit, on the canonical form of a network.

The relevance of all pixels sums to the explained logit but for what the rules leave on the way: a bias takes its share,
and so does the stabilizer `epsilon`. How much, the result says. Of a network without biases (in canonical form, so
batch norms without shift) nothing but rounding is lost, with each of `COMPOSITES`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from zennit.attribution import Gradient
from zennit.composites import EpsilonGammaBox, EpsilonPlus, EpsilonPlusFlat
from zennit.core import Composite
from zennit.rules import Epsilon, Pass

from edgecxr.errors import StageError
from edgecxr.teachers.canonical import PooledHead, Threshold, canonize
from edgecxr.teachers.explained import ExplainedNetwork
from edgecxr.teachers.module_graph import ModuleGraph
from edgecxr.teachers.names import COMPOSITES

__all__ = ["Canonical", "Relevance"]

SAME = 1e-3  # largest difference of logits between a network and its canonical form, over max(1, largest logit)


@dataclass(frozen=True)
class Relevance:
    """`values` (S, S) signed, summed over input channels; `logit` is what was distributed."""

    values: NDArray[np.float32]
    logit: float

    @property
    def total(self) -> float:
        """The sum over all pixels."""
        return float(self.values.sum(dtype=np.float64))

    @property
    def conserved(self) -> float:
        """The sum over all pixels as a share of the logit; NaN where the logit is 0."""
        return self.total / self.logit if self.logit else float("nan")


class Canonical:
    """A network in canonical form, ready to be asked."""

    def __init__(self, network: ExplainedNetwork, image: NDArray[np.float32]) -> None:
        """`image` is (1, 1, S, S) in [0, 1]. Raises StageError when there is no such form, or it changes the logits."""
        self.network = network
        values = network.values(image)
        graph = ModuleGraph(network.body, values)
        self.norms_left = canonize(graph)
        self.module = graph.module
        with torch.no_grad():
            wanted, got = network.body(values), self.module(values)
        worst = float((got - wanted).abs().max() / max(1.0, float(wanted.abs().max())))
        if not worst <= SAME:
            raise StageError(
                f"the canonical form of {network.name!r} gives other logits (by {worst:.2g} of the largest, at most "
                f"{SAME:g} allowed), so that lrp would explain another network; use gradcam or occlusion"
            )

    def relevance(self, image: NDArray[np.float32], column: int, composite: str) -> Relevance:
        """Of output `column` (in the order of the teacher's classes) on (1, 1, S, S); `composite` of COMPOSITES."""
        place = self.network.columns[column]
        values = self.network.values(image)

        def chosen(logits: Tensor) -> Tensor:
            only = torch.zeros_like(logits)
            only[:, place] = logits[:, place]
            return only.detach()

        with Gradient(model=self.module, composite=_composite(composite, self.network)) as attributor:
            logits, relevance = attributor(values, chosen)
        found = relevance.detach().sum(dim=1)[0].cpu().numpy().astype(np.float32)
        if not np.isfinite(found).all():
            raise StageError(f"lrp with {composite} gave NaN or infinity; try another of {', '.join(COMPOSITES)}")
        return Relevance(found, float(logits.detach()[0, place]))


def _composite(name: str, network: ExplainedNetwork) -> Composite:
    """The composite of that name, with the rules that canonical modules take: zennit's own for what they stand for."""
    own: dict[str, Any] = {"layer_map": [(Threshold, Pass()), (PooledHead, Epsilon())]}
    if name == "epsilon-plus-flat":
        return EpsilonPlusFlat(**own)
    if name == "epsilon-plus":
        return EpsilonPlus(**own)
    if name == "epsilon-gamma-box":
        low, high = network.extremes
        return EpsilonGammaBox(low=low, high=high, **own)
    raise StageError(f"unknown composite {name!r}; choose {', '.join(COMPOSITES)}")

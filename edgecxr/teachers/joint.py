"""Networks that are trained together as one, by weights that move while they learn.

After Wang, Liu & Xu, "Deep Learning for the Detection of COVID-19 Using Transfer Learning and Model Integration"
(ICEIEC 2020): two networks are fused and their "weight ratio" is "dynamically" improved "during the training process".
The paper does not say by which rule. Here the weights are softmax(theta), so they are positive and sum to 1, and theta
is learned by gradient on the training films like any other weight, at a learning rate of its own.

Logits are added, not probabilities: the loss, the later fusion and the student's distillation read logits, and the map
of a finding is then the same weighted sum of the members' maps.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import Network, head_parameters

__all__ = ["Joint", "join", "joint_factors", "joint_weights"]


class Joint(nn.Module):
    """Weighted sum of the logits of `networks` (names in `names`); the weights begin equal.

    forward: (N, 1, S, S) float32 in [0, 1] -> (N, C) logits. `rate` is the factor on the learning rate of theta.
    """

    def __init__(self, networks: Mapping[str, Network], rate: float = 1.0) -> None:
        super().__init__()
        if len(networks) < 2:
            raise StageError(f"{len(networks)} network to train together; wanted at least two")
        self.names, self.rate = tuple(networks), rate
        self.networks = nn.ModuleList(networks.values())
        self.theta = nn.Parameter(torch.zeros(len(networks)))

    @property
    def weights(self) -> Tensor:
        """(M,) weights, positive, with sum 1."""
        return self.theta.softmax(0)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([network(images).float() for network in self.networks])
        fused: Tensor = torch.tensordot(self.weights, logits, dims=1)
        return fused


def join(networks: Mapping[str, Network], rate: float = 1.0) -> Network:
    """The networks, by name, as one: a `Network` whose body is their `Joint`. Each keeps its own normalization."""
    return Network(Joint(networks, rate), [0.0], [1.0])


def joint_factors(module: nn.Module) -> dict[str, float]:
    """Factors on the learning rate, by parameter: of theta, and 1 for the classifiers of the joined networks."""
    factors: dict[str, float] = {}
    for prefix, joint in _joints(module):
        factors[f"{prefix}theta"] = joint.rate
        for index, network in enumerate(joint.networks):
            factors |= {f"{prefix}networks.{index}.{name}": 1.0 for name in head_parameters(network)}
    return factors


def joint_weights(module: nn.Module) -> dict[str, float]:
    """`weight_<network>` of every joined network in the module; empty where there is none."""
    return {
        f"weight_{name}": weight
        for _, joint in _joints(module)
        for name, weight in zip(joint.names, joint.weights.tolist(), strict=True)
    }


def _joints(module: nn.Module) -> Iterator[tuple[str, Joint]]:
    """Every `Joint` in the module, with what stands before the names of its parameters."""
    for name, part in module.named_modules():
        if isinstance(part, Joint):
            yield f"{name}." if name else "", part

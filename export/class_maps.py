"""The class activation maps of a network that was trained here: its classifier over its last map, before the mean.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, section 2. Mean and linear layer
change places, so the mean of a map is the logit; a network of which that is not true has no such maps.
"""

import torch
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from edgecxr.errors import StageError
from edgecxr.export.trunk import Trunk
from edgecxr.teachers.architecture import Network, classifier_name

__all__ = ["ClassMaps", "class_maps"]

SAME = 1e-3  # largest difference between the mean of a map and the logit, over the largest logit


class ClassMaps(nn.Module):
    """forward: (N, 1, S, S) float32 in [0, 1] -> (N, C, h, w) maps, whose means are the logits of `network`."""

    def __init__(self, network: Network, trunk: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.network, self.trunk, self.classifier = network, trunk, classifier

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk.forward_features((images - self.network.mean) / self.network.std)  # type: ignore[operator]
        weight, bias = self.classifier.weight, self.classifier.bias
        return torch.einsum("ck,nkhw->nchw", weight.flatten(1), features) + bias.view(1, -1, 1, 1)  # type: ignore[operator]


def class_maps(network: Network, size: int) -> ClassMaps | None:
    """The maps of a network for films of size×size pixels; None where it has none, found out on a film of noise.

    The network is put in evaluation mode, and shares its weights with its maps.
    """
    network.eval()
    trunk, name = _trunk(network.body), classifier_name(network)
    if trunk is None or name is None:
        return None
    maps = ClassMaps(network, trunk, network.get_submodule(name)).eval()
    generator = torch.Generator().manual_seed(0)
    films = torch.rand(2, 1, size, size, generator=generator).to(network.mean.device)
    with torch.no_grad():
        logits: Tensor = network(films)
        try:
            found = maps(films)
        except (RuntimeError, AttributeError, TypeError, ValueError):  # its features are no map for its classifier
            return None
    if found.ndim != 4:
        return None
    several = found.shape[2] * found.shape[3] > 1
    off = (found.mean((2, 3)) - logits).abs().max()
    return maps if several and off <= SAME * logits.abs().max() else None


def _trunk(body: nn.Module) -> nn.Module | None:
    """`forward_features` of a network of timm or torchvision, sharing its weights."""
    if hasattr(body, "forward_features"):
        return body
    try:
        return Trunk(body).eval()
    except (StageError, TraceError, RuntimeError):  # the last: it takes films of one size only
        return None

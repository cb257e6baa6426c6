"""A classifier without its head: what a student keeps of a network, `forward_features` and `num_features`.

timm's networks have both. torchvision's do not: `Trunk` gives them, by cutting the network's graph before the pooling.
What a head has besides one linear layer (the three fully connected layers of VGG and AlexNet, the convolution and ReLU
of SqueezeNet) stays behind, as in Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016,
section 3: a global average pool and one linear layer take its place, and the class activation map exists.
"""

from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from edgecxr.errors import StageError
from edgecxr.teachers.sizes import probe

__all__ = ["Trunk", "timm_trunk"]

HEADS = ("avgpool", "adaptive_avg_pool2d", "mean", "classifier")  # first step of a torchvision head, by its node's name
SIDE = 320  # pixels of the image that is drawn, not computed, to count the channels of a map; enough for every network


class Trunk(nn.Module):
    """All of a torchvision classifier before its head; its weights keep their names, below `body`."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        nodes = get_graph_node_names(classifier)[1]
        heads = [place for place, node in enumerate(nodes) if node.partition(".")[0].rstrip("_0123456789") in HEADS]
        if not heads:
            raise StageError(
                f"{type(classifier).__name__} has no pooled head to cut off; choose a convolutional network"
            )
        self.body = create_feature_extractor(classifier, {nodes[heads[0] - 1]: "map"})
        self.num_features = int(probe(self, SIDE).shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) normalized images -> (N, D, h, w) last feature map."""
        features: Tensor = self.body(images)["map"]
        return features

    forward_features = forward


def timm_trunk(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The timm network `name` for one input channel, without its head; `options` go to timm.

    Raises StageError for an option that it does not take, and for a network whose last features are no map.
    """
    try:
        body: nn.Module = timm.create_model(
            name, pretrained=False, in_chans=1, num_classes=0, global_pool="", **options
        )
    except (AssertionError, NotImplementedError, TypeError) as error:
        raise StageError(f"{name} does not take {dict(options)} ({error}); leave it out, or choose a ResNet") from error
    if hasattr(body, "pre_logits"):  # VGG: the fully connected layers, 119 million weights that no map uses
        body.pre_logits = nn.Identity()
    return body

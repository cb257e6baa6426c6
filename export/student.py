"""Students: small convolutional networks with a pooled linear head, whose heatmap is a by-product of the logit.

The head is one 1×1 convolution over the last feature map. Its output is the class activation map (Zhou et al.,
"Learning Deep Features for Discriminative Localization", CVPR 2016, section 2), and the logit is the spatial mean of
that map. Mean and convolution are linear, so this is exactly a global average pool followed by a linear layer, with one
set of weights; in the graph of a quantized student the two outputs cannot disagree.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.export.trunk import Trunk, timm_trunk
from edgecxr.teachers.architecture import GRAY_MEAN, GRAY_STD, Network, build
from edgecxr.teachers.sizes import require_size
from edgecxr.teachers.weights import transfer_weights

__all__ = ["CANDIDATES", "FullOutput", "Student", "build_student"]

# Plain convolutions only: what post-training INT8 keeps (see docs/export.md). Depthwise networks lose their decisions.
CANDIDATES: tuple[str, ...] = (
    "regnetx_002",
    "regnetx_004",
    "resnet10t",
    "resnet14t",
    "resnet18",
    "resnet18d",
    "selecsls42b",
)


class FullOutput(NamedTuple):
    """The three outputs of the deployed graph."""

    logits: Tensor  # (N, C)
    cam: Tensor  # (N, C, h, w); its spatial mean is the logit
    embedding: Tensor  # (N, D); the spatial mean of the feature map


class Student(nn.Module):
    """A backbone, and one 1×1 convolution whose mean is the logit.

    `backbone` is any network with `forward_features` and `num_features`; `classes` is C. `drop` is the dropout
    rate on the pooled features, active in training only. Images are centred around zero first: signed int8 then has all
    its 256 steps for them, not 128.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, backbone: nn.Module, classes: int, *, drop: float = 0.0) -> None:
        super().__init__()
        if classes < 1:
            raise StageError(f"a student scores at least 1 class, got {classes}")
        self.register_buffer("mean", torch.tensor(GRAY_MEAN))
        self.register_buffer("scale", torch.tensor(1 / GRAY_STD))
        self.backbone = backbone
        self.drop = nn.Dropout(drop)
        self.head = nn.Conv2d(_features(backbone), classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.constant_(self.head.bias, 0.0)  # type: ignore[arg-type]

    @property
    def classes(self) -> int:
        """C, the number of logits."""
        return self.head.out_channels

    @property
    def embedding_size(self) -> int:
        """D, the number of channels of the last feature map."""
        return self.head.in_channels

    def features(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) images in [0, 1] -> (N, D, h, w) last feature map."""
        features: Tensor = self.backbone.forward_features((images - self.mean) * self.scale)  # type: ignore[operator]
        return features

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) images -> (N, C) logits: the cheap path for training (pool first, then the head)."""
        pooled = self.drop(self.features(images).mean((2, 3), keepdim=True))
        logits: Tensor = self.head(pooled)
        return logits.flatten(1)

    def forward_full(self, images: Tensor) -> FullOutput:
        """(N, 1, S, S) images -> logits, map and embedding, as the deployed graph computes them."""
        features = self.features(images)
        cam: Tensor = self.head(features)
        return FullOutput(cam.mean((2, 3)), cam, features.mean((2, 3)))

    def cam_shape(self, size: int) -> tuple[int, int]:
        """(h, w) of the map for a model input of size×size pixels."""
        training = self.training
        self.eval()
        with torch.no_grad():
            shape = self.features(next(self.parameters()).new_zeros(1, 1, size, size)).shape
        self.train(training)
        return int(shape[2]), int(shape[3])


def build_student(
    name: str,
    classes: int,
    *,
    drop: float = 0.0,
    output_stride: int = 32,
    options: Mapping[str, Any] | None = None,
    pretrained: str | Path | None = None,
    size: int | None = None,
) -> Student:
    """A student with the backbone `name` and one input channel; names as in `teachers.architecture.build`.

    `options` go to timm, such as a ResNet's channels; torchvision's networks take none. `output_stride=16` doubles the
    side of the map (dilated last stage, four times its cost), for finer heatmaps; not every backbone can. `pretrained`
    as in `teachers.architecture.build`; without it the weights are drawn at random. `size` is the side of the films,
    where it is known. Raises StageError for a name that the library lacks, a stride or option that the backbone does
    not take, and films that are too small for it.
    """
    extra = {**(options or {}), **({} if output_stride == 32 else {"output_stride": output_stride})}
    if name.startswith("torchvision:"):
        student = _from_torchvision(name, classes, drop, extra, pretrained)
    else:
        student = _from_timm(name.removeprefix("timm:"), classes, drop, extra, pretrained)
    if size is not None:
        require_size(student, size, name)
    return student


def _from_timm(
    name: str, classes: int, drop: float, options: Mapping[str, Any], pretrained: str | Path | None
) -> Student:
    if name not in timm.list_models():
        raise StageError(f"timm has no backbone {name!r}; for example {', '.join(CANDIDATES)}")
    student = Student(timm_trunk(name, options), classes, drop=drop)
    if pretrained is not None:
        network = build(f"timm:{name}", classes, 1, pretrained)
        transfer_weights(network.body.state_dict(), student.backbone)
        _normalize_as(student, network)
    return student


def _from_torchvision(
    name: str, classes: int, drop: float, options: Mapping[str, Any], pretrained: str | Path | None
) -> Student:
    if options:
        raise StageError(f"{name} does not take {dict(options)}; leave it out, or choose a backbone of timm")
    network = build(name, max(classes, 1), 1, pretrained)
    student = Student(Trunk(network.body), classes, drop=drop)
    _normalize_as(student, network)
    return student


def _normalize_as(student: Student, network: Network) -> None:
    """Take the normalization that the network's weights were trained with."""
    student.mean.copy_(network.mean.flatten()[0])
    student.scale.copy_(1 / network.std.flatten()[0])


def _features(backbone: nn.Module) -> int:
    features = getattr(backbone, "num_features", None)
    if not isinstance(features, int) or not hasattr(backbone, "forward_features"):
        raise StageError(f"{type(backbone).__name__} has no num_features and forward_features; give a timm backbone")
    return features

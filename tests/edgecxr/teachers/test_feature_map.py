"""The last feature map is found by structure, and what is read from it agrees with definitions."""

import numpy as np
import pytest
import torch
from torch import nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import build
from edgecxr.teachers.explained import ExplainedNetwork
from edgecxr.teachers.feature_map import FeatureMap

IMAGE = np.random.default_rng(0).random((1, 1, 64, 64), dtype=np.float32)


def laid_open(body: nn.Module) -> ExplainedNetwork:
    one = torch.ones(1, 1, 1, 1)
    return ExplainedNetwork("it", body.eval(), one, 0 * one, (0, 1, 2))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet10t", "layer4"),
        ("torchvision:resnet18", "layer4"),
        ("torchvision:alexnet", "features.11"),
        ("torchvision:squeezenet1_1", "classifier.2"),
        ("regnetx_002", "s4"),
    ],
)
def test_the_last_map_is_found(name: str, layer: str) -> None:
    torch.manual_seed(0)
    assert FeatureMap(laid_open(build(name, 3).body), IMAGE).layer == layer


def test_means_of_class_activation_maps_are_the_logits_and_grad_cam_is_their_shape() -> None:
    torch.manual_seed(1)
    opened = laid_open(build("resnet10t", 3).body)
    nn.init.normal_(opened.body.fc.weight)
    found = FeatureMap(opened, IMAGE)
    maps = found.cam(IMAGE)
    with torch.no_grad():
        logits = opened.body(torch.from_numpy(IMAGE))[0].numpy()
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logits, rtol=1e-3, atol=1e-4)
    grad = found.grad_cam(IMAGE, lambda scores: scores[:, 2])
    plain = maps[2] - opened.body.fc.bias[2].item()  # with a pooled linear head Grad-CAM is the map, scaled
    np.testing.assert_allclose(grad, np.maximum(plain, 0) / plain.size, rtol=1e-3, atol=1e-4)


def test_a_head_of_several_layers_has_no_cam() -> None:
    with pytest.raises(StageError, match=r"no class activation map.*gradcam, occlusion and lrp"):
        FeatureMap(laid_open(build("torchvision:alexnet", 3).body), IMAGE).cam(IMAGE)


class TwoScales(nn.Module):
    """Reads its score from two maps side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, 2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        return self.head(torch.cat([fine.mean((2, 3)), self.coarse(fine).mean((2, 3))], 1))


def test_several_last_maps_ask_for_a_choice_and_take_it() -> None:
    opened = laid_open(TwoScales())
    with pytest.raises(StageError, match=r"2 feature maps \(coarse, fine\); gradcam is told which by --layer"):
        FeatureMap(opened, IMAGE)
    assert FeatureMap(opened, IMAGE, "coarse").grad_cam(IMAGE, lambda scores: scores[:, 0]).shape == (30, 30)


def test_a_wrong_layer_is_told_the_nearest() -> None:
    opened = laid_open(TwoScales())
    with pytest.raises(StageError, match=r"no layer 'coarze'.*coarse"):
        FeatureMap(opened, IMAGE, "coarze")
    with pytest.raises(StageError, match="no map"):
        FeatureMap(opened, IMAGE, "head")

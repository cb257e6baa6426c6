"""Canonical forms give the network's own logits, and relevance is neither made nor lost but in biases."""

import numpy as np
import pytest
import torch
from torch import nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import build
from edgecxr.teachers.canonical import Threshold
from edgecxr.teachers.explained import ExplainedNetwork
from edgecxr.teachers.lrp import COMPOSITES, Canonical

SIZE = 64
NETWORKS = ("resnet10t", "torchvision:resnet18", "torchvision:densenet121", "torchvision:alexnet")
NETWORKS += ("torchvision:squeezenet1_1", "torchvision:vgg11_bn", "densenet121", "covid_densenet")


def calibrated(network: nn.Module, images: np.ndarray) -> nn.Module:
    """Random weights under batch norms that know their films."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
        if isinstance(part, nn.Dropout):
            part.p = 0
    with torch.no_grad():
        network.train()(torch.from_numpy(images))
    return network.eval()


def without_biases(network: nn.Module) -> nn.Module:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.zero_()
        if isinstance(getattr(part, "bias", None), nn.Parameter):
            nn.init.zeros_(part.bias)
    return network


def laid_open(body: nn.Module, mean: float = 0.5, std: float = 0.25) -> ExplainedNetwork:
    scale = torch.full((1, 1, 1, 1), 1 / std)
    return ExplainedNetwork("it", body, scale, -mean * scale, (0, 1, 2))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((4, 1, SIZE, SIZE), dtype=np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_canonical_form_keeps_logits_and_conserves_relevance(name: str, images: np.ndarray) -> None:
    torch.manual_seed(0)
    network = calibrated(build(name, 3), images)
    opened = laid_open(network.body)
    values = opened.values(images[:1])
    canonical = Canonical(opened, images[:1])
    with torch.no_grad():
        torch.testing.assert_close(canonical.module(values), network.body(values), rtol=1e-3, atol=1e-4)
    assert canonical.norms_left == 0
    assert not any(isinstance(part, nn.BatchNorm2d) for part in canonical.module.modules())
    assert any(isinstance(part, Threshold) for part in canonical.module.modules()) == ("densenet" in name)
    free = Canonical(laid_open(without_biases(network).body), images[:1])
    composite = COMPOSITES[NETWORKS.index(name) % len(COMPOSITES)]
    with torch.no_grad():
        column = int(free.module(values)[0].abs().argmax())  # SqueezeNet's logits end in a ReLU
    relevance = free.relevance(images[:1], column, composite)
    assert abs(relevance.logit) > 1e-4
    assert relevance.conserved == pytest.approx(1, abs=5e-3)


def test_relevance_of_a_linear_network_is_weight_times_pixel() -> None:
    """The oracle by hand: one 1×1 convolution, mean, linear layer; the epsilon rule shares by contribution."""
    body = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)
    )
    nn.init.ones_(body[0].weight)
    body[4].weight.data = torch.tensor([[1.0], [2.0], [-3.0]])
    nn.init.zeros_(body[4].bias)
    image = np.random.default_rng(1).random((1, 1, 8, 8), dtype=np.float32)
    canonical = Canonical(laid_open(body, 0.0, 1.0), image)
    for column, weight in enumerate((1, 2, -3)):
        found = canonical.relevance(image, column, "epsilon-plus")
        np.testing.assert_allclose(found.values, weight * image[0, 0] / 64, rtol=1e-4, atol=1e-6)


def test_a_bias_takes_its_share_and_the_result_says_how_much() -> None:
    body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    body[2].weight.data.fill_(1.0)
    body[2].bias.data.fill_(1.0)
    image = np.full((1, 1, 8, 8), 0.25, np.float32)
    found = Canonical(laid_open(body, 0.0, 1.0), image).relevance(image, 0, "epsilon-plus")
    assert found.logit == pytest.approx(1.25)
    assert found.conserved == pytest.approx(0.2, abs=1e-4)


def test_attention_passes_relevance_to_the_map_alone() -> None:
    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.head = (
                nn.Conv2d(1, 4, 3, bias=False),
                nn.Conv2d(4, 4, 1),
                nn.Linear(4, 3, bias=False),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = torch.relu(self.first(x))
            return self.head((maps * torch.sigmoid(self.gate(maps))).mean((2, 3)))

    torch.manual_seed(2)
    image = np.random.default_rng(2).random((1, 1, 16, 16), dtype=np.float32)
    found = Canonical(laid_open(Attended().eval()), image).relevance(image, 2, "epsilon-plus-flat")
    assert found.conserved == pytest.approx(1, abs=1e-3)


def test_a_layer_without_a_rule_is_refused_by_name() -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(StageError, match="no rule for 'GroupNorm'"):
        Canonical(laid_open(body), np.zeros((1, 1, 16, 16), np.float32))


def test_code_that_depends_on_values_is_refused() -> None:
    class Wayward(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :3] if x.sum() > 0 else -x.flatten(1)[:, :3]

    with pytest.raises(StageError, match="cannot follow Wayward"):
        Canonical(laid_open(Wayward()), np.zeros((1, 1, 16, 16), np.float32))


def test_an_unknown_composite_is_refused_with_the_choices(images: np.ndarray) -> None:
    body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    with pytest.raises(StageError, match="choose epsilon-plus-flat, epsilon-plus, epsilon-gamma-box"):
        Canonical(laid_open(body), images[:1]).relevance(images[:1], 0, "alpha")

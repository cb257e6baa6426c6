"""Class activation maps of trained networks: their means are the logits, and who has none is known."""

import pytest

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

from edgecxr.export.class_maps import class_maps  # noqa: E402
from edgecxr.teachers.architecture import build  # noqa: E402
from edgecxr.teachers.joint import join  # noqa: E402


@pytest.mark.parametrize("name", ["test_resnet", "covid_densenet", "torchvision:resnet18", "torchvision:mobilenet_v2"])
def test_the_mean_of_a_map_is_the_logit(name: str) -> None:
    network = build(name, 3)
    maps = class_maps(network, 96)
    assert maps is not None
    films = torch.rand(2, 1, 96, 96)
    with torch.no_grad():
        found, logits = maps(films), network(films)
    assert found.shape == (2, 3, 3, 3)
    torch.testing.assert_close(found.mean((2, 3)), logits, rtol=1e-4, atol=1e-5)
    assert {value.data_ptr() for value in maps.parameters()} == {value.data_ptr() for value in network.parameters()}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision:squeezenet1_1", 96),  # a ReLU between the map and its mean
        ("torchvision:alexnet", 96),  # three linear layers
        ("mobilenetv3_small_050", 96),  # a layer between the mean and the classifier
        ("test_vit", 160),  # no map
        ("test_resnet", 32),  # of one cell
        ("crossvit_9_240", 240),  # a list of maps
        ("torchvision:maxvit_t", 224),  # it takes films of one size only
    ],
)
def test_other_networks_have_none(name: str, size: int) -> None:
    assert class_maps(build(name, 3), size) is None


def test_joined_networks_have_none() -> None:
    assert class_maps(join({name: build(name, 3) for name in ("test_resnet", "resnet10t")}), 96) is None

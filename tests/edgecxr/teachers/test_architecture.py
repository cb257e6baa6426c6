import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import build, head_parameters
from edgecxr.teachers.weights import write_weights

pytestmark = pytest.mark.train


@pytest.mark.parametrize("name", ["test_resnet", "timm:test_efficientnet", "torchvision:mobilenet_v3_small"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_library_gives_one_logit_per_class(name, channels):
    network = build(name, 5, channels).eval()
    assert network(torch.rand(2, 1, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"no architecture 'resnet19' in timm; the nearest names are .*resnet18"),
        ("torchvision:resnet19", r"no architecture 'resnet19' in torchvision; the nearest names are .*resnet18"),
        ("keras:resnet18", r"library 'keras'; wanted timm: or torchvision:"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, message):
    with pytest.raises(StageError, match=message):
        build(name, 3)


@pytest.mark.parametrize(
    ("name", "least"), [("torchvision:alexnet", 63), ("inception_v3", 75), ("torchvision:inception_v3", 75)]
)
def test_films_that_are_too_small_are_refused_with_the_smallest_size(name, least):
    with pytest.raises(StageError, match=f"{name} needs films of at least {least}×{least} pixels, .* is 32; raise it"):
        build(name, 3, size=32)


def test_imagenet_weights_that_are_there_answer_as_on_a_gray_rgb_image(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    original = torchvision.models.resnet18(weights=None).eval()
    file = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    torch.save(original.state_dict(), file)
    network = build("torchvision:resnet18", 1000, channels=1, pretrained="imagenet").eval()
    images = torch.rand(2, 1, 64, 64)
    mean, std = network.mean.item(), network.std.item()
    wanted = original((images.expand(-1, 3, -1, -1) - mean) / std)
    torch.testing.assert_close(network(images), wanted, rtol=1e-3, atol=1e-4)


def test_timm_weights_are_taken_from_the_hub_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    original = timm.create_model("test_resnet", num_classes=1000)
    write_weights(tmp_path / "hub" / "checkpoints" / "test_resnet.safetensors", original.state_dict())
    network = build("test_resnet", 3, pretrained="imagenet")
    wanted = original.state_dict()["conv1.0.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(network.body.state_dict()["conv1.0.weight"], wanted)


def test_the_old_names_of_torchvisions_densenets_are_understood(tmp_path):
    theirs = torchvision.models.densenet121(weights=None).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", name): value for name, value in theirs.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121-old.pth")
    ours = build(
        "torchvision:densenet121", 3, channels=3, pretrained=tmp_path / "densenet121-old.pth"
    ).body.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name.startswith("features."))


@pytest.mark.parametrize(("file", "network"), [("resnet18", "resnet34"), ("resnet34", "resnet18")])
def test_a_file_that_fits_in_part_is_refused(tmp_path, file, network):
    write_weights(tmp_path / "w.safetensors", timm.create_model(file, num_classes=3).state_dict())
    with pytest.raises(
        StageError, match=r"only 1[01]\.\d+ of .* million weights fit the network, which has .*; name the"
    ):
        build(network, 3, channels=3, pretrained=tmp_path / "w.safetensors")


@pytest.mark.parametrize(("classes", "mean"), [(1000, (0.485 + 0.456 + 0.406) / 3), (14, 0.5)])
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_file_of_imagenet_weights_is_normalized_as_they_were_trained(tmp_path, library, classes, mean):
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    write_weights(tmp_path / "w.safetensors", make("resnet18", num_classes=classes).state_dict())
    network = build(f"{library}:resnet18", 3, pretrained=tmp_path / "w.safetensors")
    assert network.mean.item() == pytest.approx(mean)


def test_a_weight_file_starts_the_body_and_leaves_the_head(tmp_path):
    first = build("test_resnet", 14)
    write_weights(tmp_path / "w.safetensors", first.state_dict())
    second = build("test_resnet", 3, pretrained=tmp_path / "w.safetensors")
    ours, theirs = second.state_dict(), first.state_dict()
    head = head_parameters(second)
    assert head == {"body.fc.weight", "body.fc.bias"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name not in head)
    assert ours["body.fc.weight"].shape == (3, theirs["body.fc.weight"].shape[1])

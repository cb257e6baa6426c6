"""Covid-DenseNet: its scales, its attention, its map, and the weights of a plain DenseNet in its backbone."""

import pytest
import timm
import torch

from edgecxr.export.student import build_student
from edgecxr.teachers.architecture import build, head_parameters
from edgecxr.teachers.covid_densenet import FUSED, CovidDenseNet
from edgecxr.teachers.weights import write_weights

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def small() -> CovidDenseNet:
    torch.manual_seed(0)
    return CovidDenseNet(growth_rate=8, block_config=(2, 2, 2, 2), in_chans=1, num_classes=3).eval()


@pytest.mark.parametrize("side", [32, 64, 75, 97])
def test_every_input_size_gives_a_map_of_a_thirty_second(small, side):
    with torch.inference_mode():
        fused = small.forward_features(torch.rand(2, 1, side, side))
        assert fused.shape == (2, FUSED, side // 32, side // 32)
        assert small(torch.rand(2, 1, side, side)).shape == (2, 3)


def test_the_logit_is_the_mean_of_a_linear_map_of_the_fused_features(small):
    images = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        cam = torch.einsum("nchw,kc->nkhw", small.forward_features(images), small.classifier.weight)
        torch.testing.assert_close(small(images), cam.mean((2, 3)) + small.classifier.bias)


@pytest.mark.parametrize("scale", range(4))
def test_each_scale_and_its_attention_reach_the_logits(small, scale):
    small.zero_grad()
    small(torch.rand(2, 1, 64, 64)).sum().backward()
    for part in (small.projections[scale].conv, small.attentions[scale].channel.fc1, small.attentions[scale].spatial):
        assert all(weight.grad.abs().sum() > 0 for weight in part.parameters() if weight.ndim == 4)


def test_channel_attention_scales_whole_channels_between_0_and_1(small):
    scale = torch.rand(1, 128, 6, 6) + 0.1
    with torch.inference_mode():
        factor = small.attentions[0].channel(scale) / scale
    assert ((factor > 0) & (factor < 1)).all()
    torch.testing.assert_close(factor.amax((2, 3)), factor.amin((2, 3)))


def test_imagenet_weights_of_a_plain_densenet_fill_the_backbone_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = timm.create_model("densenet121", num_classes=1000).state_dict()
    write_weights(tmp_path / "hub" / "checkpoints" / "covid_densenet.safetensors", theirs)
    network = build("covid_densenet", 3, channels=3, pretrained="imagenet")
    ours = network.body.state_dict()
    backbone = {name for name in theirs if name.startswith("features.")}
    assert backbone == {name for name in ours if name.startswith("features.")}
    assert all(torch.equal(ours[name], theirs[name]) for name in backbone)
    assert network.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_it_is_a_name_like_any_other_for_teachers_and_students():
    network = build("timm:covid_densenet169", 5)
    assert head_parameters(network) == {"body.classifier.weight", "body.classifier.bias"}
    student = build_student("covid_densenet", 2)
    assert (student.embedding_size, student.cam_shape(64)) == (FUSED, (2, 2))

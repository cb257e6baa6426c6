"""Backbones of the published systems as students: whole heads cut off, and every form of theirs in every precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

import torchvision  # noqa: E402

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.lint import lint  # noqa: E402
from edgecxr.export.student import Student, build_student  # noqa: E402
from edgecxr.export.to_fp16 import to_fp16  # noqa: E402
from edgecxr.export.to_int8 import Method, OutputLoss, quantize  # noqa: E402
from edgecxr.export.to_onnx import to_onnx  # noqa: E402
from edgecxr.runtimes.graph import GraphSession  # noqa: E402

pytestmark = pytest.mark.train
SIZE = 64
DENSE: dict[str, Any] = {"growth_rate": 8, "block_config": (1, 1, 1, 1)}  # every form of a DenseNet, few layers


def settled(name: str, options: dict[str, Any] | None = None, size: int = SIZE) -> Student:
    """A student of 3 classes from random weights, its batch norms with statistics of their own."""
    torch.manual_seed(0)
    student = build_student(name, 3, options=options).train()
    with torch.no_grad():
        for _ in range(2):
            student(torch.rand(8, 1, size, size))
    torch.nn.init.normal_(student.head.weight, std=0.5)
    return student.eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision:squeezenet1_1", None),  # concatenations, max pools that round up
        ("densenet121", DENSE),  # batch norms before convolutions
        ("covid_densenet", DENSE),  # attention: weights used twice, maxima over channels
    ],
)
def test_every_form_exports_to_every_precision_and_both_engines_agree(
    name: str, options: dict[str, Any] | None, tiny_images: NDArray[np.float32]
) -> None:
    student = settled(name, options)
    films = np.repeat(np.repeat(tiny_images[:8], 2, 2), 2, 3)
    fp32 = to_onnx(student, SIZE)
    half = to_fp16(fp32)
    whole = OutputLoss(fp32, films)
    int8 = quantize(fp32, films[:4], methods=[Method("minmax")], score=whole)
    for model, precision in ((fp32, "fp32"), (half, "fp16"), (int8.model, "int8")):
        lint(model, precision)
    assert whole(half) < 0.02
    for backend in ("openvino", "onnxruntime"):
        with GraphSession(fp32, backend) as one, GraphSession(int8.model, backend) as other:
            wanted, rounded = one.infer(films).cam, other.infer(films).cam
        # random weights round badly (0.31 of SqueezeNet, which has no batch norm); a wrongly wired graph is beyond 1
        assert np.sqrt(np.mean((rounded - wanted) ** 2) / np.mean(wanted**2)) < 0.5
    with torch.inference_mode():
        expected = student.forward_full(torch.from_numpy(films))
    with GraphSession(fp32, "openvino") as session:
        for got, want in zip(session.infer(films), expected, strict=True):
            np.testing.assert_allclose(got, want.numpy(), atol=1e-3 * max(1.0, float(want.abs().max())))


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "densenet121", "resnet18", "mobilenet_v3_small"])
def test_a_torchvision_trunk_is_the_network_up_to_its_pooling(name: str) -> None:
    student = build_student(f"torchvision:{name}", 2).eval()
    network = torchvision.models.get_model(name, weights=None, num_classes=2).eval()
    own = student.backbone.body.state_dict()
    first = next(key for key, value in own.items() if value.ndim == 4)
    theirs = {key: value for key, value in network.state_dict().items() if key in own and key != first}
    network.load_state_dict({**network.state_dict(), **{key: own[key] for key in theirs}})
    with torch.no_grad():
        weights = dict(network.named_parameters())[first]
        weights.zero_()
        weights[:, :1] = own[first]  # a gray film in the first of three channels
        films = torch.rand(2, 1, 96, 96)
        body = network.features if hasattr(network, "features") else torch.nn.Sequential(*list(network.children())[:-2])
        wanted = body(torch.cat([films, torch.rand(2, 2, 96, 96)], 1))
        wanted = wanted.relu() if name == "densenet121" else wanted
        torch.testing.assert_close(student.backbone.forward_features(films), wanted)
    assert student.embedding_size == wanted.shape[1]


def test_fully_connected_layers_stay_behind() -> None:
    sizes = {name: _millions(name) for name in ("vgg16", "torchvision:alexnet")}
    assert sizes == {"vgg16": pytest.approx(14.7, abs=0.1), "torchvision:alexnet": pytest.approx(2.5, abs=0.1)}


def _millions(name: str) -> float:
    return sum(part.numel() for part in build_student(name, 3).parameters()) / 1e6


def test_a_torchvision_student_starts_from_weights_and_their_normalization(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    original = torchvision.models.squeezenet1_1(weights=None)
    best = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(original.state_dict(), tmp_path / "hub" / "checkpoints" / Path(best.url).name)
    student = build_student("torchvision:squeezenet1_1", 3, pretrained="imagenet")
    own = student.backbone.body.state_dict()["features.3.squeeze.weight"]
    assert torch.equal(own, original.state_dict()["features.3.squeeze.weight"])
    assert float(student.mean) == pytest.approx(np.mean(best.transforms().mean))
    assert float(1 / student.scale) == pytest.approx(np.mean(best.transforms().std))


@pytest.mark.parametrize(
    ("name", "size", "least"), [("torchvision:alexnet", 48, 63), ("inception_v3", 64, 75), ("covid_densenet", 16, 29)]
)
def test_films_that_are_too_small_are_refused_with_the_smallest_size(name: str, size: int, least: int) -> None:
    with pytest.raises(StageError, match=f"{name} needs films of at least {least}×{least} pixels, .* is {size}; raise"):
        build_student(name, 3, size=size)


def test_networks_without_a_map_and_options_that_nobody_takes_are_refused() -> None:
    with pytest.raises(StageError, match="VisionTransformer has no pooled head to cut off"):
        build_student("torchvision:vit_b_32", 3)
    with pytest.raises(StageError, match=r"torchvision:resnet18 does not take \{'channels': 3\}"):
        build_student("torchvision:resnet18", 3, options={"channels": 3})

"""Networks of a recipe that cannot be built are said before anything is trained."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.networks import check_networks  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402

RECIPE = """\
name: tiny
version: "1"
data: {folds: {train: [0, 1, 2], validate: [3], test: [4]}, phantom: {films_per_finding: 20}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid], reference: normal}
    column: label
preprocess: {size: 32}
teachers:
  - {name: a, architecture: test_resnet}
  - {name: b, architecture: "torchvision:squeezenet1_1", preprocess: {size: 40}}
student: {architecture: test_resnet}
card: {intended_use: tests, limits: all, data: none}
"""


BROUGHT = '  - {{name: c, kind: factory, factory: "brought:network", size: 32, classes: [{}]}}\n'
NETWORK = """\
import torch

def network():
    return torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.Linear(1, 2))
"""


def check(folder: Path, old: str = "", new: str = "") -> None:
    assert old in RECIPE
    (folder / "x.yaml").write_text(RECIPE.replace(old, new) if old else RECIPE)
    (folder / "brought.py").write_text(NETWORK)
    check_networks(load_recipe(folder / "x.yaml"), folder)


def test_networks_that_can_be_built_pass(tmp_path: Path) -> None:
    check(tmp_path)
    check(tmp_path, "student:", f"{BROUGHT.format('normal, covid')}student:")


def test_a_student_too_large_for_a_bundle_is_told_of(tmp_path: Path) -> None:
    large = "student: {architecture: resnet50}"
    with pytest.raises(StageError, match=r"'resnet50' has 23\d+ weights, which are 70\.\d MB as fp16 and int8"):
        check(tmp_path, "student: {architecture: test_resnet}", large)
    check(tmp_path, "student: {architecture: test_resnet}", f"{large}\nquantize: {{precisions: [int8]}}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_for_the_student_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="device 'cuda' was asked for and this machine has no CUDA device"):
        check(
            tmp_path,
            "architecture: test_resnet}\ncard",
            "architecture: test_resnet, distillation: {device: cuda}}\ncard",
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("student:", f"{BROUGHT.format('normal, covid, _')}student:", "'c' gave .4, 2. .* list every output"),
        ("student:", f"{BROUGHT.format('normal, flu')}student:", "teacher 'c' lacks covid of head 'diagnosis'"),
        ('"torchvision:squeezenet1_1"', '"torchvision:alexnet"', "alexnet needs films of at least 63×63 pixels, .* 40"),
        (
            "student: {architecture: test_resnet}",
            "student: {architecture: inception_v3}",
            "at least 75×75 pixels, .* 32",
        ),
        (
            "{name: a, architecture: test_resnet}",
            "{name: a, architecture: resnet18, pretrained: imagenet}",
            "HF_HUB_OFF",
        ),
        (
            "{name: b, ",
            "{name: b, pretrained: x.yaml, ",
            "x.yaml is not a plain weight file",
        ),
    ],
)
def test_what_cannot_be_built_is_one_sentence(
    old: str, new: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(StageError, match=message):
        check(tmp_path, old, new)

"""The exported FP32 graph: PyTorch's outputs, the contract's shapes, nothing of the machine that made it."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.lint import lint  # noqa: E402
from edgecxr.export.student import Student, build_student  # noqa: E402
from edgecxr.export.to_onnx import OUTPUTS, largest_difference, to_onnx, with_dynamic_batch  # noqa: E402
from edgecxr.runtimes.graph import GraphSession  # noqa: E402

pytestmark = pytest.mark.train
Images = NDArray[np.float32]


def test_both_engines_give_what_pytorch_gives(
    tiny: Callable[[int], Student], tiny_fp32: bytes, tiny_images: Images
) -> None:
    with torch.inference_mode():
        expected = tiny(0).forward_full(torch.from_numpy(tiny_images))
    for backend in ("openvino", "onnxruntime"):
        with GraphSession(tiny_fp32, backend) as session:
            for got, want in zip(session.infer(tiny_images), expected, strict=True):
                np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_batch_norms_are_folded_and_the_lint_passes(tiny_fp32: bytes) -> None:
    lint(tiny_fp32, "fp32")
    kinds = [node.op_type for node in onnx.load_from_string(tiny_fp32).graph.node]
    assert kinds.count("Conv") == 5
    assert "BatchNormalization" not in kinds


def test_names_are_ours_and_no_path_of_this_machine_is_in_the_file(tiny_fp32: bytes) -> None:
    model = onnx.load_from_string(tiny_fp32)
    assert [item.name for item in model.graph.output] == list(OUTPUTS)
    assert all(node.name == f"{node.op_type}_{index}" for index, node in enumerate(model.graph.node))
    assert b".py" not in tiny_fp32
    assert b"site-packages" not in tiny_fp32
    assert {item.key: item.value for item in model.metadata_props}["edgecxr.classes"] == '["a", "b", "c"]'


def test_the_same_student_gives_the_same_bytes(tiny: Callable[[int], Student], tiny_fp32: bytes) -> None:
    assert to_onnx(tiny(0), 32, classes=("a", "b", "c")) == tiny_fp32


def test_the_dynamic_twin_takes_batches_and_agrees(tiny_fp32: bytes, tiny_images: Images) -> None:
    with (
        GraphSession(tiny_fp32, "onnxruntime") as one,
        GraphSession(with_dynamic_batch(tiny_fp32), "onnxruntime") as many,
    ):
        for got, want in zip(many.infer(tiny_images), one.infer(tiny_images), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)


def test_another_student_is_told_apart(tiny: Callable[[int], Student], tiny_fp32: bytes, tiny_images: Images) -> None:
    assert largest_difference(tiny(0), tiny_fp32, tiny_images[:1]) < 1e-5
    assert largest_difference(tiny(1), tiny_fp32, tiny_images[:1]) > 1e-2


def test_names_must_match_the_logits(tiny: Callable[[int], Student]) -> None:
    with pytest.raises(StageError, match="3 logits, but 2 names"):
        to_onnx(tiny(0), 32, classes=("a", "b"))


def test_a_batch_norm_before_its_convolution_becomes_a_multiplication_and_an_addition() -> None:
    student = build_student("resnetv2_18", 2).train()
    with torch.no_grad():
        student(torch.rand(8, 1, 32, 32))
    model = onnx.load_from_string(to_onnx(student, 32))
    kinds = [node.op_type for node in model.graph.node]
    before = sum(isinstance(part, torch.nn.BatchNorm2d) for part in student.modules())
    assert "BatchNormalization" not in kinds
    assert 0 < kinds.count("Mul") - 1 <= before
    read = {name for node in model.graph.node for name in node.input}
    assert {item.name for item in model.graph.initializer} <= read


class Enlarging(torch.nn.Module):
    """Small differences on a large common value, which a batch norm brings to the size of one: they are rounded."""

    num_features = 32

    def __init__(self, *, miswired: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.miswired = miswired
        self.first = torch.nn.Conv2d(1, 64, 3, padding=1)
        torch.nn.init.constant_(self.first.bias, 1000.0)  # type: ignore[arg-type]
        self.second = torch.nn.Conv2d(64, 32, 3, bias=False)
        self.norm = torch.nn.BatchNorm2d(32, momentum=None)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.norm(self.second(self.first(images))))
        return maps.flip(1) if self.miswired and torch.compiler.is_exporting() else maps


def enlarging(*, miswired: bool = False) -> Student:
    student = Student(Enlarging(miswired=miswired), 3)
    torch.nn.init.normal_(student.head.weight)
    with torch.no_grad():
        student.train()(torch.rand(8, 1, 32, 32))
    return student.eval()


def test_rounding_that_pytorch_has_too_is_no_wrong_wiring() -> None:
    student = enlarging()
    data = to_onnx(student, 32)
    probe = np.random.default_rng(0).random((1, 1, 32, 32), dtype=np.float32)
    assert 1e-4 < largest_difference(student, data, probe) < 1e-2
    with pytest.raises(StageError, match="the exported graph differs from PyTorch by"):
        to_onnx(enlarging(miswired=True), 32)


def test_inception_exports_at_the_smallest_size() -> None:
    torch.manual_seed(0)
    student = build_student("inception_v3", 3, size=75)
    for part in student.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # statistics of the films seen, as after training
    with torch.no_grad():
        student.train()(torch.rand(4, 1, 75, 75))
    with GraphSession(to_onnx(student.eval(), 75), "onnxruntime") as session:
        assert session.infer(np.zeros((1, 1, 75, 75), np.float32)).logits.shape == (1, 3)

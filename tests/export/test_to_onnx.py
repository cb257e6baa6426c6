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

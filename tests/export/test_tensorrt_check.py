"""A real TensorRT parser and builder, on good graphs and on graphs that the lint refuses for its sake."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import helper, numpy_helper  # noqa: E402

from edgecxr.export.calibration import observe  # noqa: E402
from edgecxr.export.lint import problems  # noqa: E402
from edgecxr.export.qdq import insert_qdq  # noqa: E402
from edgecxr.export.student import build_student  # noqa: E402
from edgecxr.export.tensorrt_check import build_with_tensorrt  # noqa: E402
from edgecxr.export.to_fp16 import to_fp16  # noqa: E402
from edgecxr.export.to_onnx import to_onnx, with_dynamic_batch  # noqa: E402
from edgecxr.runtimes import tensorrt_api  # noqa: E402

pytestmark = pytest.mark.train
Model = onnx.ModelProto


@pytest.fixture(scope="module")
def int8(tiny_fp32: bytes, tiny_images: NDArray[np.float32]) -> bytes:
    return insert_qdq(tiny_fp32, observe(tiny_fp32, tiny_images).ranges("mse"))


@pytest.mark.tensorrt
def test_every_precision_of_a_student_builds(tiny_fp32: bytes, int8: bytes) -> None:
    for model in (tiny_fp32, to_fp16(tiny_fp32), int8, to_fp16(int8)):
        report = build_with_tensorrt(model)
        assert (report.outcome, report.errors) == ("built", ())
        assert report.engine_bytes > 0
        assert report.library.startswith("tensorrt")


@pytest.mark.tensorrt
def test_a_real_backbone_builds_in_int8() -> None:
    films = np.random.default_rng(0).random((2, 1, 64, 64), np.float32)
    fp32 = to_onnx(build_student("regnetx_002", 3), 64)
    assert build_with_tensorrt(insert_qdq(fp32, observe(fp32, films).ranges("minmax"))).outcome == "built"


@pytest.mark.tensorrt
def test_the_dynamic_twin_builds_with_a_profile(int8: bytes) -> None:
    assert build_with_tensorrt(with_dynamic_batch(int8), largest_batch=8).outcome == "built"


def _first_scale(model: Model) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "QuantizeLinear")


def _replace(model: Model, name: str, values: np.ndarray) -> None:
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(values, name))


def _zero_point(model: Model) -> None:
    _replace(model, _first_scale(model).input[2], np.array(3, np.int8))


def _negative_scale(model: Model) -> None:
    _replace(model, _first_scale(model).input[1], np.array(-0.1, np.float32))


def _int32_bias(model: Model) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    size = next(item for item in model.graph.initializer if item.name == conv.input[2]).dims[0]
    _replace(model, conv.input[2], np.zeros(size, np.int32))
    for name, value in (("bias_scale", np.float32(0.001)), ("bias_zero", np.int32(0))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    names = [conv.input[2], "bias_scale", "bias_zero"]
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", names, ["bias_float"], "Dequantize_bias"))
    conv.input[2] = "bias_float"


@pytest.mark.tensorrt
@pytest.mark.parametrize("change", [_zero_point, _negative_scale, _int32_bias])
def test_the_parser_refuses_what_the_lint_refuses(change: Callable[[Model], None], int8: bytes) -> None:
    model = onnx.load_from_string(int8)
    change(model)
    broken = model.SerializeToString()
    assert problems(broken, "int8")
    report = build_with_tensorrt(broken)
    assert report.outcome == "refused"
    assert report.reason == report.errors[0] != ""


@pytest.mark.tensorrt
def test_garbage_is_refused_not_raised() -> None:
    assert build_with_tensorrt(b"not a graph").outcome == "refused"


def test_without_tensorrt_the_report_says_so(monkeypatch: pytest.MonkeyPatch, tiny_fp32: bytes) -> None:
    monkeypatch.setattr(tensorrt_api, "PACKAGES", (("a_package_that_is_not_there",),))
    report = build_with_tensorrt(tiny_fp32)
    assert report.outcome == "absent"
    assert "pip install 'edgecxr[tensorrt]'" in report.reason

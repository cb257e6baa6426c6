"""FP16 graphs: half inside, float32 at the edges, close to FP32."""

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import TensorProto, numpy_helper  # noqa: E402

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.calibration import observe  # noqa: E402
from edgecxr.export.lint import lint  # noqa: E402
from edgecxr.export.qdq import insert_qdq  # noqa: E402
from edgecxr.export.to_fp16 import to_fp16  # noqa: E402
from edgecxr.runtimes.graph import GraphSession  # noqa: E402

pytestmark = pytest.mark.train


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_outputs_move_by_half_precision_only(backend: str, tiny_fp32: bytes, tiny_images: NDArray[np.float32]) -> None:
    with GraphSession(tiny_fp32, backend) as full, GraphSession(to_fp16(tiny_fp32), backend) as half:
        for got, want in zip(half.infer(tiny_images), full.infer(tiny_images), strict=True):
            assert np.abs(got - want).max() <= 1e-2 * np.abs(want).max()


def test_half_the_bytes_and_the_lint_passes(tiny_fp32: bytes, tiny_images: NDArray[np.float32]) -> None:
    half = to_fp16(tiny_fp32)
    lint(half, "fp16")
    assert len(half) < 0.75 * len(tiny_fp32)
    quantized = to_fp16(insert_qdq(tiny_fp32, observe(tiny_fp32, tiny_images).ranges("minmax")))
    lint(quantized, "int8")
    scales = [item for item in onnx.load_from_string(quantized).graph.initializer if item.name.endswith("_scale")]
    assert {item.data_type for item in scales} == {TensorProto.FLOAT16}


def test_a_weight_beyond_half_precision_is_refused(tiny_fp32: bytes) -> None:
    model = onnx.load_from_string(tiny_fp32)
    item = next(item for item in model.graph.initializer if item.name.endswith("head.weight"))
    item.CopyFrom(numpy_helper.from_array(np.full((3, 16, 1, 1), 1e5, np.float32), item.name))
    with pytest.raises(StageError, match=r"head\.weight holds values beyond float16"):
        to_fp16(model.SerializeToString())

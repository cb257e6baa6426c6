"""Where integers sit in the graph, and what rounding they do, against arithmetic in NumPy."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import numpy_helper  # noqa: E402

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.calibration import observe  # noqa: E402
from edgecxr.export.lint import lint  # noqa: E402
from edgecxr.export.qdq import SMALLEST_SCALE, correct_biases, insert_qdq, quantizable, weight_scales  # noqa: E402
from edgecxr.runtimes.graph import GraphSession  # noqa: E402

pytestmark = pytest.mark.train
Images = NDArray[np.float32]


def test_every_convolution_but_the_head_stands_between_integers(tiny_fp32: bytes, tiny_images: Images) -> None:
    model = insert_qdq(tiny_fp32, observe(tiny_fp32, tiny_images).ranges("minmax"))
    lint(model, "int8")
    graph = onnx.load_from_string(model).graph
    producers = {node.output[0]: node.op_type for node in graph.node}
    for node in (node for node in graph.node if node.op_type == "Conv"):
        wanted = "DequantizeLinear" if "cam" not in node.output else None
        assert (producers[node.input[0]] == "DequantizeLinear") == (wanted is not None)
        assert producers.get(node.input[1]) == wanted
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 4


def test_excluded_convolutions_stay_in_float(tiny_fp32: bytes, tiny_images: Images) -> None:
    first = quantizable(onnx.load_from_string(tiny_fp32).graph)[0].name
    ranges = observe(tiny_fp32, tiny_images).ranges("minmax")
    graph = onnx.load_from_string(insert_qdq(tiny_fp32, ranges, exclude=[first])).graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 3


def test_weight_scales_are_per_channel_and_never_too_small() -> None:
    weights = np.zeros((3, 2, 1, 1), np.float32)
    weights[0, 1], weights[1, 0] = -1.26, 1e-9
    np.testing.assert_allclose(weight_scales(weights), [0.02, SMALLEST_SCALE, SMALLEST_SCALE], rtol=1e-6)


def test_both_engines_run_the_same_arithmetic(tiny_fp32: bytes, tiny_images: Images) -> None:
    model = insert_qdq(tiny_fp32, observe(tiny_fp32, tiny_images).ranges("mse"))
    with GraphSession(model, "openvino") as one, GraphSession(model, "onnxruntime") as other:
        a, b = one.infer(tiny_images), other.infer(tiny_images)
    spread = float(a.logits.std())
    assert np.median(np.abs(a.logits - b.logits)) < 1e-5 * spread  # but for ties that fall to either side
    assert np.abs(a.logits - b.logits).max() < 0.05 * spread


RUN = """
import sys
import numpy as np
from edgecxr.runtimes.graph import GraphSession
folder = sys.argv[1]
with open(folder + "/model.onnx", "rb") as file, GraphSession(file.read(), "openvino", threads=1) as session:
    np.save(folder + "/logits.npy", session.infer(np.load(folder + "/images.npy")).logits)
"""


@pytest.mark.parametrize("instructions", ["SSE41", "AVX2", "AVX512_CORE"])
def test_cpus_without_vnni_get_the_same_answers(
    instructions: str, tiny_fp32: bytes, tiny_images: Images, tmp_path: Path
) -> None:
    """OpenVINO held to older x86 instructions (on other CPUs the variable does nothing)."""
    model = insert_qdq(tiny_fp32, observe(tiny_fp32, tiny_images).ranges("mse"))
    (tmp_path / "model.onnx").write_bytes(model)
    np.save(tmp_path / "images.npy", tiny_images)
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], check=True, env=environment)
    with GraphSession(model, "onnxruntime") as session:
        wanted = session.infer(tiny_images).logits
    errors = np.abs(np.load(tmp_path / "logits.npy") - wanted)
    assert np.median(errors) < 1e-5 * wanted.std()
    assert errors.max() < 0.05 * wanted.std()


def test_a_range_that_is_missing_or_empty_is_refused(tiny_fp32: bytes) -> None:
    with pytest.raises(StageError, match="has the range None; calibrate on films"):
        insert_qdq(tiny_fp32, {})
    names = {node.input[0] for node in quantizable(onnx.load_from_string(tiny_fp32).graph)}
    with pytest.raises(StageError, match=r"has the range 0\.0"):
        insert_qdq(tiny_fp32, dict.fromkeys(names, 0.0))


def test_corrected_biases_take_the_mean_error_away() -> None:
    """One 1×1 convolution: after the correction the mean of its output is what it was before rounding."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(3)
    weights, bias = random.normal(size=(4, 6, 1, 1)).astype(np.float32), np.zeros(4, np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["c"], "Conv_0")]
    shapes = {"image": (1, 6, 4, 4), "c": (1, 4, 4, 4)}
    image, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [out], constants))
    means = random.random(6)
    corrected = onnx.load_from_string(correct_biases(model.SerializeToString(), {"image": means}))
    steps = weight_scales(weights).reshape(-1, 1)
    rounded = np.rint(weights[:, :, 0, 0] / steps) * steps
    np.testing.assert_allclose(
        rounded @ means + numpy_helper.to_array(corrected.graph.initializer[1]), weights[:, :, 0, 0] @ means, atol=1e-6
    )

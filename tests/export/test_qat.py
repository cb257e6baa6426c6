"""Training between fake integers: what PyTorch rounds is what the engines round, and training it helps."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import numpy_helper  # noqa: E402

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.calibration import observe  # noqa: E402
from edgecxr.export.distillation import DistillSettings  # noqa: E402
from edgecxr.export.lint import lint  # noqa: E402
from edgecxr.export.qat import FakeQuantGraph, fine_tune  # noqa: E402
from edgecxr.export.qdq import insert_qdq  # noqa: E402
from edgecxr.runtimes.graph import GraphSession  # noqa: E402
from edgecxr.spec import Head  # noqa: E402
from edgecxr.teachers.augment import AugmentSettings  # noqa: E402
from edgecxr.teachers.training import Samples  # noqa: E402

pytestmark = pytest.mark.train
Images = NDArray[np.float32]
HEADS = (Head(name="h", kind="softmax", classes=("a", "b", "c")),)
STILL = AugmentSettings(rotation=0, shift=0, scale=0, shear=0, gamma=0, contrast=0, brightness=0, noise=0)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_fake_integers_are_the_engines_integers(backend: str, tiny_fp32: bytes, tiny_images: Images) -> None:
    graph = FakeQuantGraph(tiny_fp32, observe(tiny_fp32, tiny_images).ranges("mse"))
    with torch.inference_mode():
        expected = graph.run(torch.from_numpy(tiny_images))
    with GraphSession(graph.to_int8(), backend) as session:
        for name, got in session.infer(tiny_images)._asdict().items():
            want = expected[name].numpy()
            assert np.median(np.abs(got - want)) < 1e-5 * want.std(), name
            assert np.abs(got - want).max() < 0.1 * want.std(), name


def test_untrained_it_is_post_training_quantization(tiny_fp32: bytes, tiny_images: Images) -> None:
    ranges = observe(tiny_fp32, tiny_images).ranges("minmax")
    graph = FakeQuantGraph(tiny_fp32, ranges)
    assert graph.ranges == pytest.approx(ranges, rel=1e-6)
    one, other = (onnx.load_from_string(model).graph for model in (graph.to_int8(), insert_qdq(tiny_fp32, ranges)))
    assert list(one.node) == list(other.node)
    wanted = {item.name: numpy_helper.to_array(item) for item in other.initializer}
    for item in one.initializer:
        np.testing.assert_allclose(numpy_helper.to_array(item), wanted[item.name], rtol=1e-6)


def test_gradients_reach_weights_biases_and_ranges(tiny_fp32: bytes, tiny_images: Images) -> None:
    graph = FakeQuantGraph(tiny_fp32, observe(tiny_fp32, tiny_images).ranges("percentile"))
    graph(torch.from_numpy(tiny_images)).square().sum().backward()
    still = [name for name, part in graph.named_parameters() if part.grad is None or not part.grad.abs().sum() > 0]
    assert still == []


def test_training_wins_back_what_bad_ranges_lost(tiny_fp32: bytes, tiny_images: Images, tmp_path: Path) -> None:
    ranges = {name: value * 0.4 for name, value in observe(tiny_fp32, tiny_images).ranges("minmax").items()}
    with GraphSession(tiny_fp32, "onnxruntime") as session:
        teacher = session.infer(tiny_images).logits
    samples = Samples(tiny_images, {"h": np.arange(24) % 3})
    settings = DistillSettings(
        epochs=25, batch=24, learning_rate=5e-3, hard_weight=0, average=0, metric="loss", augment=STILL, autocast="off"
    )
    start = insert_qdq(tiny_fp32, ranges)
    model, result = fine_tune(
        tiny_fp32, ranges, (samples, samples), (teacher, teacher), HEADS, settings, folder=tmp_path
    )
    lint(model, "int8")
    assert result.best < result.history[0]["score"]
    errors = []
    for each in (start, model):
        with GraphSession(each, "onnxruntime") as session:
            error = session.infer(tiny_images).logits - teacher
        errors.append(float(np.abs(error - error.mean(1, keepdims=True)).mean()))  # softmax leaves the mean free
    assert errors[1] < 0.5 * errors[0]


def test_an_operator_that_cannot_be_trained_is_named(tiny_fp32: bytes) -> None:
    model = onnx.load_from_string(tiny_fp32)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softmax"
    with pytest.raises(StageError, match="cannot train a graph with Softmax"):
        FakeQuantGraph(model.SerializeToString(), {})

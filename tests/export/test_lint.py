"""Every rule of a deployable graph, broken on purpose."""

from collections.abc import Callable

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgecxr.errors import LintError  # noqa: E402
from edgecxr.export.lint import lint, problems  # noqa: E402
from edgecxr.export.qdq import insert_qdq  # noqa: E402
from edgecxr.export.to_fp16 import to_fp16  # noqa: E402
from edgecxr.export.to_onnx import IR_VERSION, OPSET, with_dynamic_batch  # noqa: E402
from edgecxr.spec import Head, ModelSpec, PreprocessSpec  # noqa: E402

pytestmark = pytest.mark.train

Model = onnx.ModelProto
Change = Callable[[Model], object]


def fp32() -> bytes:
    """Two convolutions, a head and its means: the smallest graph of the contract."""
    random = np.random.default_rng(0)
    shapes = {"w0": (4, 1, 3, 3), "b0": (4,), "w1": (8, 4, 3, 3), "b1": (8,), "head": (3, 8, 1, 1), "head_b": (3,)}
    constants = [numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    constants.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["c0"], "Conv_0", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c0"], ["r0"], "Relu_1"),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], "Conv_2", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], "Relu_3"),
        helper.make_node("Conv", ["r1", "head", "head_b"], ["cam"], "Conv_4"),
        helper.make_node("ReduceMean", ["cam", "axes"], ["logits"], "ReduceMean_5", keepdims=0),
        helper.make_node("ReduceMean", ["r1", "axes"], ["embedding"], "ReduceMean_6", keepdims=0),
    ]
    values = {"image": (1, 1, 32, 32), "logits": (1, 3), "cam": (1, 3, 8, 8), "embedding": (1, 8)}
    image, *outputs = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values.items())
    graph = helper.make_graph(nodes, "student", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, {"edgecxr.cam": "logits = mean(cam)"})
    return bytes(model.SerializeToString())


def int8() -> bytes:
    return insert_qdq(fp32(), {"image": 1.0, "r0": 6.0})


def changed(model_bytes: bytes, change: Change) -> bytes:
    model = onnx.load_from_string(model_bytes)
    change(model)
    return bytes(model.SerializeToString())


def replace(model: Model, name: str, values: np.ndarray) -> None:
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(values, name))


def node(model: Model, name: str) -> onnx.NodeProto:
    return next(item for item in model.graph.node if item.name == name)


SPEC = ModelSpec(
    name="m",
    version="1",
    heads=(Head(name="h", kind="softmax", classes=("a", "b", "c")),),
    preprocess=PreprocessSpec(size=32),
    temperatures={},
    cam_shape=(8, 8),
    embedding_size=8,
)


def test_good_graphs_pass() -> None:
    lint(fp32(), "fp32", SPEC)
    lint(to_fp16(fp32()), "fp16", SPEC)
    lint(int8(), "int8", SPEC)
    lint(to_fp16(int8()), "int8", SPEC)


def _opset(model: Model) -> None:
    model.opset_import[0].version = 17
    del model.graph.node[5:]
    for name in ("logits", "embedding"):
        source = "cam" if name == "logits" else "r1"
        model.graph.node.append(helper.make_node("ReduceMean", [source], [name], name, axes=[2, 3], keepdims=0))


def _domain(model: Model) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _external(model: Model) -> None:
    item = model.graph.initializer[0]
    item.ClearField("raw_data")
    item.data_location = TensorProto.EXTERNAL
    item.external_data.add(key="location", value="weights.bin")


def _rename_output(model: Model) -> None:
    model.graph.output[0].name = node(model, "ReduceMean_5").output[0] = "scores"


def _half_edge(model: Model) -> None:
    model.graph.node.append(helper.make_node("Cast", ["e"], ["embedding"], "Cast_7", to=TensorProto.FLOAT16))
    node(model, "ReduceMean_6").output[0] = "e"
    model.graph.output[2].type.tensor_type.elem_type = TensorProto.FLOAT16


def _softmax(model: Model) -> None:
    node(model, "ReduceMean_5").output[0] = "l"
    model.graph.node.insert(6, helper.make_node("Softmax", ["l"], ["logits"], "Softmax_7"))


def _not_finite(model: Model) -> None:
    replace(model, "b0", np.array([np.nan, 0, 0, 0], np.float32))


def _ir(model: Model) -> None:
    model.ir_version = 10


def _metadata(model: Model) -> None:
    del model.metadata_props[:]


def _shape(model: Model) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_opset, "opset 17, wanted 19"),
        (_domain, "operators of the domain com.microsoft"),
        (_ir, "IR version 10, at most 9"),
        (_external, "stored outside the file"),
        (_rename_output, r"outputs \['scores', 'cam', 'embedding'\]"),
        (_half_edge, "embedding is FLOAT16; wanted FLOAT at the edges"),
        (_softmax, "operator Softmax is not on the list"),
        (_not_finite, "b0 holds a value that is infinite or not a number"),
        (_metadata, "no edgecxr.cam metadata"),
        (_shape, r"logits \[1, 2\], cam \[1, 3, 8, 8\]"),
    ],
)
def test_a_float_graph_that_breaks_a_rule(change: Change, match: str) -> None:
    with pytest.raises(LintError, match=match):
        lint(changed(fp32(), change), "fp32")


def _zero_point(model: Model) -> None:
    replace(model, "r0_zero", np.array(3, np.int8))


def _unsigned(model: Model) -> None:
    replace(model, "r0_zero", np.array(0, np.uint8))


def _small_scale(model: Model) -> None:
    replace(model, "r0_scale", np.array(1e-6, np.float32))


def _negative_scale(model: Model) -> None:
    replace(model, "r0_scale", np.array(-0.1, np.float32))


def _axis(model: Model) -> None:
    node(model, "Dequantize_w0").attribute[0].i = 1
    for suffix, kind in (("scale", np.float32), ("zero", np.int8)):
        replace(model, f"w0_{suffix}", np.array([0.0 if suffix == "zero" else 0.01], kind))


def _per_tensor(model: Model) -> None:
    replace(model, "w1_scale", np.array(0.01, np.float32))
    replace(model, "w1_zero", np.array(0, np.int8))


def _int32_bias(model: Model) -> None:
    names = ["b0", "bias_scale", "bias_zero"]
    replace(model, "b0", np.zeros(4, np.int32))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.001), names[1]))
    model.graph.initializer.append(numpy_helper.from_array(np.int32(0), names[2]))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", names, ["bias"], "Dequantize_bias"))
    node(model, "Conv_0").input[2] = "bias"


def _weight_only(model: Model) -> None:
    node(model, "Conv_2").input[0] = "r0"


def _wide_weights(model: Model) -> None:
    replace(model, "w1_int8", np.full((8, 4, 3, 3), -127, np.int8))


def _mixed(model: Model) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float16([1.0]), "stray"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_zero_point, r"zero point int8 \[3\]; wanted int8 and 0"),
        (_unsigned, r"zero point uint8 \[0\]"),
        (_small_scale, "scale 1e-06; wanted at least 2"),
        (_negative_scale, "scale -0.1; wanted at least 2"),
        (_axis, r"weight scales of shape \(1,\) on axis 1"),
        (_per_tensor, r"weight scales of shape \(\) on axis"),
        (_int32_bias, "dequantizes INT32"),
        (_int32_bias, "the bias is computed by DequantizeLinear"),
        (_weight_only, "int8 weights but a floating-point input"),
        (_wide_weights, "int8 weights reach 127; beyond 63"),
        (_mixed, "floating constants are float16, float32"),
    ],
)
def test_an_int8_graph_that_breaks_a_rule(change: Change, match: str) -> None:
    with pytest.raises(LintError, match=match):
        lint(changed(int8(), change), "int8")


def test_precision_must_be_what_the_file_holds() -> None:
    with pytest.raises(LintError, match="no QuantizeLinear and DequantizeLinear pairs"):
        lint(fp32(), "int8")
    with pytest.raises(LintError, match="quantize or dequantize nodes in an fp32 file"):
        lint(int8(), "fp32")
    with pytest.raises(LintError, match="floating constants are float32; a fp16 file"):
        lint(fp32(), "fp16")


def test_the_dynamic_twin_is_not_the_packed_form() -> None:
    with pytest.raises(LintError, match="have no static shape"):
        lint(with_dynamic_batch(fp32()), "fp32")


def test_shapes_must_fit_the_model() -> None:
    with pytest.raises(LintError, match="do not fit the model's"):
        lint(fp32(), "fp32", SPEC.model_copy(update={"embedding_size": 16}))


def test_garbage_is_one_problem_not_a_crash() -> None:
    assert len(problems(b"not a graph", "fp32")) == 1
    assert len(problems(b"", "fp32")) == 1
    assert problems(fp32()[:-50], "fp32")[0].startswith("not a valid ONNX graph")


def test_every_problem_is_told_at_once() -> None:
    def two(model: Model) -> None:
        _zero_point(model)
        _metadata(model)

    with pytest.raises(LintError) as caught:  # noqa: PT012, RUF100
        lint(changed(int8(), two), "int8")
    assert len(caught.value.problems) >= 2

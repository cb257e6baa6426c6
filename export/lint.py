"""The rules of a deployable graph: what TensorRT 10.3 to 11, TensorRT-RTX, OpenVINO and ONNX Runtime all accept.

Every rule was met in a real parser (docs/export.md). `lint` collects every problem before it raises.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgecxr.errors import LintError
from edgecxr.export.qdq import SMALLEST_SCALE, WEIGHT_MAX
from edgecxr.export.to_onnx import INPUT, IR_VERSION, OPSET, OUTPUTS
from edgecxr.spec import ModelSpec, Precision

__all__ = ["LARGEST_BYTES", "lint", "problems"]

LARGEST_BYTES = 512 * 2**20  # a student, not a teacher; also far below protobuf's 2 GiB
OPERATORS = frozenset(
    {"Add", "AveragePool", "Cast", "Clip", "Concat", "Constant", "Conv", "DequantizeLinear", "GlobalAveragePool"}
    | {"HardSigmoid", "HardSwish", "Identity", "MaxPool", "Mul", "Pad", "QuantizeLinear", "ReduceMax"}
    | {"ReduceMean", "Relu", "Reshape", "Sigmoid", "Sub"}
)
FLOATS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def lint(model_bytes: bytes, precision: Precision, spec: ModelSpec | None = None) -> None:
    """Raise LintError naming every rule that the graph breaks; with `spec`, also where it does not fit the model."""
    found = problems(model_bytes, precision, spec)
    if found:
        raise LintError(found)


def problems(model_bytes: bytes, precision: Precision, spec: ModelSpec | None = None) -> tuple[str, ...]:
    """Every rule that the graph breaks; empty for a graph that can be deployed."""
    if len(model_bytes) > LARGEST_BYTES:
        return (f"the file has {len(model_bytes)} bytes, at most {LARGEST_BYTES} are allowed",)
    try:
        model = onnx.load_from_string(model_bytes)
        if outside := tuple(_external(model)):  # before the checker, which would open those files
            return outside
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        return (f"not a valid ONNX graph: {error}",)
    graph = _Graph.of(model)
    rules = [_versions(model), _interface(graph, spec), _operators(graph)]
    rules += [_body(graph, precision), _quantization(graph, precision)]
    return tuple(problem for rule in rules for problem in rule)


@dataclass(frozen=True)
class _Graph:
    model: onnx.ModelProto
    nodes: tuple[onnx.NodeProto, ...]
    constants: dict[str, onnx.TensorProto]  # initializers and Constant nodes

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "_Graph":
        constants = {item.name: item for item in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                constants[node.output[0]] = node.attribute[0].t
        return cls(model, tuple(model.graph.node), constants)

    def value(self, name: str) -> NDArray[np.generic] | None:
        """The constant called `name`, or None when it is computed."""
        item = self.constants.get(name)
        return None if item is None else numpy_helper.to_array(item)

    def producer(self, name: str) -> onnx.NodeProto | None:
        return next((node for node in self.nodes if name in node.output), None)


def _versions(model: onnx.ModelProto) -> Iterator[str]:
    domains = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    if extra := sorted(set(domains) - {"ai.onnx"}):
        yield f"operators of the domain {', '.join(extra)}; only ai.onnx is read everywhere"
    if domains.get("ai.onnx") != OPSET:
        yield f"opset {domains.get('ai.onnx')}, wanted {OPSET}"
    if model.ir_version > IR_VERSION:
        yield f"IR version {model.ir_version}, at most {IR_VERSION} is read by the oldest engines"
    if model.functions or model.training_info:
        yield "local functions or training information; export the plain graph"


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim]


def _interface(graph: _Graph, spec: ModelSpec | None) -> Iterator[str]:
    """Names, types and static shapes of input and outputs, and that they fit each other and the spec."""
    initial = {item.name for item in graph.model.graph.initializer}
    inputs = {item.name: item for item in graph.model.graph.input if item.name not in initial}
    outputs = {item.name: item for item in graph.model.graph.output}
    if list(inputs) != [INPUT] or list(outputs) != list(OUTPUTS):
        yield f"inputs {list(inputs)} and outputs {list(outputs)}; wanted {[INPUT]} and {list(OUTPUTS)}"
        return
    for item in (*inputs.values(), *outputs.values()):
        kind = item.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            yield f"{item.name} is {TensorProto.DataType.Name(kind)}; wanted FLOAT at the edges"
    shapes = {name: _shape(item) for name, item in {**inputs, **outputs}.items()}
    if moving := [name for name, shape in shapes.items() if any(not isinstance(size, int) for size in shape)]:
        yield f"{', '.join(moving)} have no static shape: {[shapes[name] for name in moving]}"
        return
    yield from _fit(shapes, spec)
    facts = {item.key: item.value for item in graph.model.metadata_props}
    if facts.get("edgecxr.cam") != "logits = mean(cam)":
        yield "no edgecxr.cam metadata saying that logits = mean(cam); export with edgecxr.export.to_onnx"


def _fit(shapes: dict[str, list[int | str]], spec: ModelSpec | None) -> Iterator[str]:
    image, logits, cam, embedding = (shapes[name] for name in (INPUT, *OUTPUTS))
    if len(image) != 4 or image[:2] != [1, 1] or image[2] != image[3]:
        yield f"image is {image}; wanted [1, 1, S, S]"
    ranks = (len(logits), len(cam), len(embedding))
    if ranks != (2, 4, 2) or cam[:2] != logits or embedding[0] != 1 or logits[0] != 1:
        yield f"logits {logits}, cam {cam}, embedding {embedding}; wanted [1, C], [1, C, h, w], [1, D]"
    elif spec is not None:
        size, count = spec.preprocess.size, len(spec.classes)
        wanted = [[1, 1, size, size], [1, count], [1, count, *spec.cam_shape], [1, spec.embedding_size]]
        if wanted != [image, logits, cam, embedding]:
            yield f"shapes {[image, logits, cam, embedding]} do not fit the model's {wanted}"


def _operators(graph: _Graph) -> Iterator[str]:
    for kind in sorted({node.op_type for node in graph.nodes} - OPERATORS):
        yield f"operator {kind} is not on the list that every engine runs: {', '.join(sorted(OPERATORS))}"
    cam = graph.producer("logits")
    if cam is not None and (cam.op_type not in ("ReduceMean", "Cast")):
        yield f"logits come from {cam.op_type}; wanted the ReduceMean of cam"


def _external(model: onnx.ModelProto) -> Iterator[str]:
    for item in model.graph.initializer:
        if item.data_location == TensorProto.EXTERNAL or item.external_data:
            yield f"{item.name} is stored outside the file; keep every weight inside"


def _body(graph: _Graph, precision: Precision) -> Iterator[str]:
    """One floating type for the weights: float32, or float16; int8 files may have either."""
    floating = {name: item for name, item in graph.constants.items() if item.data_type in FLOATS}
    kinds = {FLOATS[item.data_type] for item in floating.values()}
    wanted = {"fp32": {"float32"}, "fp16": {"float16"}}.get(precision, kinds)
    if kinds - wanted or len(kinds) > 1:
        yield f"floating constants are {', '.join(sorted(kinds))}; a {precision} file has one type, its own, throughout"
    for name, item in floating.items():
        if not np.isfinite(numpy_helper.to_array(item)).all():
            yield f"{name} holds a value that is infinite or not a number"


def _quantization(graph: _Graph, precision: Precision) -> Iterator[str]:
    quantize = [node for node in graph.nodes if node.op_type == "QuantizeLinear"]
    dequantize = [node for node in graph.nodes if node.op_type == "DequantizeLinear"]
    if precision != "int8":
        if quantize or dequantize:
            yield f"{len(quantize) + len(dequantize)} quantize or dequantize nodes in an {precision} file"
        return
    if not quantize or not dequantize:
        yield "no QuantizeLinear and DequantizeLinear pairs; an int8 file says every rounding itself"
    for node in (*quantize, *dequantize):
        yield from _pair(graph, node)
    weights = {node.input[1]: node for node in graph.nodes if node.op_type == "Conv"}
    for name, node in weights.items():
        yield from _weight(graph, node, name)
        if len(node.input) == 3 and (bias := graph.producer(node.input[2])) is not None and bias.op_type != "Constant":
            yield f"{node.name}: the bias is computed by {bias.op_type}; keep it in floating point"


def _pair(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Scale constant, positive and at least 2^-14; zero point int8 and 0; integers int8."""
    scale = graph.value(node.input[1])
    if scale is None or not np.isfinite(scale).all():
        yield f"{node.name}: the scale must be a finite constant of the file"
    elif float(scale.min()) < SMALLEST_SCALE:
        yield f"{node.name}: scale {float(scale.min()):.3g}; wanted at least 2^-14, which float16 can hold"
    zero = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None or zero.dtype != np.int8 or zero.any():
        got = "none" if zero is None else f"{zero.dtype} {zero.ravel()[:3].tolist()}"
        yield f"{node.name}: zero point {got}; wanted int8 and 0 (symmetric)"
    source = graph.constants.get(node.input[0])
    if node.op_type == "DequantizeLinear" and source is not None and source.data_type != TensorProto.INT8:
        kind = TensorProto.DataType.Name(source.data_type)
        yield f"{node.name}: dequantizes {kind}; wanted INT8 (no bias quantization)"


def _weight(graph: _Graph, conv: onnx.NodeProto, name: str) -> Iterator[str]:
    """A convolution between integers has both its input and its weights dequantized, the weights along axis 0."""
    producer, source = graph.producer(name), graph.producer(conv.input[0])
    quantized = [item is not None and item.op_type == "DequantizeLinear" for item in (source, producer)]
    if quantized == [False, True]:
        yield f"{conv.name}: int8 weights but a floating-point input; quantize both or neither"
    if producer is None or producer.op_type != "DequantizeLinear":
        return
    scale = graph.value(producer.input[1])
    axis = next((item.i for item in producer.attribute if item.name == "axis"), 1)
    weights = graph.value(producer.input[0])
    if scale is None:
        return
    if scale.ndim != 1 or axis != 0 or (weights is not None and len(scale) != weights.shape[0]):
        got = f"weight scales of shape {scale.shape} on axis {axis}"
        yield f"{conv.name}: {got}; wanted one per output channel on axis 0"
    if weights is not None and (largest := int(np.abs(weights.astype(np.int16)).max())) > WEIGHT_MAX:
        yield f"{conv.name}: int8 weights reach {largest}; beyond {WEIGHT_MAX} CPUs without VNNI saturate their sums"

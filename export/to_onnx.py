"""A trained student as an ONNX graph: no batch norm left, static shape, named outputs, checked against PyTorch."""

import copy
import json
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from edgecxr.errors import StageError
from edgecxr.export.student import Student

__all__ = ["INPUT", "IR_VERSION", "OPSET", "OUTPUTS", "largest_difference", "to_onnx", "with_dynamic_batch"]

INPUT = "image"
OUTPUTS = ("logits", "cam", "embedding")
OPSET = 19  # first with float16 scales in QuantizeLinear; TensorRT 10.3 reads up to 20, ONNX Runtime 1.20 to 21
IR_VERSION = 9  # the one of opset 19; ONNX Runtime 1.20 reads up to 10
TOLERANCE = 1e-4  # largest difference allowed between PyTorch and the graph, over max(1, largest output)
ROUNDINGS = 8.0  # what is allowed beyond, in differences between PyTorch's own float32 and float64 on the same film
LOOSEST = 1e-2  # never more: a graph that is wired wrongly differs by more than this


def to_onnx(student: Student, size: int, *, classes: Sequence[str] = ()) -> bytes:
    """The student as an FP32 graph: `image` float32 [1, 1, size, size] -> `logits`, `cam`, `embedding`.

    `classes` names the logits in the graph's metadata. Raises StageError when the names do not match the logits, or
    when the graph's outputs differ from PyTorch's by more than 1e-4 of the largest. That is to find wrong wiring. A
    deep network whose batch norms enlarge small differences is not that exact in PyTorch itself (Inception-v3: 1e-4),
    so eight times its own rounding is allowed, but never more than 1e-2.
    """
    if classes and len(classes) != student.classes:
        raise StageError(f"the student has {student.classes} logits, but {len(classes)} names were given")
    module = _Deployed(student).eval()
    model = _export(module, size)
    _tidy(model, classes)
    onnx.checker.check_model(model, full_check=True)
    data = bytes(model.SerializeToString())
    probe = np.random.default_rng(0).random((1, 1, size, size), dtype=np.float32)
    difference = largest_difference(module.student, data, probe)
    allowed = TOLERANCE if difference <= TOLERANCE else _allowed(module.student, probe)
    if not difference <= allowed:
        raise StageError(f"the exported graph differs from PyTorch by {difference:.2e}; at most {allowed:.0e} allowed")
    return data


def _allowed(student: Student, images: NDArray[np.float32]) -> float:
    """The largest difference that PyTorch's own rounding on these images explains, between TOLERANCE and LOOSEST."""
    with torch.inference_mode():
        got = student.forward_full(torch.from_numpy(images))
        exact = copy.deepcopy(student).double().forward_full(torch.from_numpy(images).double())
    rounding = max(_relative(a.numpy(), b.numpy()) for a, b in zip(got, exact, strict=True))
    return min(max(TOLERANCE, ROUNDINGS * rounding), LOOSEST)


def with_dynamic_batch(model_bytes: bytes) -> bytes:
    """The twin whose first dimension is free (`N`), for engines that batch. Same nodes, same weights."""
    model = onnx.load_from_string(model_bytes)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def largest_difference(student: Student, model_bytes: bytes, images: NDArray[np.float32]) -> float:
    """Largest |PyTorch - ONNX Runtime| over the three outputs on (1, 1, S, S) images, over max(1, largest output)."""
    from onnxruntime import InferenceSession

    session = InferenceSession(model_bytes, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = student.forward_full(torch.from_numpy(images))
    got = session.run(list(OUTPUTS), {INPUT: images})
    return max(_relative(np.asarray(b), a.numpy()) for a, b in zip(expected, got, strict=True))


def _relative(got: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


class _Deployed(torch.nn.Module):
    """`forward_full` as `forward`, on a contiguous float32 copy in which nothing is trained any more."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = copy.deepcopy(student).float().cpu().eval().to(memory_format=torch.contiguous_format)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.student.forward_full(image)


def _export(module: _Deployed, size: int) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.export's own use of older Python calls
        warnings.filterwarnings("ignore", category=FutureWarning)
        program = torch.onnx.export(
            module,
            (torch.zeros(1, 1, size, size),),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise StageError("torch.onnx.export gave no program; PyTorch 2.9 or newer is needed")
    return program.model_proto


def _tidy(model: onnx.ModelProto, classes: Sequence[str]) -> None:
    """Stable names, no exporter's notes (they hold paths of the machine that built it), our own metadata."""
    _open_batch_norms(model.graph)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "edgecxr", "", ""
    model.graph.name, model.graph.doc_string = "student", ""
    del model.metadata_props[:], model.graph.metadata_props[:], model.functions[:], model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    _rename(model.graph)
    facts = {"cam": "logits = mean(cam)", "classes": json.dumps(list(classes)), "range": "float32 image, NCHW"}
    onnx.helper.set_model_props(model, {f"edgecxr.{key}": value for key, value in facts.items()})


def _open_batch_norms(graph: onnx.GraphProto) -> None:
    """A batch norm with no convolution before it (DenseNet has it before) becomes a multiplication and an addition."""
    items = {item.name: item for item in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        gain, offset, mean, variance = (
            numpy_helper.to_array(items[name]).astype(np.float64) for name in node.input[1:]
        )
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        scale = gain / np.sqrt(variance + epsilon)
        scaled = f"{node.output[0]}_scaled"
        for name, values in ((f"{scaled}_by", scale), (f"{scaled}_plus", offset - mean * scale)):
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32).reshape(-1, 1, 1), name))
        nodes.append(onnx.helper.make_node("Mul", [node.input[0], f"{scaled}_by"], [scaled]))
        nodes.append(onnx.helper.make_node("Add", [scaled, f"{scaled}_plus"], [node.output[0]]))
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _rename(graph: onnx.GraphProto) -> None:
    """Nodes become `Conv_3` (kind and position), and their values the same unless they are outputs of the graph."""
    kept = {INPUT, *OUTPUTS, *(item.name for item in graph.initializer)}
    names: dict[str, str] = {}
    for position, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{position}", ""
        del node.metadata_props[:]
        for index, value in enumerate(node.output):
            if value not in kept:
                names[value] = f"{node.name}_out{index or ''}"
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    for item in graph.initializer:
        item.doc_string = ""
        del item.metadata_props[:]

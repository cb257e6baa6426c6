"""Where the quantize and dequantize nodes sit: before every convolution's input, on its weights, and nowhere else.

Activations: symmetric int8, zero point 0, one scale per tensor. Weights: stored as int8 with one scale per output
channel (axis 0), in -63 .. 63: x86 CPUs without VNNI add products in pairs in 16 bits (vpmaddubsw), with activations
shifted to 0 .. 255, and 2 × 255 × 127 saturates there while 2 × 255 × 63 does not.

Bias, residual additions, pooling and the head stay in floating point. With nothing but convolutions between integers
every engine runs the same arithmetic: the sum of a convolution is exact, and the only rounding is the one that the
graph spells out (docs/export.md has the measured disagreement of other placements).
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgecxr.errors import StageError

__all__ = [
    "INT8_MAX",
    "SMALLEST_SCALE",
    "WEIGHT_MAX",
    "conv_nodes",
    "correct_biases",
    "insert_qdq",
    "quantizable",
    "weight_scales",
]

INT8_MAX = 127  # of activations
WEIGHT_MAX = 63  # of weights
SMALLEST_SCALE = 2.0**-14  # the smallest normal float16


def conv_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions of a graph, in order of execution."""
    return [node for node in graph.node if node.op_type == "Conv"]


def quantizable(graph: onnx.GraphProto, *, first: bool = True) -> list[onnx.NodeProto]:
    """The convolutions to quantize: all but the head (the one that makes `cam`), and but the first unless `first`."""
    nodes = [node for node in conv_nodes(graph) if "cam" not in node.output]
    return nodes if first else nodes[1:]


def weight_scales(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K, …) float weights -> (K,) scales: largest magnitude of each output channel over 63, at least 2^-14."""
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scales: NDArray[np.float32] = np.maximum(largest / WEIGHT_MAX, SMALLEST_SCALE).astype(np.float32)
    return scales


def correct_biases(model_bytes: bytes, means: Mapping[str, NDArray[np.float64]]) -> bytes:
    """Move the mean error that rounding the weights makes in each output channel into its bias.

    `means` has the mean of each input channel of each convolution. Nagel et al., "Data-Free Quantization Through Weight
    Equalization and Bias Correction", ICCV 2019, section 4.2; padding is neglected.
    """
    model = onnx.load_from_string(model_bytes)
    items = {item.name: item for item in model.graph.initializer}
    for node in quantizable(model.graph):
        if len(node.input) < 3:
            continue
        weights, bias = (numpy_helper.to_array(items[name]).astype(np.float64) for name in node.input[1:3])
        error = (_round(weights) - weights).sum((2, 3))  # (K, channels of a group)
        groups = len(means[node.input[0]]) // error.shape[1]
        inputs = np.repeat(means[node.input[0]].reshape(groups, -1), len(error) // groups, axis=0)
        corrected = (bias - (error * inputs).sum(1)).astype(np.float32)
        items[node.input[2]].CopyFrom(numpy_helper.from_array(corrected, node.input[2]))
    return bytes(model.SerializeToString())


def _round(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights after int8 and back."""
    steps = weight_scales(weights.astype(np.float32)).astype(np.float64).reshape(-1, 1, 1, 1)
    rounded: NDArray[np.float64] = np.clip(np.rint(weights / steps), -WEIGHT_MAX, WEIGHT_MAX) * steps
    return rounded


def insert_qdq(model_bytes: bytes, ranges: Mapping[str, float], *, exclude: Collection[str] = ()) -> bytes:
    """The FP32 graph with every convolution of `quantizable` but those named in `exclude` between integers.

    `ranges` gives the largest magnitude kept of each convolution's input tensor; a larger one saturates.
    Raises StageError when a range is missing, or not a positive number.
    """
    model = onnx.load_from_string(model_bytes)
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    chosen = {node.name for node in quantizable(graph) if node.name not in exclude}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in list(graph.node):
        if node.name in chosen:
            source, weight = node.input[0], node.input[1]
            if source not in done:
                nodes += _activation(graph, source, _scale(ranges, source))
                done.add(source)
            if weight not in done:  # two convolutions may share their weights
                nodes.append(_weight(graph, weights[weight]))
                done.add(weight)
            node.input[0], node.input[1] = f"{source}_int8_float", f"{weight}_float"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _scale(ranges: Mapping[str, float], tensor: str) -> float:
    largest = ranges.get(tensor)
    if largest is None or not np.isfinite(largest) or largest <= 0:
        raise StageError(f"{tensor} has the range {largest}; calibrate on films that reach every convolution")
    return max(largest / INT8_MAX, SMALLEST_SCALE)


def _activation(graph: onnx.GraphProto, source: str, scale: float) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear of one tensor, and their scale and zero point."""
    names = [f"{source}_scale", f"{source}_zero"]
    _add(graph, np.float32(scale), names[0])
    _add(graph, np.int8(0), names[1])
    integer = f"{source}_int8"
    return [
        helper.make_node("QuantizeLinear", [source, *names], [integer], f"Quantize_{source}"),
        helper.make_node("DequantizeLinear", [integer, *names], [f"{integer}_float"], f"Dequantize_{source}"),
    ]


def _weight(graph: onnx.GraphProto, item: onnx.TensorProto) -> onnx.NodeProto:
    """The weights as int8 with their scales, and the DequantizeLinear that reads them; the float ones are dropped."""
    values = numpy_helper.to_array(item).astype(np.float32)
    scales = weight_scales(values)
    rounded = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
    names = [f"{item.name}_int8", f"{item.name}_scale", f"{item.name}_zero"]
    _add(graph, np.clip(rounded, -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8), names[0])
    _add(graph, scales, names[1])
    _add(graph, np.zeros(len(scales), np.int8), names[2])
    graph.initializer.remove(item)
    return helper.make_node("DequantizeLinear", names, [f"{item.name}_float"], f"Dequantize_{item.name}", axis=0)


def _add(graph: onnx.GraphProto, values: NDArray[np.generic] | np.generic, name: str) -> None:
    graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))

"""Quantization-aware training: for a student that loses too much when it is quantized afterwards.

The FP32 graph itself is trained: `FakeQuantGraph` runs its nodes in PyTorch and rounds exactly where `qdq.insert_qdq`
puts the quantize and dequantize nodes, so that what was trained is what is deployed. Weights round with one scale per
output channel (largest magnitude over 63); activation ranges start from calibration and are learned (Esser et al.,
"Learned Step Size Quantization", ICLR 2020).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.export.distillation import DistillLoss, DistillSettings, with_soft
from edgecxr.export.qdq import INT8_MAX, SMALLEST_SCALE, WEIGHT_MAX, insert_qdq, quantizable
from edgecxr.export.to_onnx import INPUT
from edgecxr.spec import Head
from edgecxr.teachers.progress import Progress
from edgecxr.teachers.training import Samples, TrainResult, train

__all__ = ["FakeQuantGraph", "fine_tune"]

Attributes = dict[str, Any]
SPEED = 10.0  # of the logarithm of a range against a weight: Adam moves both by the same absolute step


def fine_tune(
    fp32: bytes,
    ranges: Mapping[str, float],
    samples: tuple[Samples, Samples],
    teacher_logits: tuple[NDArray[np.float32], NDArray[np.float32]],
    heads: Sequence[Head],
    settings: DistillSettings,
    *,
    folder: Path,
    exclude: Collection[str] = (),
    progress: Progress | None = None,
) -> tuple[bytes, TrainResult]:
    """Train an FP32 graph between fake integers, from calibrated `ranges`; returns its INT8 (QDQ) form.

    Samples, logits, heads and settings as in `distill`; a tenth of its learning rate and a few epochs are enough.
    `settings.autocast` should be off: bfloat16 would round what the engines do not. `exclude` as in `insert_qdq`.
    """
    graph = FakeQuantGraph(fp32, ranges, exclude=exclude)
    both = [with_soft(part, soft, heads) for part, soft in zip(samples, teacher_logits, strict=True)]
    loss = DistillLoss(heads, samples[0].targets, settings)
    result = train(graph, (both[0], both[1]), heads, settings, folder, progress=progress, loss=loss)
    return graph.to_int8(), result


class FakeQuantGraph(nn.Module):
    """An FP32 graph of ours as a trainable module, with integer rounding before every quantizable convolution.

    forward: (N, 1, S, S) images -> (N, C) logits; `run` gives all outputs by name.
    """

    def __init__(self, fp32: bytes, ranges: Mapping[str, float], *, exclude: Collection[str] = ()) -> None:
        super().__init__()
        self.source, self.exclude = fp32, frozenset(exclude)
        model = onnx.load_from_string(fp32)
        self.nodes = [_Node.of(node) for node in model.graph.node]
        unknown = {node.kind for node in self.nodes} - set(OPERATORS)
        if unknown:
            raise StageError(f"cannot train a graph with {', '.join(sorted(unknown))}; choose a plain student")
        self.rounded = {node.name for node in quantizable(model.graph)} - self.exclude
        self.outputs = tuple(item.name for item in model.graph.output)
        trained = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
        self.weights, self.log_ranges = nn.ParameterDict(), nn.ParameterDict()
        for item in model.graph.initializer:
            value = torch.from_numpy(numpy_helper.to_array(item).copy())
            if item.name in trained:
                self.weights[_key(item.name)] = nn.Parameter(value)
            else:
                self.register_buffer(_key(item.name), value)
        for node in self.nodes:
            if node.name in self.rounded:
                self.log_ranges[_key(node.inputs[0])] = _log_range(ranges, node.inputs[0])

    def forward(self, images: Tensor) -> Tensor:
        return self.run(images)["logits"]

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """`logits`, `cam` and `embedding` of (N, 1, S, S) images."""
        values: dict[str, Tensor] = {INPUT: images}
        rounded: dict[str, Tensor] = {}
        for node in self.nodes:
            inputs = [values[name] if name in values else self._constant(name) for name in node.inputs]
            if node.name in self.rounded:
                source = node.inputs[0]
                if source not in rounded:
                    rounded[source] = _fake_activation(inputs[0], self._range(source))
                inputs[:2] = [rounded[source], _fake_weight(inputs[1])]
            values[node.output] = OPERATORS[node.kind](inputs, node.attributes)
        return {name: values[name] for name in self.outputs}

    def _constant(self, name: str) -> Tensor:
        key = _key(name)
        return self.weights[key] if key in self.weights else self.get_buffer(key)

    @property
    def ranges(self) -> dict[str, float]:
        """The learned range of each convolution's input."""
        names = {node.inputs[0] for node in self.nodes if node.name in self.rounded}
        return {name: float(self._range(name).detach()) for name in sorted(names)}

    def _range(self, name: str) -> Tensor:
        stored: Tensor = self.log_ranges[_key(name)]
        return (stored * SPEED).exp()

    def to_fp32(self) -> bytes:
        """The graph with the trained weights, not quantized."""
        model = onnx.load_from_string(self.source)
        for item in model.graph.initializer:
            if _key(item.name) in self.weights:
                value = self.weights[_key(item.name)].detach().cpu().float().contiguous().numpy()
                item.CopyFrom(numpy_helper.from_array(value, item.name))
        return bytes(model.SerializeToString())

    def to_int8(self) -> bytes:
        """The graph with the trained weights and ranges, as engines run it."""
        return insert_qdq(self.to_fp32(), self.ranges, exclude=self.exclude)


class _Node:
    """One node of the graph, its attributes as Python values."""

    def __init__(self, name: str, kind: str, inputs: list[str], output: str, attributes: Attributes) -> None:
        self.name, self.kind, self.inputs, self.output, self.attributes = name, kind, inputs, output, attributes

    @classmethod
    def of(cls, node: onnx.NodeProto) -> "_Node":
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        return cls(node.name, node.op_type, list(node.input), node.output[0], attributes)


def _key(name: str) -> str:
    """A name that PyTorch accepts for a parameter."""
    return name.replace(".", "/")


def _log_range(ranges: Mapping[str, float], name: str) -> nn.Parameter:
    if not ranges.get(name, 0.0) > 0:
        raise StageError(f"{name} has the range {ranges.get(name)}; calibrate on films that reach every convolution")
    return nn.Parameter(torch.tensor(ranges[name]).log() / SPEED)


def _round(values: Tensor) -> Tensor:
    """Round half to even, as QuantizeLinear does; the gradient passes straight through."""
    return values + (values.round() - values).detach()


def _fake_activation(values: Tensor, largest: Tensor) -> Tensor:
    """Round to 256 steps; the gradient of the range is scaled by the number of values (Esser et al., section 2.2)."""
    scale = (largest / INT8_MAX).clamp(min=SMALLEST_SCALE)
    share = (values.numel() * INT8_MAX) ** -0.5
    scale = scale * share + (scale * (1 - share)).detach()
    rounded: Tensor = _round((values / scale).clamp(-INT8_MAX - 1, INT8_MAX)) * scale
    return rounded


def _fake_weight(weights: Tensor) -> Tensor:
    largest = weights.detach().flatten(1).abs().amax(1)
    scale = (largest / WEIGHT_MAX).clamp(min=SMALLEST_SCALE).view(-1, *[1] * (weights.ndim - 1))
    return _round(weights / scale).clamp(-WEIGHT_MAX, WEIGHT_MAX) * scale


def _conv(inputs: list[Tensor], given: Attributes) -> Tensor:
    bias = inputs[2] if len(inputs) > 2 else None
    settings = given.get("strides", 1), _padding(given), given.get("dilations", 1), given.get("group", 1)
    answer: Tensor = functional.conv2d(inputs[0], inputs[1], bias, *settings)
    return answer


def _max_pool(inputs: list[Tensor], given: Attributes) -> Tensor:
    settings = given["kernel_shape"], given.get("strides", 1), _padding(given), given.get("dilations", 1)
    return functional.max_pool2d(inputs[0], *settings, ceil_mode=bool(given.get("ceil_mode", 0)))


def _average_pool(inputs: list[Tensor], given: Attributes) -> Tensor:
    settings = given["kernel_shape"], given.get("strides", 1), _padding(given), bool(given.get("ceil_mode", 0))
    return functional.avg_pool2d(inputs[0], *settings, count_include_pad=bool(given.get("count_include_pad", 0)))


def _mean(inputs: list[Tensor], given: Attributes) -> Tensor:
    axes: list[int] = inputs[1].tolist()
    return inputs[0].mean(axes, keepdim=bool(given.get("keepdims", 1)))


def _padding(given: Attributes) -> list[int]:
    """[rows, columns] of padding, the same at both ends."""
    top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        raise StageError(f"padding {[top, left, bottom, right]} is not the same at both ends; choose another student")
    return [top, left]


OPERATORS: dict[str, Callable[[list[Tensor], Attributes], Tensor]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "Concat": lambda inputs, given: torch.cat(inputs, given["axis"]),
    "Conv": _conv,
    "MaxPool": _max_pool,
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "ReduceMax": lambda inputs, given: inputs[0].amax(inputs[1].tolist(), keepdim=bool(given.get("keepdims", 1))),
    "ReduceMean": _mean,
    "Relu": lambda inputs, _: inputs[0].relu(),
    "Sigmoid": lambda inputs, _: inputs[0].sigmoid(),
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
}

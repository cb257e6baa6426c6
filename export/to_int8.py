"""Post-training INT8: several ways to choose the activation ranges, and the one that loses least on both CPU engines.

All ways share the placement and the number ranges of `qdq.insert_qdq`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edgecxr.errors import LintError, StageError
from edgecxr.export.calibration import Activations, RangeMethod, observe
from edgecxr.export.lint import lint
from edgecxr.export.qdq import correct_biases, insert_qdq, quantizable
from edgecxr.export.to_fp16 import to_fp16
from edgecxr.runtimes.graph import Answer, Backend, GraphSession

__all__ = ["METHODS", "Attempt", "Method", "OutputLoss", "Quantized", "quantize"]

Body = Literal["fp32", "fp16"]
Images = NDArray[np.float32]
BACKENDS: tuple[Backend, ...] = ("openvino", "onnxruntime")


@dataclass(frozen=True)
class Method:
    """How ranges are chosen, whether mean errors move into the bias, and whether the first layer is INT8."""

    ranges: RangeMethod
    bias: bool = True
    first: bool = True

    @property
    def name(self) -> str:
        """For reports, e.g. ``mse+bias, first layer in float``."""
        return self.ranges + ("+bias" if self.bias else "") + ("" if self.first else ", first layer in float")


METHODS: tuple[Method, ...] = tuple(
    Method(ranges, first=first) for first in (True, False) for ranges in ("minmax", "percentile", "mse")
)


@dataclass(frozen=True)
class Attempt:
    """What one method reached: its loss, or why it was refused."""

    method: str
    loss: float | None
    problem: str = ""


@dataclass(frozen=True)
class Quantized:
    """The INT8 graph that lost least."""

    model: bytes
    method: str
    loss: float
    tried: tuple[Attempt, ...]


def quantize(
    fp32: bytes,
    calibration: Images,
    *,
    methods: Sequence[Method] = METHODS,
    score: Callable[[bytes], float] | None = None,
    body: Body = "fp32",
) -> Quantized:
    """The INT8 form of an FP32 graph, calibrated on (N, 1, S, S) training images in the model's range.

    `score` gives the loss of a candidate, lower is better; without one it is `OutputLoss` on the calibration images.
    `body` is the type of what is not quantized. Raises StageError when no method gives a graph that passes the lint.
    """
    if calibration.ndim != 4 or len(calibration) < 1 or not methods:
        raise StageError(f"calibration images are {calibration.shape}; wanted (N, 1, S, S), N >= 1, and a method")
    score = score or OutputLoss(fp32, calibration)
    seen = observe(fp32, calibration)
    models = {method.name: _quantize(fp32, seen, method, body) for method in methods}
    tried = [_attempt(name, model, score) for name, model in models.items()]
    passed = [(attempt.loss, attempt.method) for attempt in tried if attempt.loss is not None]
    if not passed:
        raise StageError("no INT8 graph passed:\n" + "\n".join(f"  {item.method}: {item.problem}" for item in tried))
    loss, name = min(passed)
    return Quantized(models[name], name, loss, tuple(tried))


class OutputLoss:
    """How far a graph's outputs are from the FP32 graph's on some films, on the worse of OpenVINO and ONNX Runtime.

    Per engine: rms difference of the logits over their standard deviation, plus 1 minus the maps' mean correlation.
    """

    def __init__(self, fp32: bytes, images: Images, backends: Sequence[Backend] = BACKENDS) -> None:
        self.images, self.backends = images, tuple(backends)
        with GraphSession(fp32, "onnxruntime") as session:
            self.expected = session.infer(images)

    def __call__(self, model: bytes) -> float:
        """The loss of `model`, at least 0."""
        return max(self._loss(model, backend) for backend in self.backends)

    def _loss(self, model: bytes, backend: Backend) -> float:
        with GraphSession(model, backend) as session:
            return output_loss(self.expected, session.infer(self.images))


def output_loss(expected: Answer, got: Answer) -> float:
    """Relative rms difference of the logits, plus 1 minus the mean correlation of the maps."""
    scale = float(expected.logits.std()) or 1.0
    logits = float(np.sqrt(np.mean((got.logits - expected.logits) ** 2))) / scale
    return logits + 1.0 - _correlation(expected.cam, got.cam)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean over films and classes of Pearson's correlation of two maps; flat maps do not count."""
    a, b = (part.reshape(*part.shape[:2], -1).astype(np.float64) for part in (first, second))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    shaped = size > 0
    return float(((a * b).sum(-1)[shaped] / size[shaped]).mean()) if shaped.any() else 1.0


def _quantize(fp32: bytes, seen: Activations, method: Method, body: Body) -> bytes:
    source = correct_biases(fp32, seen.means) if method.bias else fp32
    graph = onnx.load_from_string(fp32).graph
    exclude = () if method.first else [node.name for node in quantizable(graph)[:1]]
    model = insert_qdq(source, seen.ranges(method.ranges), exclude=exclude)
    return to_fp16(model) if body == "fp16" else model


def _attempt(name: str, model: bytes, score: Callable[[bytes], float]) -> Attempt:
    try:
        lint(model, "int8")
    except LintError as error:
        return Attempt(name, None, str(error))
    loss = score(model)
    return Attempt(name, loss) if np.isfinite(loss) else Attempt(name, None, f"the loss is {loss}")

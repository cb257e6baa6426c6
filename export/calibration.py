"""Activation ranges: what each convolution's input reaches on calibration films, and how much of it to keep.

Films are seen one batch at a time; of each tensor only a histogram of magnitudes is kept, so that memory does not grow
with the number of films.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edgecxr.export.qdq import INT8_MAX, quantizable
from edgecxr.export.to_onnx import INPUT, with_dynamic_batch

__all__ = ["RANGE_METHODS", "Activations", "Magnitudes", "RangeMethod", "observe"]

RangeMethod = Literal["minmax", "percentile", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = ("minmax", "percentile", "mse")
BINS = 2048
PERCENTILE = 99.99
SMALLEST = 1e-6  # limit of a histogram of zeros


@dataclass
class Magnitudes:
    """A histogram of |x| over [0, limit), whose limit doubles (and whose bins merge in pairs) when x outgrows it."""

    limit: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    largest: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of one tensor of any shape."""
        magnitudes = np.abs(values).ravel()
        top = float(magnitudes.max(initial=0.0))
        if not np.isfinite(top):
            raise ValueError("an activation is infinite or not a number; the student diverged")
        self.largest = max(self.largest, top)
        if self.limit == 0.0:
            self.limit = max(top * 1.0001, SMALLEST)
        while self.limit <= top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        places = np.minimum((magnitudes * np.float32(BINS / self.limit)).astype(np.int32), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def range(self, method: RangeMethod) -> float:
        """The largest magnitude to keep, by `minmax` (all), `percentile` (99.99 % of values) or least squared error."""
        if method == "minmax" or self.largest == 0.0:
            return self.largest
        edges = np.linspace(0.0, self.limit, BINS + 1)
        if method == "percentile":
            reached = np.cumsum(self.counts) / max(1, self.counts.sum())
            return min(self.largest, float(edges[1 + np.searchsorted(reached, PERCENTILE / 100)]))
        return self._least_error((edges[:-1] + edges[1:]) / 2)

    def _least_error(self, centers: NDArray[np.float64]) -> float:
        """The range, among 100 fractions of the largest, with the least mean squared rounding plus saturation error."""
        candidates = self.largest * np.linspace(0.05, 1.0, 96)
        steps = candidates[:, None] / INT8_MAX
        kept = np.clip(np.rint(centers / steps), 0, INT8_MAX) * steps
        errors = ((kept - centers) ** 2) @ self.counts
        return float(candidates[int(np.argmin(errors))])


@dataclass
class Activations:
    """What the tensors that feed convolutions reached."""

    magnitudes: dict[str, Magnitudes]
    means: dict[str, NDArray[np.float64]]  # (channels,) mean over films and pixels

    def ranges(self, method: RangeMethod) -> dict[str, float]:
        """The range of each tensor by one method."""
        return {name: seen.range(method) for name, seen in self.magnitudes.items()}


def observe(model_bytes: bytes, images: NDArray[np.float32], *, batch: int = 16) -> Activations:
    """Histograms and channel means of every tensor that feeds a convolution, over (N, 1, S, S) calibration images."""
    tensors, session = _opened(model_bytes)
    inner = [name for name in tensors if name != INPUT]
    magnitudes = {name: Magnitudes() for name in tensors}
    sums: dict[str, NDArray[np.float64]] = {}
    for start in range(0, len(images), batch):
        frames = images[start : start + batch]
        values = dict(zip(inner, session.run(inner, {INPUT: frames}), strict=True)) | {INPUT: frames}
        for name, seen in magnitudes.items():
            value = np.asarray(values[name])
            seen.add(value)
            sums[name] = sums.get(name, 0.0) + value.mean((2, 3), dtype=np.float64).sum(0)
    return Activations(magnitudes, {name: total / len(images) for name, total in sums.items()})


def _opened(model_bytes: bytes) -> tuple[list[str], Any]:
    """The tensors that feed convolutions, and an ONNX Runtime session that puts them out."""
    from onnxruntime import InferenceSession

    model = onnx.load_from_string(with_dynamic_batch(model_bytes))
    tensors = sorted({node.input[0] for node in quantizable(model.graph)})
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors if name != INPUT
    )
    return tensors, InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

"""A compiled ONNX graph of contract 2: `image` in; `logits`, `cam` and `embedding` out. A bundle is not needed."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import EngineError

__all__ = ["OUTPUTS", "Answer", "Backend", "Graph", "GraphSession"]

Backend = Literal["openvino", "onnxruntime"]
OUTPUTS = ("logits", "cam", "embedding")


class Answer(NamedTuple):
    """What the graph says about N films, float32 whatever the precision inside: all finite."""

    logits: NDArray[np.float32]  # (N, C)
    cam: NDArray[np.float32]  # (N, C, h, w)
    embedding: NDArray[np.float32]  # (N, D)


class Graph(ABC):
    """One ONNX file compiled by one library. `infer` checks, `_infer` works. One thread at a time."""

    library: ClassVar[str]

    def __init__(self, model: bytes, *, threads: int = 0) -> None:
        """Compile; `threads` 0 leaves the number to the library. Raises EngineError."""
        if threads < 0:
            raise EngineError(f"threads is {threads}; wanted 0 (the library's own choice) or more")
        self.input_shape: tuple[int | None, ...]  # None stands for a dynamic dimension
        self.input_dtype: np.dtype[Any]
        self._compile(model, threads)
        if len(self.input_shape) != 4 or self.input_shape[1] != 1 or self.input_dtype not in (np.float32, np.float16):
            raise EngineError(
                f"{self.library}: input is {self.input_shape} {self.input_dtype}; "
                "wanted (N, 1, S, S) float32 or float16 named 'image'"
            )

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The library's version. Raises EngineError when it cannot be imported."""

    @abstractmethod
    def _compile(self, model: bytes, threads: int) -> None:
        """Compile and set `input_shape` and `input_dtype`; raise EngineError when the library refuses."""

    @abstractmethod
    def _infer(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """The outputs, in the order of OUTPUTS and owned by the caller, of a batch of the declared shape and type."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What computes: library, version, precision that the arithmetic runs in, threads."""

    def infer(self, batch: NDArray[Any]) -> Answer:
        """Run (N, 1, S, S) floats in the range of the spec, N >= 1; one by one where the file has a static batch of 1.

        Raises EngineError on a wrong shape, on a fault of the library, and on any NaN or infinity going in or out.
        """
        self._check_batch(batch)
        batch = np.ascontiguousarray(batch, self.input_dtype)
        step = self.input_shape[0] or len(batch)
        parts = [self._infer(batch[start : start + step]) for start in range(0, len(batch), step)]
        if len(parts) == 1:
            return self._answer(parts[0], len(batch))
        return self._answer(tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True)), len(batch))

    def _check_batch(self, batch: NDArray[Any]) -> None:
        wanted = self.input_shape
        fits = batch.ndim == 4 and len(batch) > 0
        fits = fits and all(want in (None, got) for want, got in zip(wanted[1:], batch.shape[1:], strict=True))
        if not fits or batch.dtype.kind != "f" or (wanted[0] and len(batch) % wanted[0]):
            raise EngineError(f"{self.library}: batch is {batch.shape} {batch.dtype}, the model takes {wanted} floats")
        if not np.isfinite(batch).all():  # OpenVINO's ReLU turns NaN into 0, and so into a result
            raise EngineError(
                f"{self.library}: the batch holds NaN or infinite values; preprocessing gives finite ones"
            )

    def _answer(self, outputs: tuple[NDArray[Any], ...], count: int) -> Answer:
        answer = Answer(*(output.astype(np.float32, copy=False) for output in outputs))
        for name, values, rank in zip(OUTPUTS, answer, (2, 4, 2), strict=True):
            if values.ndim != rank or len(values) != count:
                raise EngineError(f"{self.library}: output {name!r} is {values.shape} for {count} film(s)")
            if not np.isfinite(values).all():
                bad = int(np.count_nonzero(~np.isfinite(values)))
                raise EngineError(
                    f"{self.library}: {bad} of {values.size} values of output {name!r} are NaN or infinite; "
                    "the model or the library is at fault, so there is no result"
                )
        return answer


class GraphSession:
    """A loose ONNX file (bytes) on one back end, for evaluation where no bundle exists yet. A context manager."""

    def __init__(self, model: bytes, backend: Backend = "openvino", *, threads: int = 0) -> None:
        """Compile. Raises EngineError: back end unknown or not installed, or the graph refused."""
        self._graph: Graph | None = graph_class(backend)(model, threads=threads)

    def infer(self, batch: NDArray[Any]) -> Answer:
        """(N, 1, S, S) floats -> logits (N, C), cam (N, C, h, w), embedding (N, D). Raises EngineError."""
        if self._graph is None:
            raise EngineError("this session is closed; open another")
        return self._graph.infer(batch)

    def describe(self) -> dict[str, Any]:
        """What computes; empty once closed."""
        return {} if self._graph is None else self._graph.describe()

    def close(self) -> None:
        """Give the memory back; twice is harmless."""
        self._graph = None

    def __enter__(self) -> "GraphSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def graph_class(backend: str) -> type[Graph]:
    """The Graph of a back end, by the name of its library."""
    if backend == "openvino":
        from edgecxr.runtimes.ov import OpenVinoGraph

        return OpenVinoGraph
    if backend == "onnxruntime":
        from edgecxr.runtimes.ort import OrtGraph

        return OrtGraph
    raise EngineError(f"unknown back end {backend!r}; choose openvino or onnxruntime")

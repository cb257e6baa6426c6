"""The engine: one bundle's model, in one precision, on one library. Checks once for all back ends."""

import threading
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecxr import kernels
from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError, Refusal, RefusalReason
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.graph import Answer, Graph
from edgecxr.runtimes.proof import prove
from edgecxr.spec import ModelSpec, Precision, PreprocessSpec

__all__ = ["Engine", "Output", "gathered"]

Self = TypeVar("Self", bound="Engine")


@dataclass(frozen=True)
class Output:
    """What the model says about one film, and how long it took."""

    logits: NDArray[np.float32]  # (C,)
    cam: NDArray[np.float32]  # (C, h, w)
    embedding: NDArray[np.float32]  # (D,)
    preprocess_ms: float
    infer_ms: float


def gathered(outputs: Sequence[Output]) -> Answer:
    """What was said of N films one by one, as one answer."""
    return Answer(
        np.stack([item.logits for item in outputs]),
        np.stack([item.cam for item in outputs]),
        np.stack([item.embedding for item in outputs]),
    )


def check_size(film: Radiograph, spec: PreprocessSpec) -> None:
    """Raise Refusal (TOO_SMALL) for a thumbnail: what is blown up shows no disease, and the network is sure of it."""
    rows, columns = film.pixels.shape
    if spec.magnifies(rows, columns):
        raise Refusal(
            RefusalReason.TOO_SMALL,
            f"{rows} x {columns} pixels, less than half of what a model of {spec.size} x {spec.size} looks at; "
            "send the film",
        )


class Engine(ABC):
    """Base of all back ends; a context manager. One film at a time: calls from several threads wait for each other."""

    family: ClassVar[str]  # what operating points are derived for, e.g. "openvino-cpu"
    graph: ClassVar[type[Graph]]
    device: ClassVar[str] = "cpu"
    preference: ClassVar[tuple[Precision, ...]] = ("int8", "fp16", "fp32")  # of `auto`: the fastest first
    borrows: ClassVar[bool] = False  # may decide by thresholds of another engine, as `lending` says

    def __init__(self, bundle: Bundle, precision: Precision, *, threads: int = 0) -> None:
        """Compile; use `open`, which also proves the engine."""
        self.spec: ModelSpec = bundle.spec
        self.precision = precision
        self.threads = threads
        self.passed_over: list[tuple[str, str]] = []  # (name, reason), filled in by the registry
        self.reference: Engine | None = None  # whose thresholds it borrows; closed with it
        self._graph: Graph | None = self.graph(bundle.model(precision), threads=threads)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls: type[Self],
        bundle: Bundle,
        precision: Precision,
        device: str = "cpu",
        *,
        threads: int = 0,
        golden: bool = True,
    ) -> Self:
        """Compile the model and hold it against the bundle's golden set on this machine.

        Raises EngineError when the library is absent, refuses the model, or does not reproduce the golden set within
        the manifest's tolerance; BundleError when the precision is not packed. `golden=False` is for measuring only.
        """
        if device != cls.device:
            raise EngineError(f"{cls.family} runs on {cls.device!r}, not on {device!r}")
        engine = cls(bundle, precision, threads=threads)
        if golden:
            engine.prove(bundle)
        return engine

    def prove(self, bundle: Bundle) -> None:
        """Hold this engine against the golden set of its bundle. Raises EngineError where it does not reproduce it."""
        prove(self.family, bundle, self.precision, self.infer)

    def infer(self, batch: NDArray[Any]) -> Answer:
        """Preprocessed (N, 1, S, S) -> logits (N, C), cam (N, C, h, w), embedding (N, D), all finite float32.

        Raises EngineError: shape not that of the spec, engine closed, library at fault, NaN or infinity.
        """
        size = self.spec.preprocess.size
        if batch.ndim != 4 or batch.shape[1:] != (1, size, size):
            raise EngineError(f"{self.family}: batch is {batch.shape}, wanted (N, 1, {size}, {size})")
        with self._lock:
            if self._graph is None:
                raise EngineError(f"{self.family}: this engine is closed; open another")
            answer = self._graph.infer(batch)
        self._check(answer, len(batch))
        return answer

    def _check(self, answer: Answer, count: int) -> None:
        classes = len(self.spec.classes)
        wanted = ((count, classes), (count, classes, *self.spec.cam_shape), (count, self.spec.embedding_size))
        for name, values, shape in zip(Answer._fields, answer, wanted, strict=True):
            if values.shape != shape:
                raise EngineError(f"{self.family}: output {name!r} is {values.shape}, the bundle's spec says {shape}")

    def run(self, frames: Sequence[Radiograph]) -> list[Output]:
        """Preprocess and infer each film in turn.

        Raises Refusal (no contrast, a transform that is not defined), EngineError, KernelError.
        """
        return [self._run(frame) for frame in frames]

    def _run(self, frame: Radiograph) -> Output:
        start = perf_counter_ns()
        batch = kernels.preprocess([frame], self.spec.preprocess, threads=self.threads)
        middle = perf_counter_ns()
        answer = self.infer(batch)
        end = perf_counter_ns()
        return Output(
            answer.logits[0], answer.cam[0], answer.embedding[0], (middle - start) / 1e6, (end - middle) / 1e6
        )

    @property
    def kernel(self) -> str:
        """What preprocesses for it."""
        return kernels.active()

    def describe(self) -> dict[str, Any]:
        """Family, precision of the file, library and version, arithmetic, threads, and the kernel in use."""
        if self._graph is None:
            raise EngineError(f"{self.family}: this engine is closed; open another")
        return {
            "family": self.family,
            "precision": self.precision,
            "kernel": self.kernel,
            **self._graph.describe(),
        }

    def close(self) -> None:
        """Give the memory back, that of the reference too; twice is harmless."""
        with self._lock:
            self._graph = None
        if self.reference is not None:
            self.reference.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""What every engine on an NVIDIA GPU shares: the film goes up, one kernel preprocesses it, a few floats come back.

Outputs, and the network's input, are filled with NaN on the device before each run and read back: an element that was
not written anew is a fault of the device, never a result. A size of film that comes again is one CUDA graph from then
on.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.cuda import Buffer, CudaGraph, Device, DeviceFault
from edgecxr.runtimes.engine import Engine, Output, Self, gathered
from edgecxr.runtimes.frame_kernel import FrameKernel
from edgecxr.runtimes.graph import OUTPUTS, Answer, Graph
from edgecxr.runtimes.proof import prove
from edgecxr.spec import Precision, PreprocessSpec

__all__ = ["GpuEngine", "GpuGraph", "Port"]

BATCH = "batch"  # key of the one graph that has no film
MOST_GRAPHS = 4  # sizes of films whose CUDA graph is kept; a detector has one to three
MOST_SEEN = 64  # sizes that are remembered: what comes once, as cropped films do, is not worth a graph


class Port(NamedTuple):
    """One tensor of the network: static shape, float32 or float16."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class GpuGraph(Graph):
    """A network on a GPU with its buffers. A subclass loads it and enqueues it."""

    capturing: bool = True  # into CUDA graphs; off where something does not allow it, with the reason in `plain`

    def _compile(self, model: bytes, threads: int) -> None:
        self.plain = ""  # why there are no CUDA graphs
        self._graphs: dict[object, CudaGraph] = {}  # the one that was used last stands last
        self._seen: dict[object, None] = {}  # what ran once and has no graph yet, the newest last
        self._kernel: FrameKernel | None = None
        self._generation = 0  # of the staging memory that graphs of films were captured with
        self.device = Device()
        try:
            image, outputs = self._load(model)
            self.input_shape, self.input_dtype = tuple(image.shape), image.dtype
            self._ports = (image, *outputs)
            self._buffers = tuple(self.device.buffer(port.size, reread=port is image) for port in self._ports)
            with self.device.use():
                self._bind(dict(zip((port.name for port in self._ports), self._buffers, strict=True)))
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _load(self, model: bytes) -> tuple[Port, tuple[Port, ...]]:
        """Load onto `self.device`; the port `image`, and the ports of OUTPUTS in their order. Raises EngineError."""

    @abstractmethod
    def _bind(self, buffers: dict[str, Buffer]) -> None:
        """Take the buffers that the network reads and writes, by name. The context is current."""

    @abstractmethod
    def _enqueue(self) -> None:
        """Put the network on the device's stream, from and to the buffers. The context is current."""

    def _unload(self) -> None:
        """Let go of what lives on the device. The context is current."""

    def _infer(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        image, outputs = self._buffers[0], self._buffers[1:]
        for buffer in outputs:
            buffer.poison_host()
        image.array(batch.shape, batch.dtype)[...] = batch
        self._execute(BATCH, self._enqueue_batch)
        return self._written()

    def screen(self, frame: Radiograph, spec: PreprocessSpec) -> tuple[Answer, float, float]:
        """One film, preprocessed on the device: the answer, ms to plan and stage it, ms on the device.

        Raises Refusal, KernelError, EngineError, DeviceFault.
        """
        start = perf_counter_ns()
        if self._kernel is None:
            self._kernel = FrameKernel(self.device, self.input_dtype)
        launch = self._kernel.stage([frame], spec, self._buffers[0])
        self._forget_films(launch.generation)
        for buffer in self._buffers:
            buffer.poison_host()
        middle = perf_counter_ns()
        self._execute(launch.key, partial(self._enqueue_film, launch.enqueue))
        answer = self._answer(self._written(), 1)
        self._check_input()
        return answer, (middle - start) / 1e6, (perf_counter_ns() - middle) / 1e6

    def _forget_films(self, generation: int) -> None:
        """Graphs hold the addresses of staging memory: those of memory that was given back are never launched again."""
        if generation == self._generation:
            return
        with self.device.use():
            for key in [key for key in self._graphs if key != BATCH]:
                self._graphs.pop(key).close()
        self._generation = generation

    def _enqueue_batch(self) -> None:
        self._buffers[0].upload()
        for buffer in self._buffers[1:]:
            buffer.poison()
        self._enqueue()
        for buffer in self._buffers[1:]:
            buffer.download()

    def _enqueue_film(self, preprocess: Callable[[], None]) -> None:
        for buffer in self._buffers:
            buffer.poison()
        preprocess()
        self._enqueue()
        for buffer in self._buffers:
            buffer.download()

    def _execute(self, key: object, enqueue: Callable[[], None]) -> None:
        """Run: call by call the first two times, of which the second is captured, and from then on as one launch."""
        with self.device.use():
            if (graph := self._graphs.pop(key, None)) is not None:
                self._graphs[key] = graph
                graph.launch()
                self.device.stream.synchronize()
                return
            try:
                enqueue()
            except DeviceFault:
                raise
            except EngineError as error:  # of the library that runs on the device
                raise self.device.fail(str(error)) from error
            self.device.stream.synchronize()
            if self.capturing and self._came_before(key):
                self._capture(key, enqueue)

    def _came_before(self, key: object) -> bool:
        if key in self._seen:
            del self._seen[key]
            return True
        self._seen[key] = None
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return False

    def _capture(self, key: object, enqueue: Callable[[], None]) -> None:
        films = [other for other in self._graphs if other != BATCH]
        if key != BATCH and len(films) >= MOST_GRAPHS:
            self._graphs.pop(films[0]).close()
        try:
            self._graphs[key] = CudaGraph(self.device, enqueue)
        except DeviceFault:
            raise
        except EngineError as error:  # the same calls, one by one, give the same results
            self.capturing, self.plain = False, str(error)

    def _written(self) -> tuple[NDArray[Any], ...]:
        """The outputs, copied. Raises DeviceFault where an element is not a number: it was not written, or wrongly."""
        outputs = []
        for port, buffer in zip(self._ports[1:], self._buffers[1:], strict=True):
            outputs.append(self._all_finite(port, buffer).copy())
        return tuple(outputs)

    def _check_input(self) -> None:
        """A kernel that leaves a pixel out would be hidden by a ReLU, which may turn NaN into 0."""
        self._all_finite(self._ports[0], self._buffers[0])

    def _all_finite(self, port: Port, buffer: Buffer) -> NDArray[Any]:
        values = buffer.array(port.shape, port.dtype)
        finite = np.isfinite(values)
        if not finite.all():
            missing = values.size - int(np.count_nonzero(finite))
            raise self.device.fail(
                f"{missing} of {values.size} values of {port.name!r} were not written or are not finite; "
                "there is no result, and this engine is not used any more"
            )
        return values

    def describe(self) -> dict[str, Any]:
        """Library, version, the GPU, and whether one CUDA graph or single calls run it."""
        gpu = self.device.gpu
        return {
            "library": self.library,
            "device": f"{gpu.name}, compute capability {gpu.capability}",
            "zero_copy": self.device.zero_copy,
            "cuda_graph": self.plain or ("captured" if self._graphs else "none yet: a size of film came once"),
        }

    def close(self) -> None:
        """Give the device's memory back; twice is harmless, and so is a device that has failed."""
        try:
            with self.device.use():
                for graph in self._graphs.values():
                    graph.close()
                self._graphs.clear()
                self._kernel = None  # its module is unloaded while the context is current
                self._unload()
        except EngineError:
            pass  # failed or closed: there is nothing to give back to
        self._graphs.clear()
        self._kernel = None
        self.device.close()


class GpuEngine(Engine):
    """A bundle's model on a GPU. After a fault of the device it is closed for good."""

    device: ClassVar[str] = "gpu"
    borrows: ClassVar[bool] = True  # a build on a machine without a GPU derives no thresholds for it

    @classmethod
    def open(
        cls: type[Self],
        bundle: Bundle,
        precision: Precision,
        device: str = "gpu",
        *,
        threads: int = 0,
        golden: bool = True,
    ) -> Self:
        """As `Engine.open`."""
        engine = super().open(bundle, precision, device, threads=threads, golden=False)
        try:
            if golden:
                engine.prove(bundle)
        except BaseException:
            engine.close()
            raise
        return engine

    def prove(self, bundle: Bundle) -> None:
        """As `Engine.prove`, twice: films preprocessed by the CPU's kernel, and by the GPU's, which screens."""
        super().prove(bundle)
        name, films = f"{self.family} with its own kernel", bundle.golden().frames
        prove(name, bundle, self.precision, lambda _: gathered(self.run(films)))

    def infer(self, batch: NDArray[Any]) -> Answer:
        """As `Engine.infer`; raises DeviceFault, after which this engine is closed."""
        try:
            return super().infer(batch)
        except DeviceFault:
            self.close()
            raise

    def _run(self, frame: Radiograph) -> Output:
        try:
            with self._lock:
                answer, staged_ms, device_ms = self._on_gpu().screen(frame, self.spec.preprocess)
        except DeviceFault:
            self.close()
            raise
        self._check(answer, 1)
        return Output(answer.logits[0], answer.cam[0], answer.embedding[0], staged_ms, device_ms)

    def _on_gpu(self) -> GpuGraph:
        if not isinstance(self._graph, GpuGraph):
            raise EngineError(f"{self.family}: this engine is closed; open another")
        return self._graph

    @property
    def kernel(self) -> str:
        """The GPU's own."""
        return "cuda"

    def close(self) -> None:
        """Give the device back; twice is harmless."""
        with self._lock:
            graph = self._graph
            if isinstance(graph, GpuGraph):
                graph.close()
        super().close()


def ordered(ports: dict[str, Port], library: str) -> tuple[Port, tuple[Port, ...]]:
    """The port `image` and those of OUTPUTS. Raises EngineError when others are there, or one is missing."""
    if set(ports) != {"image", *OUTPUTS}:
        raise EngineError(f"{library}: tensors are {sorted(ports)}; wanted image, {', '.join(OUTPUTS)}")
    for port in ports.values():
        if -1 in port.shape:
            raise EngineError(f"{library}: {port.name!r} is {port.shape}; wanted a static shape")
    return ports["image"], tuple(ports[name] for name in OUTPUTS)

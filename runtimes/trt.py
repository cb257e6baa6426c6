"""TensorRT on an NVIDIA GPU: one code path for TensorRT 10.3 to 11.4 and TensorRT-RTX (see `tensorrt_api`)."""

import hashlib
from typing import Any, ClassVar

import numpy as np

from edgecxr.errors import EngineError
from edgecxr.runtimes import tensorrt_api
from edgecxr.runtimes.compile_apart import compile_apart
from edgecxr.runtimes.cuda import Buffer
from edgecxr.runtimes.driver import Gpu, probe
from edgecxr.runtimes.engine_cache import EngineCache, Key
from edgecxr.runtimes.gpu import GpuEngine, GpuGraph, Port, ordered
from edgecxr.runtimes.graph import Graph
from edgecxr.runtimes.tensorrt_api import Progress, Tensorrt

__all__ = ["TensorRt", "TensorRtGraph", "compile_model", "compiled_apart", "engine_key", "read_port"]


def engine_key(model: bytes, api: Tensorrt, gpu: Gpu | None, capability: str = "") -> Key:
    """Where the engine of a model is kept: for one GPU, or (TensorRT-RTX) for every GPU of a compute capability.

    Raises EngineError when there is neither.
    """
    if api.builds_without_gpu and (capability or gpu is not None):
        device = f"compute capability {capability or (gpu.capability if gpu else '')}"
    elif gpu is not None:
        # Boards of one name and capability differ: each Jetson Orin calls itself "Orin", 8.7.
        device = f"{gpu.name}, compute capability {gpu.capability}, {gpu.multiprocessors} multiprocessors"
    else:
        raise EngineError(f"{api.name} builds on the GPU that will run the engine, and there is none here")
    return Key(hashlib.sha256(model).hexdigest(), api.flavour, api.version, device)


def compile_model(
    model: bytes, key: Key, api: Tensorrt, cache: EngineCache, *, capability: str = "", progress: Progress | None = None
) -> bytes:
    """Build the engine of an ONNX file and keep it under `key`; `capability` is for TensorRT-RTX.

    Raises EngineError: refused, cancelled, no place to keep it. TensorRT itself needs a GPU: ask `probe` first.
    """
    timing = Key("", key.flavour, key.version, key.device, "timing")
    plan = api.build(
        model,
        capabilities=(capability,) if capability else (),
        timing_cache=cache.read(timing) or b"",
        progress=progress,
    )
    if plan.timing_cache:
        cache.write(timing, plan.timing_cache)
    cache.write(key, plan.engine)
    return plan.engine


def compiled_apart(model: bytes, key: Key, cache: EngineCache, *, kept: bool = True) -> bytes:
    """The engine of an ONNX file for the GPU here, kept under `key`; built by a process of its own where there is none,
    and anew without `kept`. Raises EngineError."""
    plan = cache.read(key) if kept else None
    if plan is None:
        compile_apart(model, folder=cache.folder, kept=kept)
        plan = cache.read(key)
    if plan is None:
        raise EngineError(f"the engine that was built is not in {cache.folder}; is there room for it?")
    return plan


def read_port(api: Tensorrt, engine: Any, index: int) -> Port:
    """A tensor of a deserialized engine. Raises EngineError where it is of another type than float32 or float16."""
    kinds = api.module.DataType
    name = engine.get_tensor_name(index)
    known: dict[Any, np.dtype[Any]] = {kinds.FLOAT: np.dtype(np.float32), kinds.HALF: np.dtype(np.float16)}
    kind = engine.get_tensor_dtype(name)
    if kind not in known:
        raise EngineError(f"{api.name}: {name!r} is {kind}; wanted float32 or float16")
    return Port(name, tuple(engine.get_tensor_shape(name)), known[kind])


class TensorRtGraph(GpuGraph):
    """An ONNX file built, or taken from the cache, and deserialized on a GPU."""

    library = "tensorrt"

    @classmethod
    def version(cls) -> str:
        """Module and version of TensorRT, where there is a GPU to run it. Raises EngineError."""
        probe().gpu()  # before TensorRT: some versions end the process when they are created without a GPU
        return tensorrt_api.load().name

    def _load(self, model: bytes) -> tuple[Port, tuple[Port, ...]]:
        self._api, self._cache = tensorrt_api.load(), EngineCache()
        self._key = engine_key(model, self._api, self.device.gpu)
        self._logger = self._api.logger()
        with self.device.use():
            if not any(self._deserialize(compiled_apart(model, self._key, self._cache, kept=k)) for k in (True, False)):
                raise EngineError(f"{self._api.name} does not load the engine that it built: {self._said()}")
            self._open_context()
        ports = [read_port(self._api, self._engine, index) for index in range(self._engine.num_io_tensors)]
        return ordered({port.name: port for port in ports}, self.library)

    def _deserialize(self, plan: bytes) -> bool:
        """Whether the engine loads here; one of another version, or for another GPU, does not."""
        self._logger.errors.clear()
        self._runtime = self._api.module.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        return self._engine is not None

    def _open_context(self) -> None:
        settings = self._with_runtime_cache()
        self._context = self._engine.create_execution_context(*(() if settings is None else (settings,)))
        if self._context is None:
            raise EngineError(f"{self._api.name} cannot make an execution context: {self._said()}")
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(self.device.stream.handle):
            self.capturing, self.plain = False, f"{self._api.name} says that this engine cannot be captured"

    def _with_runtime_cache(self) -> Any:
        """TensorRT-RTX compiles kernels at the first run: what it compiled before is given back to it."""
        self._runtime_cache = None
        if not hasattr(self._engine, "create_runtime_config"):
            return None
        settings = self._engine.create_runtime_config()
        if not hasattr(settings, "create_runtime_cache"):
            return None
        self._runtime_key = Key(**{**vars(self._key), "kind": "runtime"})
        self._runtime_cache = settings.create_runtime_cache()
        if stored := self._cache.read(self._runtime_key):
            self._runtime_cache.deserialize(stored)
        settings.set_runtime_cache(self._runtime_cache)
        return settings

    def _bind(self, buffers: dict[str, Buffer]) -> None:
        for name, buffer in buffers.items():
            if not self._context.set_tensor_address(name, buffer.address):
                raise EngineError(f"{self._api.name} does not take the buffer of {name!r}: {self._said()}")

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self.device.stream.handle):
            raise EngineError(f"{self._api.name} failed: {self._said()}")

    def _unload(self) -> None:
        kept = getattr(self, "_runtime_cache", None)
        self._context = self._engine = self._runtime = self._runtime_cache = None
        if kept is not None:
            self._cache.write(self._runtime_key, bytes(memoryview(kept.serialize())))

    def _said(self) -> str:
        return "; ".join(self._logger.errors[-3:]) or "it gave no reason"

    def describe(self) -> dict[str, Any]:
        """As `GpuGraph.describe`, with the version and flavour of TensorRT."""
        return {**super().describe(), "version": self._api.version, "flavour": self._api.flavour}


class TensorRt(GpuEngine):
    """A bundle's model in TensorRT."""

    family = "tensorrt-gpu"
    graph: ClassVar[type[Graph]] = TensorRtGraph

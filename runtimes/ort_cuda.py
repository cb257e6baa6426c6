"""ONNX Runtime on an NVIDIA GPU, behind the same kernel: where TensorRT is absent, or does not list the GPU.

(TensorRT-RTX does not list Hopper.) The session reads and writes our buffers (`IOBinding`) on our stream
(`user_compute_stream`), so that poison, check and CUDA graph are those of every engine on a GPU.
"""

from typing import Any, ClassVar

from edgecxr.errors import EngineError
from edgecxr.runtimes.cuda import Buffer
from edgecxr.runtimes.driver import probe
from edgecxr.runtimes.gpu import GpuEngine, GpuGraph, Port, ordered
from edgecxr.runtimes.graph import Graph
from edgecxr.runtimes.ort import TYPES, import_onnxruntime, quiet_options
from edgecxr.spec import Precision

__all__ = ["OrtCuda", "OrtCudaGraph"]


class OrtCudaGraph(GpuGraph):
    """An ONNX file in a session on the CUDA provider."""

    library = "onnxruntime-cuda"
    provider: ClassVar[str] = "CUDAExecutionProvider"
    memory: ClassVar[str] = "cuda"  # where the buffers lie, in ONNX Runtime's words

    @classmethod
    def version(cls) -> str:
        """ONNX Runtime's version, where it has CUDA and there is a GPU. Raises EngineError."""
        probe().gpu()
        onnxruntime, _ = import_onnxruntime()
        if cls.provider not in onnxruntime.get_available_providers():
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} is without {cls.provider}; pip uninstall onnxruntime, then "
                "pip install onnxruntime-gpu, which serves the CPU as well"
            )
        return str(onnxruntime.__version__)

    def _load(self, model: bytes) -> tuple[Port, tuple[Port, ...]]:
        self._version = self.version()
        onnxruntime, self._faults = import_onnxruntime()
        with self.device.use():
            try:
                self._session = onnxruntime.InferenceSession(
                    model, self._options(onnxruntime), providers=[self._provider()], enable_fallback=0
                )
            except self._faults as error:
                raise EngineError(
                    f"ONNX Runtime {self._version} does not run the model on the GPU: {error}; it wants CUDA and cuDNN "
                    "of the versions that it was built for (onnxruntime.ai, CUDA Execution Provider, Requirements)"
                ) from error
        self._run_options = onnxruntime.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        ports = {item.name: self._port(item) for item in (*self._session.get_inputs(), *self._session.get_outputs())}
        return ordered(ports, self.library)

    def _options(self, onnxruntime: Any) -> Any:
        options = quiet_options(onnxruntime)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # no node, nor all of them, there
        return options

    def _provider(self) -> tuple[str, dict[str, str]]:
        stream = {"device_id": str(self.device.gpu.index), "user_compute_stream": str(self.device.stream.handle)}
        return self.provider, {**stream, "use_tf32": "0"}

    def _port(self, item: Any) -> Port:
        shape = tuple(size if isinstance(size, int) else -1 for size in item.shape)
        if item.type not in TYPES:
            raise EngineError(f"{self.library}: {item.name!r} is {item.type}; wanted float32 or float16")
        return Port(item.name, shape, TYPES[item.type])

    def _bind(self, buffers: dict[str, Buffer]) -> None:
        self._binding = self._session.io_binding()
        for port in self._ports:
            bind = self._binding.bind_input if port.name == "image" else self._binding.bind_output
            place = (self.memory, self.device.gpu.index, port.dtype.type)
            try:
                bind(port.name, *place, list(port.shape), buffers[port.name].address)
            except self._faults as error:
                raise EngineError(f"ONNX Runtime does not take the buffer of {port.name!r}: {error}") from error

    def _enqueue(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except self._faults as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def _unload(self) -> None:
        self._binding = self._session = None

    def describe(self) -> dict[str, Any]:
        """As `GpuGraph.describe`, with ONNX Runtime's version."""
        return {**super().describe(), "version": self._version}


class OrtCuda(GpuEngine):
    """A bundle's model in ONNX Runtime on a GPU."""

    family = "onnxruntime-cuda-gpu"
    preference: ClassVar[tuple[Precision, ...]] = ("fp16", "fp32", "int8")  # its INT8 computes in floats
    graph: ClassVar[type[Graph]] = OrtCudaGraph

"""ONNX Runtime on the CPU: the second opinion, and the engine where OpenVINO is absent."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import EngineError
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.graph import OUTPUTS, Graph

__all__ = ["TYPES", "OrtCpu", "OrtGraph", "import_onnxruntime", "quiet_options"]

TYPES: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}


def import_onnxruntime() -> tuple[Any, tuple[type[Exception], ...]]:
    """The module, its telemetry off, and every exception it raises. Raises EngineError where it cannot be imported."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as native
    except ImportError as error:
        raise EngineError(f"ONNX Runtime cannot be imported ({error}); pip install onnxruntime") from error
    onnxruntime.disable_telemetry_events()
    # ONNX Runtime's exceptions have no base of their own: every exception class of its binding is named.
    found = [item for item in vars(native).values() if isinstance(item, type) and issubclass(item, Exception)]
    return onnxruntime, (RuntimeError, ValueError, *found)


def quiet_options(onnxruntime: Any) -> Any:
    """Options of a session that raises what goes wrong and does not print it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal
    return options


class OrtGraph(Graph):
    """An ONNX file in an ONNX Runtime session on the CPU provider."""

    library = "onnxruntime"

    @classmethod
    def version(cls) -> str:
        """ONNX Runtime's version."""
        return str(import_onnxruntime()[0].__version__)

    def _compile(self, model: bytes, threads: int) -> None:
        onnxruntime, self._faults = import_onnxruntime()
        self._version = str(onnxruntime.__version__)
        options = quiet_options(onnxruntime)
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads do not burn a small machine
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except self._faults as error:
            raise EngineError(f"ONNX Runtime cannot load the model: {error}") from error
        self._read_ports()

    def _read_ports(self) -> None:
        inputs, outputs = self._session.get_inputs(), {output.name for output in self._session.get_outputs()}
        if [item.name for item in inputs] != ["image"] or inputs[0].type not in TYPES or not outputs >= set(OUTPUTS):
            raise EngineError(
                f"onnxruntime: inputs {[(item.name, item.type) for item in inputs]}, outputs {sorted(outputs)}; "
                f"wanted one float input 'image' and outputs {', '.join(OUTPUTS)}"
            )
        self.input_shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
        self.input_dtype = TYPES[inputs[0].type]

    def _infer(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        try:
            return tuple(self._session.run(list(OUTPUTS), {"image": batch}))
        except self._faults as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def describe(self) -> dict[str, Any]:
        """Library, version and settings. Its CPU kernels compute FP16 graphs in FP32, rounding after each node."""
        options = self._session.get_session_options()
        return {
            "library": self.library,
            "version": self._version,
            "inference_precision": "f32",
            "threads": options.intra_op_num_threads or os.cpu_count() or 1,
            "device": "CPU",
        }


class OrtCpu(Engine):
    """A bundle's model in ONNX Runtime on the CPU."""

    family = "onnxruntime-cpu"
    preference = ("fp16", "int8", "fp32")  # its INT8 took 1.7 to 1.9 times as long as FP16 (docs/measured.md)
    graph = OrtGraph

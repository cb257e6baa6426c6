"""Torch-TensorRT: for workstations that have PyTorch already. The bundle's own graph, run by Torch-TensorRT's runtime.

The engine is built from the ONNX file by the TensorRT that Torch-TensorRT brings (so precision is in the file, as
everywhere), and runs as a `TorchTensorRTModule` on tensors that share our buffers, our stream and PyTorch's primary
context. Torch-TensorRT loads only beside the PyTorch and the TensorRT that it was built for: that is checked first.
"""

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, ClassVar

import numpy as np
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

from edgecxr.errors import EngineError
from edgecxr.runtimes import tensorrt_api
from edgecxr.runtimes.cuda import Buffer
from edgecxr.runtimes.driver import probe
from edgecxr.runtimes.engine_cache import EngineCache
from edgecxr.runtimes.gpu import GpuEngine, GpuGraph, Port, ordered
from edgecxr.runtimes.graph import OUTPUTS, Graph
from edgecxr.runtimes.trt import compiled_apart, engine_key, read_port

__all__ = ["TorchTensorRt", "TorchTrtGraph", "check_pair"]

PACKAGES = ("torch-tensorrt", "torch-tensorrt-rtx")


def check_pair() -> str:
    """Name and version of Torch-TensorRT, when PyTorch and TensorRT are those that it declares to need.

    Raises EngineError that names what is there, what is wanted, and what to type.
    """
    package, found = _installed()
    wrong = []
    for line in requires(package) or ():
        requirement = _requirement(line)
        if requirement is None or not re.match(r"torch$|tensorrt", requirement.name.replace("_", "-").lower()):
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement} and there is none")
            continue
        try:
            fits = requirement.specifier.contains(there, prereleases=True)
        except InvalidVersion:
            fits = False
        if not fits:
            wrong.append(f"{requirement} and {there} is there")
    if wrong:
        raise EngineError(
            f"{package} {found} wants {', '.join(wrong)}; install versions that belong together: "
            f"pip install {package} torch, without other pins"
        )
    return f"{package} {found}"


def _installed() -> tuple[str, str]:
    for package in PACKAGES:
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    raise EngineError(
        "Torch-TensorRT is not installed; it is an alternative for workstations that have PyTorch: "
        "pip install torch-tensorrt, in the version of the PyTorch there"
    )


def _requirement(line: str) -> Requirement | None:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return None
    return requirement if requirement.marker is None or requirement.marker.evaluate({"extra": ""}) else None


class TorchTrtGraph(GpuGraph):
    """A TensorRT engine in a module of Torch-TensorRT."""

    library = "torch-tensorrt"

    @classmethod
    def version(cls) -> str:
        """Package and version, where its PyTorch, its TensorRT and a GPU are there. Raises EngineError."""
        named = check_pair()
        probe().gpu()
        return named

    def _load(self, model: bytes) -> tuple[Port, tuple[Port, ...]]:
        self._named = self.version()
        self.capturing, self.plain = False, "Torch-TensorRT keeps streams and CUDA graphs of its own"
        try:
            import torch
            from torch_tensorrt.dynamo.runtime import TorchTensorRTModule
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            raise EngineError(f"{self._named} cannot be imported: {type(error).__name__}: {error}") from error
        self._torch: Any = torch
        api, cache = tensorrt_api.load(), EngineCache()
        key = engine_key(model, api, self.device.gpu)
        with self.device.use():
            plan = compiled_apart(model, key, cache)
            try:
                self._module: Any = TorchTensorRTModule(
                    serialized_engine=plan, input_binding_names=["image"], output_binding_names=list(OUTPUTS)
                )
            except (RuntimeError, AssertionError, AttributeError) as error:
                raise EngineError(f"{self._named} does not load the engine: {error}") from error
            engine = api.module.Runtime(api.logger()).deserialize_cuda_engine(plan)
            if engine is None:
                raise EngineError(f"{api.name} does not load the engine that it built")
            ports = [read_port(api, engine, index) for index in range(engine.num_io_tensors)]
        return ordered({port.name: port for port in ports}, self.library)

    def _bind(self, buffers: dict[str, Buffer]) -> None:
        self._stream = self._torch.cuda.ExternalStream(self.device.stream.handle)
        self._tensors = {
            port.name: self._torch.as_tensor(_DeviceArray(buffers[port.name], port), device="cuda")
            for port in self._ports
        }

    def _enqueue(self) -> None:
        try:
            with self._torch.no_grad(), self._torch.cuda.stream(self._stream):
                outputs = self._module(self._tensors["image"])
                for name, output in zip(OUTPUTS, outputs, strict=True):
                    self._tensors[name].copy_(output, non_blocking=True)
        except RuntimeError as error:  # the base of what PyTorch raises on a device
            raise EngineError(f"{self._named} failed: {error}") from error

    def _unload(self) -> None:
        self._module = None
        self._tensors = {}

    def describe(self) -> dict[str, Any]:
        """As `GpuGraph.describe`, with the package and its version."""
        return {**super().describe(), "version": self._named}


class _DeviceArray:
    """A buffer as other libraries see it (CUDA Array Interface, version 3, numba.readthedocs.io)."""

    def __init__(self, buffer: Buffer, port: Port) -> None:
        self.__cuda_array_interface__ = {
            "shape": port.shape,
            "typestr": np.dtype(port.dtype).str,
            "data": (buffer.address, False),
            "version": 3,
        }


class TorchTensorRt(GpuEngine):
    """A bundle's model in Torch-TensorRT."""

    family = "torch-tensorrt-gpu"
    graph: ClassVar[type[Graph]] = TorchTrtGraph

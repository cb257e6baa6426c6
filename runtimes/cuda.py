"""One NVIDIA GPU: its primary context (which PyTorch and TensorRT share), a stream, memory, and CUDA graphs.

pycuda is imported when a device is opened. Any fault of the driver ends the device for good: what a failed launch left
behind is never read as a result. On a GPU that shares its memory with the CPU (a Jetson) buffers are mapped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import EngineError
from edgecxr.runtimes.driver import DeviceReport, Gpu, probe

__all__ = ["Buffer", "CudaGraph", "Device", "DeviceFault", "DeviceReport", "Gpu", "load_pycuda", "probe"]

_contexts: dict[int, Any] = {}  # of this process, by the number of the GPU
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: capturing it leaves the default stream of PyTorch and others usable
NAN_BYTE = 0xFF  # repeated, it is NaN in float32 and in float16: what was not written is seen
HINTS = {  # what the driver says -> what to do
    "out of memory": "other programs hold the GPU's memory: end them, or screen on the CPU",
    "no kernel image": "the kernels were not built for this GPU: install edgecxr here with the CUDA toolkit (nvcc)",
    "unsupported": "the driver is older than the kernels: update it, or install edgecxr here with its own CUDA toolkit",
    "invalid device function": "the driver is older than the kernels: update it",
    "insufficient": "the driver is too old for this CUDA: update it",
}


class DeviceFault(EngineError):
    """The GPU or its driver failed. Everything that lives on the device is lost; open it anew."""


def load_pycuda() -> Any:
    """The module `pycuda.driver`. Raises EngineError with what to install; ask `probe` first."""
    try:
        from pycuda import driver
    except ImportError as error:
        raise EngineError(
            f"pycuda cannot be imported ({error}); pip install 'edgecxr[nvidia]' (it needs the CUDA toolkit to build)"
        ) from error
    return driver


class Device:
    """One opened GPU. One thread at a time; `use` makes its context current in that thread."""

    def __init__(self, index: int = 0) -> None:
        """Open the GPU with this number. Raises EngineError: no driver, no such GPU, no pycuda; DeviceFault."""
        self.gpu: Gpu = probe().gpu(index)
        self._driver = load_pycuda()
        self._fault = ""
        self._buffers: list[Buffer] = []
        try:
            self._context: Any = _primary_context(self._driver, index)
        except self._driver.Error as error:
            raise DeviceFault(self._words(error)) from error
        with self.use() as driver:
            self.stream: Any = driver.Stream(NON_BLOCKING)

    @property
    def error(self) -> type[Exception]:
        """The base of everything that pycuda raises."""
        base: type[Exception] = self._driver.Error
        return base

    @property
    def zero_copy(self) -> bool:
        """Whether buffers are mapped host memory: no copies, on a GPU that shares its memory with the CPU."""
        return self.gpu.integrated and self.gpu.can_map

    @contextmanager
    def use(self) -> Iterator[Any]:
        """The driver module, with the context current. Raises DeviceFault, after which nothing works here any more."""
        if self._fault:
            raise DeviceFault(f"{self.gpu.name} is not used any more: {self._fault}")
        if self._context is None:
            raise EngineError(f"{self.gpu.name}: this device is closed; open another")
        try:
            self._context.push()
            try:
                yield self._driver
            finally:
                self._driver.Context.pop()
        except self._driver.Error as error:
            self._fault = self._words(error)
            raise DeviceFault(self._fault) from error

    def fail(self, words: str) -> DeviceFault:
        """Give the device up for a fault that a library reported; the exception to raise."""
        self._fault = f"{self.gpu.name}: {words}"
        return DeviceFault(self._fault)

    def buffer(self, size: int, *, reread: bool = False) -> "Buffer":
        """`size` bytes, on the host and on the device. Raises DeviceFault: out of memory.

        `reread`: the device reads them more than once, so that they are copied there also with zero-copy, whose memory
        the GPU does not cache.
        """
        with self.use() as driver:
            made = Buffer(driver, size, self.stream, mapped=self.zero_copy and not reread)
        self._buffers.append(made)
        return made

    def release(self, buffer: "Buffer") -> None:
        """Give a buffer's memory back."""
        self._buffers.remove(buffer)
        with self.use():
            buffer.free()

    def module(self, image: bytes) -> Any:
        """A module of a cubin, fatbin or PTX. Raises EngineError where the driver does not take it; nothing is lost."""
        with self.use() as driver:
            try:
                return driver.module_from_buffer(image)
            except driver.Error as error:
                raise EngineError(self._words(error)) from error

    def synchronize(self) -> None:
        """Wait for the stream. Raises DeviceFault for whatever went wrong on it."""
        with self.use():
            self.stream.synchronize()

    def close(self) -> None:
        """Give everything back; twice is harmless."""
        if self._context is None:
            return
        try:
            if not self._fault:
                with self.use():
                    self.stream.synchronize()
                    for buffer in self._buffers:
                        buffer.free()
                    self.stream = None
        finally:
            self._buffers.clear()
            self.stream = self._context = None

    def _words(self, error: Exception) -> str:
        words = str(error).strip() or type(error).__name__
        hint = next((advice for part, advice in HINTS.items() if part in words.lower()), "")
        return f"{self.gpu.name}: {words}{'; ' + hint if hint else ''}"


def _primary_context(driver: Any, index: int) -> Any:
    """Retained once and kept: pycuda leaves a released one current in the thread that releases it."""
    if index not in _contexts:
        driver.init()
        _contexts[index] = driver.Device(index).retain_primary_context()
    return _contexts[index]


class Buffer:
    """Bytes that both sides see: pinned on the host, and on the device its copy, or the same memory where mapped."""

    def __init__(self, driver: Any, size: int, stream: Any, *, mapped: bool) -> None:
        """The context must be current: made by `Device.buffer`."""
        self.size, self.mapped = size, mapped
        self._driver, self._stream = driver, stream
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        apart: Any = None if mapped else driver.mem_alloc(max(size, 1))  # first: a GPU has less to give than its host
        try:
            self.host: NDArray[np.uint8] = driver.pagelocked_empty(max(size, 1), np.uint8, mem_flags=flags)
        except driver.Error:
            if apart is not None:
                apart.free()
            raise
        self._memory: Any = self.host.base if mapped else apart
        self.address: int = int(self._memory.get_device_pointer() if mapped else apart)

    def array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """The host side as an array; it must fit."""
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        values: NDArray[Any] = self.host[:count].view(dtype).reshape(shape)
        return values

    def upload(self, size: int | None = None) -> None:
        """Enqueue the copy of the first `size` bytes to the device; nothing where mapped."""
        count = self.size if size is None else size
        if count and not self.mapped:
            self._driver.memcpy_htod_async(self.address, self.host[:count], self._stream)

    def download(self) -> None:
        """Enqueue the copy to the host; nothing where mapped."""
        if not self.mapped:
            self._driver.memcpy_dtoh_async(self.host[: self.size], self.address, self._stream)

    def poison(self) -> None:
        """Enqueue NaN into every element on the device, so that none of an earlier run can be read again."""
        self._driver.memset_d8_async(self.address, NAN_BYTE, self.size, self._stream)

    def poison_host(self) -> None:
        """NaN into every element of the host's copy; only while nothing runs on the stream."""
        self.host.fill(NAN_BYTE)

    def free(self) -> None:
        """Give the memory back. The context must be current."""
        if not self.mapped and self._memory is not None:
            self._memory.free()
        self._memory = self._stream = None  # pycuda frees nothing from another thread once the context is not current
        self.host = np.empty(0, np.uint8)


class CudaGraph:
    """What was enqueued once, to be launched again as one: by cuda-bindings, on a stream of pycuda."""

    def __init__(self, device: Device, enqueue: Callable[[], None]) -> None:
        """Capture what `enqueue` puts on the device's stream. Run it once before: the first time may allocate.

        Raises EngineError when cuda-bindings is absent or this cannot be captured (the device is none the worse);
        DeviceFault when the driver fails.
        """
        self._cuda = _bindings()
        self._device, self._stream = device, device.stream.handle
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with device.use():
            (code,) = self._call("cuStreamBeginCapture", self._stream, mode)
            if int(code):
                raise EngineError(f"this driver captures no CUDA graphs: {self._words(code)}")
            problem: Exception | None = None
            try:
                enqueue()
            except (device.error, EngineError) as error:
                problem = error
            code, graph = self._call("cuStreamEndCapture", self._stream)  # also ends a capture that has failed
            if problem is not None or int(code):
                raise EngineError(f"this cannot be captured into a CUDA graph: {problem or self._words(code)}")
            (self._graph,) = self._check("cuGraphInstantiate", graph, 0)
            self._check("cuGraphDestroy", graph)

    def launch(self) -> None:
        """Enqueue it. The context must be current."""
        self._check("cuGraphLaunch", self._graph, self._stream)

    def close(self) -> None:
        """Give it back. The context must be current."""
        self._check("cuGraphExecDestroy", self._graph)

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """What cuda-bindings returns. Raises EngineError where it does not find the call in this driver."""
        try:
            returned: tuple[Any, ...] = getattr(self._cuda, name)(*arguments)
        except RuntimeError as error:
            raise EngineError(f"cuda-bindings does not fit this driver: {name}: {error}") from error
        return returned

    def _check(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        code, *values = self._call(name, *arguments)
        if int(code):
            raise self._device.fail(f"{name} failed: {self._words(code)}")
        return tuple(values)

    def _words(self, code: Any) -> str:
        _, text = self._call("cuGetErrorString", code)
        return f"{text.decode(errors='replace') if isinstance(text, bytes) else text} ({getattr(code, 'name', code)})"


def _bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EngineError(
            f"cuda-bindings cannot be imported ({error}), so there are no CUDA graphs; pip install 'edgecxr[nvidia]'"
        ) from error
    return driver

"""The preprocessing kernel on a device: films are packed into pinned memory, go up once, and are model input there."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from edgecxr.errors import EngineError, KernelError
from edgecxr.kernels.device import ENTRIES, DevicePlan, fatbin
from edgecxr.kernels.nvrtc import compile_ptx
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.cuda import Buffer, Device
from edgecxr.spec import PreprocessSpec

__all__ = ["FrameKernel", "Launch"]

ALIGNMENT = 256  # bytes; of what lies side by side in the staging buffer
STEP = 4 << 20  # bytes; the staging buffer grows by whole steps


class Launch(NamedTuple):
    """Films that wait in pinned memory. Launches of one `key` enqueue the same calls with the same arguments."""

    key: tuple[object, ...]
    generation: int  # of the staging memory, from 1; part of the key, because memory anew may have the old address
    enqueue: Callable[[], None]  # the copy and the kernel, on the device's stream; the context must be current


class FrameKernel:
    """The kernel, loaded, with its staging memory. One thread at a time."""

    def __init__(self, device: Device, dtype: Any) -> None:
        """`dtype` float32 or float16 is what the network takes. Raises EngineError where no form of it loads here."""
        self._device = device
        self._dtype = np.dtype(dtype)
        self._module, self.origin = _load(device)
        with device.use():
            self._function: Any = self._module.get_function(ENTRIES[self._dtype.name])
        self._staging: Buffer | None = None
        self._generation = 0

    def stage(self, radiographs: Sequence[Radiograph], spec: PreprocessSpec, output: Buffer) -> Launch:
        """Pack films for a launch that writes all of `output`, (N, 1, S, S). Nothing may run on the stream.

        Raises Refusal, KernelError: as `DevicePlan.of`. EngineError: `output` has another size.
        """
        plan = DevicePlan.of(radiographs, spec)
        wanted = int(np.prod(plan.shape)) * self._dtype.itemsize
        if output.size != wanted:
            raise EngineError(f"the kernel would write {plan.shape}, {wanted} bytes, into a tensor of {output.size}")
        tables_at = _aligned(plan.frames.nbytes)
        pixels_at = tables_at + _aligned(plan.tables.nbytes)
        staging = self._room(pixels_at + plan.bytes)
        staging.host[: plan.frames.nbytes] = plan.frames.view(np.uint8)
        staging.host[tables_at : tables_at + plan.tables.nbytes] = plan.tables.view(np.uint8)
        plan.pack(staging.host[pixels_at:])
        arguments = (
            np.uintp(staging.address),
            np.uintp(staging.address + pixels_at),
            np.uint64(plan.bytes),
            np.uintp(staging.address + tables_at),
            np.int32(plan.size),
            np.float32(plan.range_low),
            np.float32(plan.range_width),
            np.uintp(output.address),
        )
        shape = (plan.grid, (plan.threads, 1, 1), plan.shared_bytes)
        key = (self._generation, pixels_at + plan.bytes, *(value.item() for value in arguments), *shape)
        return Launch(key, self._generation, partial(self._enqueue, staging, pixels_at + plan.bytes, arguments, shape))

    def _enqueue(
        self,
        staging: Buffer,
        size: int,
        arguments: tuple[Any, ...],
        shape: tuple[tuple[int, int, int], tuple[int, int, int], int],
    ) -> None:
        staging.upload(size)
        grid, block, shared = shape
        self._function(*arguments, grid=grid, block=block, shared=shared, stream=self._device.stream)

    def _room(self, size: int) -> Buffer:
        if self._staging is None or self._staging.size < size:
            if self._staging is not None:
                self._device.release(self._staging)
                self._staging = None
            self._staging = self._device.buffer(-(-size // STEP) * STEP)
            self._generation += 1
        return self._staging


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _load(device: Device) -> tuple[Any, str]:
    """The module and where it is from: the fatbin that was built, or (an older driver, a Jetson) NVRTC on the spot."""
    reasons = []
    forms: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("fatbin", fatbin),
        ("nvrtc", partial(compile_ptx, device.gpu.architecture)),
    )
    for name, image in forms:
        try:
            return device.module(image()), name
        except (KernelError, EngineError) as error:
            reasons.append(f"{name}: {error}")
    raise EngineError(f"no preprocessing kernel for {device.gpu.name}: {'; '.join(reasons)}")

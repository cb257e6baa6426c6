"""The preprocessing kernel on a device: films are packed into pinned memory, go up once, and are model input there.

Beside them goes what describes them: a struct a film, and its lookup table, of which many pixels read one entry.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecxr.errors import EngineError, KernelError
from edgecxr.kernels.device import ENTRIES, DevicePlan, fatbin
from edgecxr.kernels.nvrtc import compile_cubin, compile_ptx, find_libraries
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.cuda import Buffer, Device
from edgecxr.spec import PreprocessSpec

__all__ = ["FrameKernel", "Launch"]

ALIGNMENT = 256  # bytes; of what lies side by side in the staging buffer
STEP = 4 << 20  # bytes; the buffer of the films grows by whole steps
TABLE_STEP = 64 << 10  # bytes; that of the tables


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
        self._films: Buffer | None = None
        self._tables: Buffer | None = None
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
        tables = self._room_for_tables(tables_at + plan.tables.nbytes)
        films = self._room_for_films(plan.bytes)
        tables.host[: plan.frames.nbytes] = plan.frames.view(np.uint8)
        tables.host[tables_at : tables_at + plan.tables.nbytes] = plan.tables.view(np.uint8)
        plan.pack(films.host)
        arguments = (
            np.uintp(tables.address),
            np.uintp(films.address),
            np.uint64(plan.bytes),
            np.uintp(tables.address + tables_at),
            np.int32(plan.size),
            np.float32(plan.range_low),
            np.float32(plan.range_width),
            np.uintp(output.address),
        )
        sizes = (tables_at + plan.tables.nbytes, plan.bytes)
        shape = (plan.grid, (plan.threads, 1, 1), plan.shared_bytes)
        key = (self._generation, *sizes, *(value.item() for value in arguments), *shape)
        uploads = tuple(zip((tables, films), sizes, strict=True))
        return Launch(key, self._generation, partial(self._enqueue, uploads, arguments, shape))

    def _enqueue(
        self,
        uploads: tuple[tuple[Buffer, int], ...],
        arguments: tuple[Any, ...],
        shape: tuple[tuple[int, int, int], tuple[int, int, int], int],
    ) -> None:
        for buffer, size in uploads:
            buffer.upload(size)
        grid, block, shared = shape
        self._function(*arguments, grid=grid, block=block, shared=shared, stream=self._device.stream)

    def _room_for_films(self, size: int) -> Buffer:
        if self._films is None or self._films.size < size:
            self._films = self._anew(self._films, -(-size // STEP) * STEP)
        return self._films

    def _room_for_tables(self, size: int) -> Buffer:
        if self._tables is None or self._tables.size < size:
            self._tables = self._anew(self._tables, -(-size // TABLE_STEP) * TABLE_STEP, reread=True)
        return self._tables

    def _anew(self, before: Buffer | None, size: int, *, reread: bool = False) -> Buffer:
        if before is not None:
            self._device.release(before)
        self._generation += 1
        return self._device.buffer(size, reread=reread)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _load(device: Device) -> tuple[Any, str]:
    """The module and where it is from: the fatbin that was built, or (an older driver, a Jetson) NVRTC on the spot.

    Of NVRTC machine code first: a driver takes no PTX of a toolkit that is newer than itself, but cubins of its major
    version (CUDA C++ Best Practices Guide, "Dynamic Code Generation").
    """
    reasons = []
    for name, image in _forms(device.gpu.architecture):
        try:
            return device.module(image()), name
        except (KernelError, EngineError) as error:
            reasons.append(f"{name}: {error}")
    raise EngineError(f"no preprocessing kernel for {device.gpu.name}: {'; '.join(reasons)}")


def _forms(architecture: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """What may load, the best first: each NVRTC that is here, for a driver takes no code of a later major version."""
    yield "fatbin", fatbin
    try:
        libraries: list[Path | None] = [*find_libraries()]
    except KernelError:
        libraries = [None]  # which says what to install
    for library in libraries:
        yield "nvrtc", partial(compile_cubin, architecture, library)
        yield "nvrtc, PTX", partial(compile_ptx, architecture, library)

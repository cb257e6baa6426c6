"""What the CUDA kernel (`cuda/preprocess.cu`) is given for a batch of films, made on the host with NumPy alone.

    plan = DevicePlan.of(radiographs, spec)
    plan.pack(staging)                       # staging: (>= plan.bytes,) uint8, then to the device
    launch plan.entry with plan.grid, (plan.threads, 1, 1), plan.shared_bytes and
        frames, pixels, uint64(plan.bytes), tables, int32(plan.size), float32(plan.range_low),
        float32(plan.range_width), output    # (N, 1, S, S) of plan.dtype

Nothing here needs a GPU, a driver or a CUDA library.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import KernelError, Refusal, RefusalReason
from edgecxr.kernels import tiling
from edgecxr.kernels.checks import check_film, check_spec
from edgecxr.kernels.transfer import Ramp, Span, fold
from edgecxr.radiograph import Radiograph
from edgecxr.spec import PreprocessSpec

__all__ = ["ENTRIES", "FRAME", "SOURCES", "DevicePlan", "fatbin", "sources"]

ENTRIES = {"float32": "edgecxr_preprocess_f32", "float16": "edgecxr_preprocess_f16"}
FATBIN = Path(__file__).parent / "preprocess.fatbin"
SOURCES = ("cuda/preprocess.cu", "cuda/block.hpp", "cuda/frame.hpp", "src/preprocess.hpp")

LIFTED = 2.0**23  # kLifted of src/preprocess.hpp
NEAR = 4096  # table values that a block copies to shared memory, at most: those of a 12-bit film
ALIGNMENT = 128  # bytes; every film starts at a multiple, so that all loads of 16 bytes are aligned where rows are
MOST_FILMS = 65535  # of one launch: a grid's second side

# struct Frame of cuda/frame.hpp
FRAME = np.dtype(
    [
        ("offset", "<i8"),
        ("pitch", "<i8"),
        ("scale", "<f8"),
        *((name, "<i4") for name in ("height", "width", "top", "left", "rows", "columns", "bytes", "band", "tile")),
        ("flip", "<u4"),
        *((name, "<f4") for name in ("bias", "inverse", "shift")),
        *((name, "<u4") for name in ("padding_first", "padding_count")),
        *((name, "<i4") for name in ("table", "near_first", "near_count")),
    ]
)


@dataclass(frozen=True)
class DevicePlan:
    """One launch over N films of any sizes and types."""

    radiographs: tuple[Radiograph, ...]
    frames: NDArray[np.void]  # (N,) FRAME
    tables: NDArray[np.float32]  # (K,), K >= 1: tables of v, one behind the other
    bytes: int  # of all stored values as `pack` lays them out, a multiple of 16
    grid: tuple[int, int, int]  # a wider first side is harmless
    threads: int  # of a block
    shared_bytes: int  # dynamic shared memory of a block, at most 48 KiB
    size: int
    range_low: float
    range_width: float
    dtype: str  # float32 or float16

    @classmethod
    def of(cls, radiographs: Sequence[Radiograph], spec: PreprocessSpec, *, threads: int | None = None) -> "DevicePlan":
        """Plan a launch.

        Args:
            radiographs: 1 to 65535 films; see `Radiograph`.
            spec: the chain's parameters.
            threads: of a block (32 to 256, a multiple of 32); None takes what fits these films best.

        Raises:
            KernelError: no film, or an array or spec that breaks its contract.
            Refusal: as `edgecxr.kernels.preprocess` does, of the first film that it would refuse.
        """
        check_spec(spec)
        if not 1 <= len(radiographs) <= MOST_FILMS:
            raise KernelError(f"{len(radiographs)} films in a launch; wanted 1 to {MOST_FILMS}: split the batch")
        for radiograph in radiographs:
            check_film(radiograph)
        shapes = [(radiograph.shape, spec.placement(*radiograph.shape)) for radiograph in radiographs]
        layout = tiling.plan(shapes, threads)
        frames, tables = np.zeros(len(radiographs), dtype=FRAME), Tables()
        end = 0
        for index, radiograph in enumerate(radiographs):
            _place(frames[index], radiograph, spec, end)
            frames[index]["band"], frames[index]["tile"] = layout.band, layout.tiles[index]
            _set_transfer(frames[index], radiograph, spec, tables)
            end = -(-(end + radiograph.pixels.nbytes) // ALIGNMENT) * ALIGNMENT
        near = 4 * int(frames["near_count"].max())
        return cls(
            radiographs=tuple(radiographs),
            frames=frames,
            tables=tables.joined(),
            bytes=end,
            grid=(layout.blocks, len(radiographs), 1),
            threads=layout.threads,
            shared_bytes=layout.shared_bytes + near,
            size=spec.size,
            range_low=spec.range_low,
            range_width=spec.range_high - spec.range_low,
            dtype=spec.dtype,
        )

    @property
    def entry(self) -> str:
        """Name of the kernel in the module."""
        return ENTRIES[self.dtype]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 1, S, S) of the output."""
        return len(self.radiographs), 1, self.size, self.size

    def pack(self, into: NDArray[np.uint8]) -> None:
        """Copy every film's stored values to its offset. `into`: (>= bytes,) uint8, e.g. pinned memory."""
        if into.dtype != np.uint8 or into.ndim != 1 or into.size < self.bytes:
            raise KernelError(f"staging of {into.dtype} {into.shape}; wanted uint8 of at least {self.bytes} bytes")
        for radiograph, offset in zip(self.radiographs, self.frames["offset"], strict=True):
            flat = radiograph.pixels.reshape(-1).view(np.uint8)
            into[offset : offset + flat.size] = flat


class Tables:
    """Tables of v, one behind the other; equal ones are kept once."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32]] = []
        self._starts: dict[bytes, int] = {}
        self._length = 0

    def add(self, values: NDArray[np.float32]) -> int:
        """Index of the first value."""
        start = self._starts.setdefault(values.tobytes(), self._length)
        if start == self._length:
            self._parts.append(values)
            self._length += values.size
        return start

    def joined(self) -> NDArray[np.float32]:
        return np.concatenate(self._parts) if self._parts else np.zeros(1, dtype=np.float32)


def fatbin() -> bytes:
    """Machine code of the kernel for every GPU from sm_75 to sm_120 that nvcc knew (13: all), and PTX for later ones.

    A driver older than that nvcc's CUDA does not take it.

    Raises:
        KernelError: this installation was built without nvcc; `edgecxr.kernels.nvrtc` compiles it on the spot.
    """
    if not FATBIN.is_file():
        raise KernelError(
            f"no {FATBIN.name} beside {FATBIN.parent}: edgecxr was installed without nvcc. Install nvcc and "
            "install edgecxr again, or let edgecxr.kernels.nvrtc compile the kernel for this GPU"
        )
    return FATBIN.read_bytes()


def sources() -> dict[str, str]:
    """Text of the kernel's files by name without folder, preprocess.cu first."""
    folder = Path(__file__).parent
    absent = [name for name in SOURCES if not (folder / name).is_file()]
    if absent:
        raise KernelError(f"{folder} lacks {', '.join(absent)}: install edgecxr again")
    return {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in SOURCES}


def _place(frame: Any, radiograph: Radiograph, spec: PreprocessSpec, offset: int) -> None:
    """Where the film's pixels lie, and where they go."""
    height, width = radiograph.shape
    box, pixel_type = spec.placement(height, width), radiograph.pixels.dtype
    frame["offset"], frame["pitch"], frame["bytes"] = offset, width * pixel_type.itemsize, pixel_type.itemsize
    frame["height"], frame["width"] = height, width
    frame["top"], frame["left"], frame["rows"], frame["columns"] = box
    frame["scale"] = 1.0 / (max(1.0, height / box.height) * max(1.0, width / box.width))
    if pixel_type.kind == "i":
        frame["flip"] = 0x80808080 if pixel_type.itemsize == 1 else 0x80008000


def _set_transfer(frame: Any, radiograph: Radiograph, spec: PreprocessSpec, tables: Tables) -> None:
    """Steps 1 to 3: a line, or a table where they are none."""
    if _is_all_padding(radiograph):
        raise Refusal(RefusalReason.NO_CONTRAST, f"{radiograph.source or 'film'}: every pixel is padding")
    transfer = fold(radiograph, spec, _counts)
    least = _least(radiograph)
    if not isinstance(transfer, Ramp):
        values = np.roll(transfer.values, -least)  # from the order of bit patterns to that of stored values
    elif abs(transfer.zero - least) < LIFTED - 1:
        return _set_line(frame, transfer, radiograph)
    else:
        values = _tabulated(transfer, radiograph)
    frame["table"] = tables.add(values)
    frame["near_first"], frame["near_count"] = _near(radiograph)


def _set_line(frame: Any, ramp: Ramp, radiograph: Radiograph) -> None:
    """A ramp split into an integer and a fraction, so that no digits are lost in float32."""
    least = _least(radiograph)
    origin = math.ceil(ramp.zero) if ramp.falling else math.floor(ramp.zero)
    frame["bias"] = LIFTED + origin - least
    frame["inverse"] = (-1.0 if ramp.falling else 1.0) / ramp.span
    frame["shift"] = -abs(ramp.zero - origin) / ramp.span
    frame["table"] = -1
    if radiograph.padding is not None:
        first = max(radiograph.padding[0], least)
        last = min(radiograph.padding[1], int(np.iinfo(radiograph.pixels.dtype).max))
        frame["padding_first"], frame["padding_count"] = max(0, first - least), max(0, last - first + 1)


def _tabulated(ramp: Ramp, radiograph: Radiograph) -> NDArray[np.float32]:
    """A ramp that starts too far away for float32, as a table by stored value."""
    least = _least(radiograph)
    stored = np.arange(least, least + 2 ** (8 * radiograph.pixels.dtype.itemsize), dtype=np.float64)
    steps = ramp.zero - stored if ramp.falling else stored - ramp.zero
    values = np.clip(steps / ramp.span, 0.0, 1.0).astype(np.float32)
    if radiograph.padding is not None:
        values[(stored >= radiograph.padding[0]) & (stored <= radiograph.padding[1])] = 0.0
    return values


def _near(radiograph: Radiograph) -> tuple[int, int]:
    """(first, count) of the table values that a film of its bits can need; none where they are too many."""
    bits = min(max(radiograph.bits_stored, 8), 8 * radiograph.pixels.dtype.itemsize)
    if 2**bits > NEAR:
        return 0, 0
    return (-_least(radiograph) - 2 ** (bits - 1) if radiograph.pixels.dtype.kind == "i" else 0), 2**bits


def _least(radiograph: Radiograph) -> int:
    return int(np.iinfo(radiograph.pixels.dtype).min)


def _is_all_padding(radiograph: Radiograph) -> bool:
    if radiograph.padding is None:
        return False
    low, high = radiograph.padding
    return not any(np.any((row < low) | (row > high)) for row in radiograph.pixels)


def _counts(pixels: NDArray[Any], together: Span) -> NDArray[np.int64]:
    """Pixels per stored value, the least of the type first; those of `together` all at its first."""
    try:
        from edgecxr.kernels import native
    except ImportError:
        least = int(np.iinfo(pixels.dtype).min)
        counts = np.bincount(pixels.ravel().astype(np.int64) - least, minlength=2 ** (8 * pixels.dtype.itemsize))
        if together[0] <= together[1]:
            inside = slice(together[0] - least, together[1] - least + 1)
            total = counts[inside].sum()
            counts[inside] = 0
            counts[inside.start] = total
        return counts
    return native._counts(pixels, together, threads=os.cpu_count() or 1)

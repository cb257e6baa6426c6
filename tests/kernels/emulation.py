"""The CUDA kernel's text on the CPU: `kernels/cuda/emulation.cpp`, compiled by the C++ compiler that is at hand."""

import ctypes
import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgecxr.kernels.device import DevicePlan

KERNELS = Path(__file__).parents[2] / "kernels"
OPTIONS = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off")
COVER = np.dtype([("first", "<i4"), ("last", "<i4"), ("first_weight", "<f4"), ("last_weight", "<f4")])


class Emulation:
    """`edgecxr_emulate` of the compiled library."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
        if compiler is None or not (KERNELS / "cuda").is_dir():
            pytest.skip("no C++ compiler to compile the kernel's emulation with")
        library = folder / "emulation.so"
        files = [
            "-shared",
            "-fPIC",
            f"-I{KERNELS / 'src'}",
            str(KERNELS / "cuda" / "emulation.cpp"),
            "-o",
            str(library),
        ]
        done = subprocess.run([compiler, *OPTIONS, *files], capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.fail(f"{compiler}: {done.stderr}")
        self.library = ctypes.CDLL(str(library))

    def run(self, plan: DevicePlan, pixels: np.ndarray | None = None, extra_blocks: int = 0) -> np.ndarray:
        """Output of a launch, (N, 1, S, S); every element NaN beforehand. `pixels` holds what `plan.pack` would."""
        if pixels is None:
            pixels = aligned(plan.bytes)
            plan.pack(pixels)
        output = np.full(plan.shape, np.nan, dtype=plan.dtype)
        words = ctypes.create_string_buffer(200)
        failed = self.library.edgecxr_emulate(
            pointer(plan.frames),
            pointer(pixels),
            ctypes.c_uint64(plan.bytes),
            pointer(plan.tables),
            ctypes.c_int32(plan.size),
            ctypes.c_float(plan.range_low),
            ctypes.c_float(plan.range_width),
            pointer(output),
            int(plan.dtype == "float16"),
            plan.grid[0] + extra_blocks,
            plan.grid[1],
            plan.threads,
            plan.shared_bytes,
            words,
        )
        if failed:
            pytest.fail(words.value.decode())
        return output

    def half_bits(self, values: np.ndarray) -> np.ndarray:
        halves = np.empty(values.shape, dtype=np.uint16)
        self.library.edgecxr_half_bits(pointer(values), ctypes.c_int64(values.size), pointer(halves))
        return halves

    def covers(self, source: int, target: int) -> np.ndarray:
        covers = np.empty(target, dtype=COVER)
        self.library.edgecxr_cover(ctypes.c_int64(source), ctypes.c_int64(target), pointer(covers))
        return covers


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def aligned(size: int, fill: int = 0xA5) -> np.ndarray:
    """(size,) uint8 that starts at a multiple of 16 bytes."""
    memory = np.full(size + 16, fill, dtype=np.uint8)
    start = -memory.ctypes.data % 16
    return memory[start : start + size]


def scattered(plan: DevicePlan, seed: int) -> tuple[DevicePlan, np.ndarray]:
    """The plan with every film at an offset and a pitch of any alignment, and its pixels laid out so."""
    rng = np.random.default_rng(seed)
    frames, end = plan.frames.copy(), 0
    for frame in frames:
        frame["offset"] = end + int(rng.integers(0, 40))
        frame["pitch"] += int(rng.integers(0, 40))
        end = int(frame["offset"] + (frame["height"] - 1) * frame["pitch"] + frame["width"] * frame["bytes"])
    plan = dataclasses.replace(plan, frames=frames, bytes=-(-end // 16) * 16)
    pixels = aligned(plan.bytes)
    for frame, radiograph in zip(frames, plan.radiographs, strict=True):
        for y, row in enumerate(radiograph.pixels):
            start = int(frame["offset"] + y * frame["pitch"])
            pixels[start : start + row.nbytes] = row.view(np.uint8)
    return plan, pixels

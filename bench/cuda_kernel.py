"""Preprocessing on a GPU: the fused CUDA kernel beside a copy, torch, torchvision, cupy and CV-CUDA, in one run.

Scenario: a batch of 3072 x 3072 16-bit frames in the GPU's memory, more of them than its cache holds, to one
(N, 1, 224, 224) tensor in the GPU's memory, by a linear window and by tables; and one frame by itself.
The number: bytes of pixels read a second over the bandwidth (bytes read and written) of a device-to-device copy of the
same frames, and how many times as long the fastest of the others takes for the same tensor.

    python bench/cuda_kernel.py [--films 32] [--side 3072] [--rounds 50] [--json]

Needs a GPU, torch and cupy (torchvision and CV-CUDA where they are there); the kernel comes from the fatbin, else from
NVRTC. In a checkout that is not installed: PYTHONPATH=. python bench/cuda_kernel.py
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import cupy
import harness
import numpy as np
import torch
from torch.nn import functional

from edgecxr.errors import EdgeCxrError
from edgecxr.kernels import device, nvrtc, reference
from edgecxr.kernels.device import DevicePlan
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

LOW, HIGH = 300.0, 3700.0
WINDOW = Window((LOW + HIGH) / 2, HIGH - LOW, "LINEAR_EXACT")
CURVE = Lut(0, (1023 * np.linspace(0, 1, 4096) ** 0.7).astype(np.uint16), 10)
PATHS: dict[str, dict[str, Any]] = {
    "window": {"bits_stored": 12, "window": WINDOW},
    "window, padding": {"bits_stored": 12, "window": WINDOW, "padding": (0, 20)},
    "VOI LUT, 12 bits": {"bits_stored": 12, "voi_lut": CURVE},
    "SIGMOID, 16 bits": {"bits_stored": 16, "window": Window(2000, 3000, "SIGMOID")},
}
COPY = "device-to-device copy"
OURS = "edgecxr, window, float32"
PEERS = ("torch interpolate(antialias)", "torch interpolate(area)", "torchvision v2 resize", "cupy matrices", "CV-CUDA")
WHITE = 65535  # CV-CUDA clips to a window by saturating uint16

Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=32, help="frames of the batch")
    parser.add_argument("--side", type=int, default=3072, help="height and width of a frame in pixels")
    parser.add_argument("--size", type=int, default=224, help="side of the model input")
    parser.add_argument("--rounds", type=int, default=50, help="timed calls of each contestant")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use; this benchmark needs one")
    bench = Bench(arguments.films, arguments.side, arguments.size)
    times = timed(bench.contestants(), arguments.rounds)
    measured = bench.measured(times)
    asked = vars(arguments) | {"paths": list(PATHS)}
    path = harness.write_result("cuda_kernel", asked, measured)
    print(path.read_text() if arguments.json else table(measured))


class Bench:
    """Frames, outputs and the ways from one to the other, all in the GPU's memory."""

    def __init__(self, films: int, side: int, size: int) -> None:
        self.size, self.frame = size, detector(side)
        rows = [np.roll(self.frame, 97 * index, axis=0) for index in range(films)]
        self.pixels = torch.from_numpy(np.stack(rows).view(np.int16)).cuda()  # 12 bits: int16 and uint16 agree
        self.spare = torch.empty_like(self.pixels)
        self.radiographs = rows
        self.function = {name: module().get_function(name) for name in device.ENTRIES.values()}
        self.results: dict[str, Any] = {}
        matrix = reference.resampling_matrix(side, size).astype(np.float32)
        self.matrix = cupy.asarray(matrix)
        self.turn = 0

    @property
    def gigabytes(self) -> float:
        return float(self.pixels.numel() * self.pixels.element_size() / 1e9)

    def contestants(self) -> dict[str, Run]:
        found: dict[str, Run] = {COPY: lambda: self.spare.copy_(self.pixels)}
        for path, fields in PATHS.items():
            for dtype in ("float32", "float16") if path == "window" else ("float32",):
                found[f"edgecxr, {path}, {dtype}"] = self.kernel(fields, dtype)
        found |= {
            f"edgecxr, window, shifted by {shift} bytes": self.kernel(PATHS["window"], "float32", shift)
            for shift in (2, 8)
        }
        found["edgecxr, window, one film"] = self.one_film()
        found["torch interpolate(antialias)"] = partial(self.torch_resized, mode="bilinear", antialias=True)
        found["torch interpolate(area)"] = partial(self.torch_resized, mode="area")
        found["cupy matrices"] = self.cupy_resized
        try:
            from torchvision.transforms.v2 import functional as vision
        except ImportError:
            print("torchvision is not here: left out", file=sys.stderr)
        else:
            found["torchvision v2 resize"] = lambda: vision.resize(
                self.windowed(), [self.size, self.size], antialias=True
            )
        try:
            import cvcuda
        except ImportError:
            print("cvcuda (pip install cvcuda-cu13) is not here: left out", file=sys.stderr)
        else:
            found["CV-CUDA"] = self.cvcuda_chain(cvcuda)
        return found

    def kernel(self, fields: dict[str, Any], dtype: str, shift: int = 0, films: int | None = None) -> Run:
        """One launch over `films` frames (all), that start `shift` bytes further on in memory."""
        radiographs = [Radiograph(pixels, **fields) for pixels in self.radiographs[:films]]
        plan = DevicePlan.of(radiographs, PreprocessSpec(size=self.size, dtype=dtype))
        frames = plan.frames.copy()
        frames["offset"] = np.arange(len(radiographs)) * self.frame.nbytes + shift
        size = len(radiographs) * self.frame.nbytes
        pixels = self.pixels
        if shift:
            frames["height"] -= 1  # the last row would end behind the frames
            frames["scale"] = self.size**2 / (self.frame.shape[1] * (self.frame.shape[0] - 1))
        on_gpu = cupy.asarray(frames.view(np.uint8)), cupy.asarray(plan.tables)
        output = torch.full(plan.shape, torch.nan, dtype=getattr(torch, dtype), device="cuda")

        def launch(at: int = 0) -> Any:
            numbers = np.int32(plan.size), np.float32(plan.range_low), np.float32(plan.range_width)
            pointers = on_gpu[0].data.ptr, pixels.data_ptr() + at, np.uint64(size), on_gpu[1].data.ptr
            values = (*map(np.uint64, pointers[:2]), pointers[2], np.uint64(pointers[3]), *numbers)
            with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
                self.function[plan.entry](
                    plan.grid,
                    (plan.threads, 1, 1),
                    (*values, np.uint64(output.data_ptr())),
                    shared_mem=plan.shared_bytes,
                )
            return output

        return launch

    def one_film(self) -> Run:
        """One frame after another, so that none is in the cache."""
        launch = self.kernel(PATHS["window"], "float32", films=1)

        def run() -> Any:
            self.turn = (self.turn + 1) % len(self.radiographs)
            return launch(self.turn * self.frame.nbytes)

        return run

    def windowed(self) -> torch.Tensor:
        return self.pixels.to(torch.float32).sub_(LOW).div_(HIGH - LOW).clamp_(0, 1).unsqueeze(1)

    def torch_resized(self, **options: Any) -> torch.Tensor:
        return functional.interpolate(self.windowed(), size=(self.size, self.size), **options)

    def cupy_resized(self) -> Any:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            values = cupy.clip((cupy.from_dlpack(self.pixels).astype(cupy.float32) - LOW) / (HIGH - LOW), 0, 1)
            return cupy.matmul(cupy.matmul(self.matrix, values), self.matrix.T)

    def cvcuda_chain(self, cvcuda: Any) -> Run:
        """Window into uint16, which saturates; antialiased to float32; to [0, 1]."""
        source = cvcuda.as_tensor(self.pixels.view(torch.uint16).unsqueeze(-1), "NHWC")
        scale, sides = WHITE / (HIGH - LOW), (self.size, self.size)
        resized = cvcuda.Tensor((len(self.pixels), *sides, 1), cvcuda.Type.F32, "NHWC")

        def run() -> Any:
            with cvcuda.as_stream(torch.cuda.current_stream()):
                windowed = cvcuda.convertto(source, cvcuda.Type.U16, scale, -LOW * scale)
                cvcuda.hq_resize_into(resized, windowed, antialias=True, interpolation=cvcuda.Interp.LINEAR)
                scaled = cvcuda.convertto(resized, cvcuda.Type.F32, 1 / WHITE)
            return torch.as_tensor(scaled.cuda(), device="cuda")

        return run

    def measured(self, times: dict[str, list[float]]) -> dict[str, Any]:
        """Milliseconds, bandwidth and its share of the copy's, and the distance from the oracle, of each contestant."""
        expected = reference.preprocess_frame(
            Radiograph(self.frame, **PATHS["window"]), PreprocessSpec(size=self.size)
        )[0]
        runs, copied = self.contestants(), 2 * self.gigabytes / (statistics.median(times[COPY]) / 1e3)
        rows: dict[str, Any] = {}
        for name, samples in times.items():
            gigabytes = self.gigabytes / len(self.radiographs) if "one film" in name else self.gigabytes
            speed = (2 if name == COPY else 1) * gigabytes / (statistics.median(samples) / 1e3)
            rows[name] = {
                "ms": harness.summary(samples),
                "gigabytes_a_second": speed,
                "share_of_copy": speed / copied,
                "times_as_long_as_ours": harness.ratio(samples, times[OURS]),
            }
            if name in (OURS, "edgecxr, window, float16", *PEERS):
                rows[name]["largest_difference_from_oracle"] = distance(runs[name](), expected)
        best = min((name for name in PEERS if name in times), key=lambda name: statistics.median(times[name]))
        return {
            "contestants": rows,
            "share_of_copy": rows[OURS]["share_of_copy"],
            "fastest_peer": best,
            "times_as_fast_as_the_fastest_peer": rows[best]["times_as_long_as_ours"],
            "gpu": gpu(),
        }


def detector(side: int) -> np.ndarray:
    """Smooth 12-bit values with noise, (side, side) uint16."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 25, (side, side)).astype(np.float32)
    values = 2000 + 1700 * np.sin(y / 300 + 1) * np.cos(x / 250) + noise
    result: np.ndarray = np.clip(values, 0, 4095).astype(np.uint16)
    return result


def module() -> Any:
    """The kernel's module, from the fatbin where there is one, else compiled here."""
    loaded = cupy.cuda.function.Module()
    try:
        loaded.load(device.fatbin())
    except (EdgeCxrError, cupy.cuda.driver.CUDADriverError) as error:
        print(f"{error}; NVRTC compiles the kernel", file=sys.stderr)
        loaded.load(nvrtc.compile_cubin(f"sm_{cupy.cuda.Device().compute_capability}"))
    return loaded


def timed(contestants: dict[str, Run], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Milliseconds on the GPU of each call, by events; one call each per round in an order that rotates."""
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            kept = contestants[name]()
            stop.record()
            torch.cuda.synchronize()
            del kept
            if number >= 0:
                times[name].append(float(start.elapsed_time(stop)))
    return times


def distance(result: Any, expected: np.ndarray) -> float:
    """Largest difference of the first film from the oracle."""
    array = result if isinstance(result, torch.Tensor) else torch.as_tensor(result, device="cuda")
    first = array.reshape(-1, *expected.shape)[0].double().cpu().numpy()
    return float(np.abs(first - expected).max())


def gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_of_torch": torch.version.cuda,
        "cupy": cupy.__version__,
        "torch": torch.__version__,
        "processors": os.cpu_count(),
    }


def table(measured: dict[str, Any]) -> str:
    lines = [f"{'':44} {'p50 ms':>9} {'p99 ms':>9} {'GB/s':>8} {'of copy':>8} {'x ours':>7} {'|diff|':>9}"]
    for name, row in measured["contestants"].items():
        difference = row.get("largest_difference_from_oracle")
        lines.append(
            f"{name:44} {row['ms']['p50']:9.3f} {row['ms']['p99']:9.3f} {row['gigabytes_a_second']:8.0f} "
            f"{row['share_of_copy']:8.1%} {row['times_as_long_as_ours']:7.2f} "
            f"{'' if difference is None else f'{difference:9.1e}'}"
        )
    return "\n".join(lines) + "\n" + json.dumps(measured["gpu"])


if __name__ == "__main__":
    main()

"""Preprocessing one radiograph: this kernel beside what people use, in one run.

Scenario: one 3072 x 3072 16-bit frame in memory to one 224 x 224 float32 tensor through a linear window.
The number: time over the time of copying the frame in memory (p50 in ms beside it).

    python bench/kernels.py [--side 3072] [--rounds 30] [--json]
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import cv2
import harness
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.transforms.v2 import functional

from edgecxr.kernels import preprocess, reference
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

WINDOW = Window(center=30000.5, width=40001)  # 0 up to 10000, 1 from 50000
LOW, HIGH = 10000.0, 50000.0
COPY, CPP, OPENCV = "copy of the frame", "cpp, 1 thread", "NumPy + OpenCV INTER_AREA"
SAME = 1e-3  # results no further apart than this count as the same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=3072, help="height and width of the frame in pixels")
    parser.add_argument("--size", type=int, default=224, help="side of the model input")
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each contestant")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    arguments = parser.parse_args()
    frame, spec = exposure(arguments.side), PreprocessSpec(size=arguments.size)
    measured = {
        "window": compared(peers(frame, spec), film_tensor(frame, spec, window=WINDOW), arguments.rounds),
        "paths": compared(paths(frame, spec), None, arguments.rounds),
    }
    path = harness.write_result("kernels", vars(arguments), measured)
    if arguments.json:
        print(path.read_text())
    else:
        show(measured, arguments.side, arguments.size)
        Console().print(f"stored in {path}", style="dim")


def exposure(side: int) -> NDArray[np.uint16]:
    """A smooth 16-bit picture with the noise of a detector, (side, side)."""
    y, x = np.mgrid[:side, :side] / side
    smooth = 30000 + 24000 * np.sin(7 * y + 1) * np.cos(9 * x)
    noise = np.random.default_rng(0).normal(0, 300, (side, side))
    return np.clip(smooth + noise, 0, 65535).astype(np.uint16)


def film_tensor(frame: NDArray[np.uint16], spec: PreprocessSpec, **fields: Any) -> NDArray[Any]:
    """The oracle's result, (S, S)."""
    tensor: NDArray[Any] = reference.preprocess_frame(Radiograph(frame, 16, **fields), spec)[0]
    return tensor


def peers(frame: NDArray[np.uint16], spec: PreprocessSpec) -> dict[str, Callable[[], Any]]:
    """The same window and size by each library, with the threads that it takes by default."""
    buffer = np.empty_like(frame)
    film, size = Radiograph(frame, 16, window=WINDOW), (spec.size, spec.size)

    def windowed() -> NDArray[np.float32]:
        values = frame.astype(np.float32)
        values -= LOW
        values *= 1 / (HIGH - LOW)
        return np.clip(values, 0, 1, out=values)

    def torchvision() -> NDArray[np.float32]:
        values = torch.from_numpy(frame).float().sub_(LOW).mul_(1 / (HIGH - LOW)).clamp_(0, 1)[None]
        tensor: NDArray[np.float32] = functional.resize(values, list(size), antialias=True)[0].numpy()
        return tensor

    return {
        COPY: lambda: np.copyto(buffer, frame),
        CPP: lambda: preprocess([film], spec, kernel="cpp", threads=1)[0, 0],
        f"cpp, {cores()} threads": lambda: preprocess([film], spec, kernel="cpp")[0, 0],
        OPENCV: lambda: cv2.resize(windowed(), size, interpolation=cv2.INTER_AREA),
        "torchvision v2, antialias": torchvision,
        "NumPy + Pillow F, BOX": lambda: np.asarray(Image.fromarray(windowed()).resize(size, Image.Resampling.BOX)),
        "numpy (the reference)": lambda: preprocess([film], spec, kernel="numpy")[0, 0],
    }


def paths(frame: NDArray[np.uint16], spec: PreprocessSpec) -> dict[str, Callable[[], Any]]:
    """The kernel's own ways through a film, one thread and all."""
    buffer = np.empty_like(frame)
    lut = Lut(0, np.linspace(0, 65535, 65536).astype(np.uint16), 16)
    films = {
        "window and padding": Radiograph(frame, 16, window=WINDOW, padding=(0, 100)),
        "SIGMOID (table)": Radiograph(frame, 16, window=Window(30000, 40000, "SIGMOID")),
        "VOI LUT (table)": Radiograph(frame, 16, voi_lut=lut),
        "percentiles (histogram)": Radiograph(frame, 16),
    }
    runs: dict[str, Callable[[], Any]] = {COPY: lambda: np.copyto(buffer, frame)}
    for name, film in films.items():
        for threads in sorted({1, cores()}):
            runs[f"{name}, {threads}"] = lambda film=film, threads=threads: preprocess(  # type: ignore[misc]
                [film], spec, kernel="cpp", threads=threads
            )
    return runs


def compared(
    contestants: dict[str, Callable[[], Any]], expected: NDArray[Any] | None, rounds: int
) -> dict[str, dict[str, Any]]:
    """Times, ratios, memory and the difference to the oracle of each contestant."""
    differences = {name: difference(run(), expected) for name, run in contestants.items()}
    memory = {name: harness.peak_megabytes(run) for name, run in contestants.items()}
    times = harness.sampled(contestants, rounds=rounds)
    return {
        name: {
            "ms": harness.summary(samples.wall_ms),
            "cpu_ms": harness.summary(samples.cpu_ms),
            "over_copy": harness.ratio(samples.wall_ms, times[COPY].wall_ms),
            "cpu_over_copy": harness.ratio(samples.cpu_ms, times[COPY].cpu_ms),
            "over_cpp": harness.ratio(samples.wall_ms, times[CPP].wall_ms) if CPP in times else None,
            "peak_mb": memory[name],
            "max_difference": differences[name],
        }
        for name, samples in times.items()
    }


def difference(result: Any, expected: NDArray[Any] | None) -> float | None:
    if expected is None or result is None:
        return None
    return float(np.abs(result.astype(np.float64) - expected).max())


def cores() -> int:
    return len(os.sched_getaffinity(0))


def show(measured: dict[str, dict[str, dict[str, Any]]], side: int, size: int) -> None:
    console = Console()
    console.width = max(console.width, 120)
    for title, rows in measured.items():
        table = Table(title=f"{side} x {side} 16-bit to {size} x {size}: {title}")
        for column in (
            "",
            "p50 ms",
            "p90",
            "best",
            "x copy",
            "x cpp 1",
            "CPU p50",
            "x copy",
            "peak MB",
            "|diff|",
            "same",
        ):
            table.add_column(column, justify="right" if column else "left")
        for name, row in rows.items():
            gap = row["max_difference"]
            times = [row["ms"]["p50"], row["ms"]["p90"], row["ms"]["best"], row["over_copy"], row["over_cpp"]]
            cells = [*times, row["cpu_ms"]["p50"], row["cpu_over_copy"]]
            numbers = ["" if cell is None else f"{cell:.2f}" for cell in cells]
            memory = "" if row["peak_mb"] is None else f"{row['peak_mb']:.1f}"
            same = "" if gap is None else ("yes" if gap <= SAME else "no")
            table.add_row(name, *numbers, memory, "" if gap is None else f"{gap:.1e}", same)
        console.print(table)


if __name__ == "__main__":
    main()

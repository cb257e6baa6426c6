"""Preprocessing one radiograph: this kernel beside what people use, in one run.

Scenario: one 3072 x 3072 16-bit frame in memory to one 224 x 224 float32 tensor, along each way a film can take: a
linear window, a SIGMOID window, a VOI LUT, no window at all (percentiles). On one thread and on all cores.
The number: time over the time of copying the frame in memory, and how many times as long NumPy + OpenCV takes for the
same film on as many threads.

    python bench/kernels.py [--side 3072] [--rounds 30] [--json]
"""

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple

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
SIGMOID = Window(center=30000, width=40000, function="SIGMOID")
CURVE = Lut(0, (65535 * np.linspace(0, 1, 65536) ** 0.7).astype(np.uint16), 16)
FIELDS: dict[str, dict[str, Any]] = {
    "window": {"window": WINDOW},
    "SIGMOID": {"window": SIGMOID},
    "VOI LUT": {"voi_lut": CURVE},
    "no window": {},
}
COPY, CPP, OPENCV = "copy of the frame", "cpp", "NumPy + OpenCV"
SAME = 1e-3  # results no further apart than this count as the same
COLUMNS = (
    "",
    "",
    "threads",
    "p50 ms",
    "p90",
    "best",
    "x copy",
    "OpenCV x",
    "CPU p50",
    "x copy",
    "MB",
    "|diff|",
    "same",
)

Run = Callable[[], Any]


class Contestant(NamedTuple):
    """`run` gives (S, S); one of one path and as many threads is compared with OpenCV's."""

    path: str
    library: str
    threads: int
    run: Run

    @property
    def name(self) -> str:
        return f"{self.path}: {self.library}, {self.threads}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=3072, help="height and width of the frame in pixels")
    parser.add_argument("--size", type=int, default=224, help="side of the model input")
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each contestant")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    arguments = parser.parse_args()
    frame, spec = exposure(arguments.side), PreprocessSpec(size=arguments.size)
    expected = references(frame, spec)
    # apart, because the thread pools of the libraries keep cores busy for a while after each call
    measured = {
        "paths": compared(paths(frame, spec), expected, arguments.rounds),
        "libraries": compared(libraries(frame, spec), expected, arguments.rounds),
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


def references(frame: NDArray[np.uint16], spec: PreprocessSpec) -> dict[str, NDArray[Any]]:
    """The oracle's result of each path, (S, S)."""
    return {
        path: reference.preprocess_frame(Radiograph(frame, 16, **fields), spec)[0] for path, fields in FIELDS.items()
    }


def copy(frame: NDArray[np.uint16]) -> Contestant:
    buffer = np.empty_like(frame)
    return Contestant("", COPY, 1, lambda: np.copyto(buffer, frame))


def paths(frame: NDArray[np.uint16], spec: PreprocessSpec) -> list[Contestant]:
    """On every path this kernel and NumPy + OpenCV, on one thread and on all cores."""
    listed = [copy(frame)]
    for path, fields in FIELDS.items():
        film = Radiograph(frame, 16, **fields)
        for threads in sorted({1, cores()}):
            listed.append(Contestant(path, CPP, threads, cpp(film, spec, threads)))
            listed.append(Contestant(path, OPENCV, threads, opencv(path, frame, spec.size, threads)))
    return listed


def libraries(frame: NDArray[np.uint16], spec: PreprocessSpec) -> list[Contestant]:
    """The window by the other libraries, with the threads that they take by themselves."""
    film, size = Radiograph(frame, 16, window=WINDOW), (spec.size, spec.size)

    def torchvision() -> NDArray[np.float32]:
        values = torch.from_numpy(frame).float().sub_(LOW).mul_(1 / (HIGH - LOW)).clamp_(0, 1)[None]
        tensor: NDArray[np.float32] = functional.resize(values, list(size), antialias=True)[0].numpy()
        return tensor

    def pillow() -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(windowed(frame, LOW, HIGH)).resize(size, Image.Resampling.BOX))

    return [
        copy(frame),
        Contestant("window", CPP, 1, cpp(film, spec, 1)),
        Contestant("window", "torchvision v2, antialias", cores(), torchvision),
        Contestant("window", "NumPy + Pillow F, BOX", 1, pillow),
        Contestant("window", "numpy (the reference)", 1, lambda: preprocess([film], spec, kernel="numpy")[0, 0]),
    ]


def cpp(film: Radiograph, spec: PreprocessSpec, threads: int) -> Run:
    return lambda: preprocess([film], spec, kernel="cpp", threads=threads)[0, 0]


def opencv(path: str, frame: NDArray[np.uint16], size: int, threads: int) -> Run:
    """What people write: NumPy for the values (a table made beforehand), INTER_AREA for the size."""
    stored = np.arange(65536, dtype=np.float64)
    table = {
        "SIGMOID": 1 / (1 + np.exp(-4 * (stored - SIGMOID.center) / SIGMOID.width)),
        "VOI LUT": CURVE.values / 65535,
    }.get(path, stored)
    table = table.astype(np.float32)

    def values() -> NDArray[np.float32]:
        if path == "window":
            return windowed(frame, LOW, HIGH)
        if path == "no window":
            return windowed(frame, *np.percentile(frame, (0.5, 99.5), method="inverted_cdf"))
        return np.take(table, frame)

    def run() -> Any:
        cv2.setNumThreads(threads)
        return cv2.resize(values(), (size, size), interpolation=cv2.INTER_AREA)

    return run


def windowed(frame: NDArray[np.uint16], low: float, high: float) -> NDArray[np.float32]:
    values = frame.astype(np.float32)
    values -= low
    values *= 1 / (high - low)
    return np.clip(values, 0, 1, out=values)


def compared(listed: list[Contestant], expected: dict[str, NDArray[Any]], rounds: int) -> dict[str, dict[str, Any]]:
    """Times, ratios, memory and the difference to the oracle of each contestant."""
    runs = {one.name: one.run for one in listed}
    differences = {one.name: difference(one.run(), expected.get(one.path)) for one in listed}
    memory = {name: harness.peak_megabytes(run) for name, run in runs.items()}
    times = harness.sampled(runs, rounds=rounds)
    base, measured = times[listed[0].name], {}
    for one in listed:
        samples, rival = times[one.name], times.get(one._replace(library=OPENCV).name)
        measured[one.name] = {
            "path": one.path,
            "library": one.library,
            "threads": one.threads,
            "ms": harness.summary(samples.wall_ms),
            "cpu_ms": harness.summary(samples.cpu_ms),
            "over_copy": harness.ratio(samples.wall_ms, base.wall_ms),
            "cpu_over_copy": harness.ratio(samples.cpu_ms, base.cpu_ms),
            "opencv_over": harness.ratio(rival.wall_ms, samples.wall_ms) if rival else None,
            "peak_mb": memory[one.name],
            "max_difference": differences[one.name],
        }
    return measured


def difference(result: Any, expected: NDArray[Any] | None) -> float | None:
    if expected is None or result is None:
        return None
    return float(np.abs(result.astype(np.float64) - expected).max())


def cores() -> int:
    return len(os.sched_getaffinity(0))


def show(measured: dict[str, dict[str, dict[str, Any]]], side: int, size: int) -> None:
    console = Console()
    console.width = max(console.width, 140)
    for title, rows in measured.items():
        table = Table(title=f"{side} x {side} 16-bit to {size} x {size}: {title}")
        for index, column in enumerate(COLUMNS):
            table.add_column(column, justify="right" if index > 1 else "left", no_wrap=True)
        for row in rows.values():
            table.add_row(*cells(row))
        console.print(table)


def cells(row: dict[str, Any]) -> list[str]:
    times = [row["ms"]["p50"], row["ms"]["p90"], row["ms"]["best"], row["over_copy"], row["opencv_over"]]
    numbers = [*times, row["cpu_ms"]["p50"], row["cpu_over_copy"], row["peak_mb"]]
    gap = row["max_difference"]
    same = ["", ""] if gap is None else [f"{gap:.1e}", "yes" if gap <= SAME else "no"]
    texts = ["" if number is None else f"{number:.2f}" for number in numbers]
    return [row["path"], row["library"], str(row["threads"]), *texts, *same]


if __name__ == "__main__":
    main()

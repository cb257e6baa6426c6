"""What every benchmark shares: interleaved timing, percentiles, ratios, memory, the machine, and the result file.

Contestants run side by side in one process, one call each per round in an order that rotates, so that a machine that
slows down slows all of them. A ratio is the median over rounds of one contestant's time over another's. CPU time is
kept beside wall time: on a machine that others share, it is the steadier of the two.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from edgecxr.bundle import Bundle
from edgecxr.machine import machine as described
from edgecxr.statistics.times import summary

__all__ = [
    "RESULTS",
    "Samples",
    "interleaved",
    "machine",
    "peak_megabytes",
    "ratio",
    "sampled",
    "summary",
    "write_result",
]

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "torch", "torchvision", "onnxruntime", "openvino", "edgecxr")


class Samples(NamedTuple):
    """Milliseconds of each call, in the order of the rounds; CPU time counts every thread of the process."""

    wall_ms: list[float]
    cpu_ms: list[float]


def interleaved(
    contestants: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 3
) -> dict[str, list[float]]:
    """Wall milliseconds of each call, in the order of the rounds."""
    return {name: times.wall_ms for name, times in sampled(contestants, rounds=rounds, warm_up=warm_up).items()}


def sampled(contestants: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 3) -> dict[str, Samples]:
    """Time `rounds` calls of each contestant, after `warm_up` calls that are not counted."""
    names = list(contestants)
    times = {name: Samples([], []) for name in names}
    for round_number in range(-warm_up, rounds):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
            contestants[name]()
            cpu_stop, stop = time.process_time_ns(), time.perf_counter_ns()
            if round_number >= 0:
                times[name].wall_ms.append((stop - start) / 1e6)
                times[name].cpu_ms.append((cpu_stop - cpu_start) / 1e6)
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Median over rounds of `times` over `base`: 2.0 means twice as slow as the base."""
    if len(times) != len(base):
        raise ValueError(f"{len(times)} and {len(base)} rounds; a ratio wants the same rounds of both")
    return statistics.median(one / other for one, other in zip(times, base, strict=True))


def peak_megabytes(call: Callable[[], Any]) -> float | None:
    """Growth of the resident memory's peak during one call, in MB (10^6); None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is resident now
        before = _status_megabytes("VmRSS")
        call()
        return max(0.0, _status_megabytes("VmHWM") - before)
    except OSError:
        return None


def _status_megabytes(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status has no {key}")


def machine() -> dict[str, Any]:
    """The machine, and versions of what is compared."""
    return {**described(), "libraries": {name: found for name in LIBRARIES if (found := _version(name))}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write_result(
    name: str, asked: Mapping[str, Any], measured: Mapping[str, Any], *, bundle: str | Path | None = None
) -> Path:
    """Store what was asked, what was measured and on which machine as bench/results/NAME.json.

    With the digest of the `bundle` that was measured, so that figures of an older one are known by it.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"benchmark": name, "asked": dict(asked), "measured": dict(measured), "machine": machine()}
    if bundle is not None:
        content["bundle"] = Bundle.open(bundle).digest
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return path

"""How long a film takes on this machine: file to decision, on several engines and precisions side by side.

The engines take turns, in an order that rotates, so that a machine that slows down slows all of them. Each turn begins
with a film that is not counted: the spinning threads of the engine before have gone quiet then, and the caches are its
own.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgecxr.errors import EngineError, Refusal
from edgecxr.runtimes.cold_start import cold_start
from edgecxr.runtimes.screener import Screener
from edgecxr.runtimes.screening import STAGES
from edgecxr.statistics.times import summary

__all__ = ["cold_starts", "latencies", "throughputs"]

SETTLE_S = 0.02  # longer than ONNX Runtime and OpenMP spin after a call
CALLS = 5  # counted films of a turn
FILMS = 60  # of a folder
WHOLE = "whole"

Times = dict[str, list[float]]
Step = Callable[[str], None]


def latencies(
    screeners: Mapping[str, Screener], film: Path, rounds: int, step: Step = lambda _: None
) -> dict[str, dict[str, Any]]:
    """One film after the other: by name, for `whole` and each stage, `summary` of its milliseconds.

    Raises Refusal where an engine refuses the film: what it does not decide on takes no time worth knowing.
    """
    names = list(screeners)
    times: dict[str, Times] = {name: {key: [] for key in (WHOLE, *STAGES)} for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(SETTLE_S)
            _screened(screeners[name], film)
            for _ in range(CALLS):
                for key, value in _screened(screeners[name], film).items():
                    times[name][key].append(value)
        step(f"round {number + 1}")
    return {name: {key: summary(values) for key, values in own.items()} for name, own in times.items()}


def _screened(screener: Screener, film: Path) -> dict[str, float]:
    start = time.perf_counter_ns()
    screening = screener.screen(film)
    whole = (time.perf_counter_ns() - start) / 1e6
    if screening.reason is not None:
        raise Refusal(screening.reason, screening.detail)
    return {WHOLE: whole} | {key: value for key, value in screening.milliseconds.items() if value is not None}


def throughputs(screeners: Mapping[str, Screener], film: Path, rounds: int = 3) -> dict[str, float]:
    """A folder of `FILMS` copies of the film: films decided a second by name, the median of the rounds."""
    found: dict[str, list[float]] = {name: [] for name in screeners}
    for _ in range(rounds):
        for name, screener in screeners.items():
            start = time.perf_counter_ns()
            number = sum(screening.status == "ok" for screening in screener.screen_files([film] * FILMS))
            found[name].append(number / (time.perf_counter_ns() - start) * 1e9)
    return {name: statistics.median(values) for name, values in found.items()}


def cold_starts(bundle: Path, engine: str, precision: str, starts: int, threads: int = 0) -> dict[str, Any]:
    """Medians over fresh processes: `imported_s`, `opened_s`, `decided_s`, `peak_mb`; or {"failed": why}."""
    try:
        found = [cold_start(bundle, engine, precision, threads) for _ in range(starts)]
    except EngineError as error:
        return {"failed": str(error)}
    peaks = [item.peak_mb for item in found if item.peak_mb is not None]
    return {
        "imported_s": statistics.median(item.imported_s for item in found),
        "opened_s": statistics.median(item.opened_s for item in found),
        "decided_s": statistics.median(item.decided_s for item in found),
        "peak_mb": statistics.median(peaks) if peaks else None,
    }

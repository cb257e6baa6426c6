"""A fresh process, from its start to its first decision.

`python -m edgecxr.runtimes.cold_start BUNDLE ENGINE PRECISION THREADS` decides on a golden film and prints one JSON
object: when it had imported, opened and decided (seconds since the epoch), and its peak memory. `cold_start` starts it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from edgecxr.errors import EngineError

__all__ = ["ColdStart", "cold_start"]


class ColdStart(NamedTuple):
    """Seconds from the start of the process, and the most that it held in memory (None where the system is silent)."""

    imported_s: float
    opened_s: float  # the bundle read, the engine made and proved on the golden set
    decided_s: float
    peak_mb: float | None


def cold_start(bundle: Path, engine: str, precision: str, threads: int = 0) -> ColdStart:
    """Start one. Raises EngineError in its own words when it ends without a decision."""
    begin = time.time()
    command = [sys.executable, "-m", "edgecxr.runtimes.cold_start", str(bundle), engine, precision, str(threads)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # no module of the folder that the user is in
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise EngineError(f"a fresh process with {engine} {precision} ended with {done.returncode}: {last[0]}")
    told = json.loads(done.stdout)
    imported, opened, decided = (told[name] - begin for name in ("imported", "opened", "decided"))
    return ColdStart(imported, opened, decided, told["peak_mb"])


def _main(bundle: str, engine: str, precision: str, threads: str) -> None:
    from edgecxr.runtimes.screener import Screener

    imported = time.time()
    with Screener(bundle, engine, precision, threads=int(threads)) as screener:
        opened = time.time()
        screening = screener.screen(screener.bundle.golden().frames[0])
        decided = time.time()
    if screening.reason is not None:
        raise SystemExit(f"the golden film is refused ({screening.reason.value}), so there is no first decision")
    print(json.dumps({"imported": imported, "opened": opened, "decided": decided, "peak_mb": _peak_megabytes()}))


def _peak_megabytes() -> float | None:
    """Of this process, in MB (10^6)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""How the node is: what proves it, what it lacks, and the work that comes round by the clock."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecxr.runtimes.node import clock, following
from edgecxr.runtimes.node.worker_state import WorkerState
from edgecxr.runtimes.node.workers import Workers

__all__ = ["Health", "HealthMonitor", "Rounds", "temperature_c"]

THERMAL = Path("/sys/class/thermal")
PLAUSIBLE_C = (-50.0, 150.0)
TICK_S = 0.5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Health:
    """One moment. `engine`, `precision`, `model` and `bundle` are "" before an engine has opened."""

    engine: str = ""
    precision: str = ""
    model: str = ""
    bundle: str = ""
    proved: float | None = None  # when every worker had last reproduced the golden set, unix s
    temperature_c: float | None = None  # of the warmest sensor
    problems: tuple[str, ...] = ()  # for a person to see to; no patient data
    workers: tuple[WorkerState, ...] = ()
    clock_synchronised: bool | None = None  # None: the system does not tell


class Rounds(threading.Thread):
    """Calls each task again and again, its period apart. A task that fails is logged, named in `problems`, and called
    again when its time has come."""

    def __init__(self, tasks: Sequence[tuple[str, float, Callable[[], object]]]) -> None:
        """`tasks`: name, period in seconds, what to call. The first call comes after the first period."""
        super().__init__(name="edgecxr-rounds", daemon=True)
        self.problems: dict[str, str] = {}
        self._tasks = [(name, period, call) for name, period, call in tasks]
        self._due = {name: time.monotonic() + period for name, period, _ in tasks}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until stopped."""
        while not self._stopping.wait(TICK_S):
            for name, period, call in self._tasks:
                if time.monotonic() >= self._due[name] and not self._stopping.is_set():
                    self._call(name, call)
                    self._due[name] = time.monotonic() + period

    def _call(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # the boundary: one task never ends the others
            logger.exception("a task failed", extra={"task": name})
            self.problems[name] = f"{name} failed: {type(error).__name__}"
        else:
            self.problems.pop(name, None)

    def stop(self) -> None:
        """End after the call under way."""
        self._stopping.set()
        if self.ident is not None:
            self.join(10.0)


class HealthMonitor:
    """Proves the live engines, and tells how they are. `asides` are asked for the problems of other parts."""

    def __init__(self, workers: Workers, asides: Callable[[], list[str]]) -> None:
        self._workers = workers
        self._asides = asides

    def prove(self) -> None:
        """Hold every live engine against the golden set; one that fails is replaced and decides nothing until then."""
        self._workers.prove()

    def state(self) -> Health:
        """Now."""
        workers = self._workers.states()
        origin = next((worker.origin for worker in workers if worker.origin is not None), None)
        times = [worker.proved for worker in workers]
        proved = min((when for when in times if when is not None), default=None) if all(times) else None
        left = following.problems(worker.origin for worker in workers)
        if off := self._workers.switched_off:
            left.append(f"engines of the CPU alone until the node starts anew: {off}")
        problems = (*self.obstacles(), *left, *self._asides())
        found = Health(
            temperature_c=temperature_c(),
            problems=problems,
            workers=tuple(workers),
            clock_synchronised=clock.synchronised(),
        )
        if origin is None:
            return found
        return replace(
            found,
            engine=origin.engine,
            precision=origin.precision,
            model=f"{origin.spec.name} {origin.spec.version}",
            bundle=origin.bundle,
            proved=proved,
        )

    def obstacles(self) -> list[str]:
        """What keeps films from being screened; [] while at least one worker has a proven engine."""
        workers = self._workers.states()
        if any(_screens(worker) for worker in workers):
            return [f"{worker.name}: {worker.problem}" for worker in workers if worker.activity in ("waiting", "dead")]
        return [f"{worker.name}: {worker.problem or _doing(worker)}" for worker in workers]

    def able(self) -> bool:
        """Whether a proven engine screens."""
        return any(_screens(worker) for worker in self._workers.states())


def _screens(worker: WorkerState) -> bool:
    return worker.proved is not None and worker.activity in ("idle", "screening")


def _doing(worker: WorkerState) -> str:
    return "the engine is being opened and proven" if worker.activity == "opening" else worker.activity


def temperature_c(folder: Path = THERMAL) -> float | None:
    """Of the warmest sensor that the kernel tells (thermal_zone*/temp, in thousandths); None where there is none."""
    found = []
    for zone in folder.glob("thermal_zone*/temp"):
        try:
            degrees = int(zone.read_text()) / 1000
        except (OSError, ValueError):
            continue
        if PLAUSIBLE_C[0] < degrees < PLAUSIBLE_C[1]:
            found.append(degrees)
    return max(found, default=None)

"""What the workers of a node have in common, and how each shows itself to the others."""

import threading
from dataclasses import dataclass, field
from typing import Literal

from edgecxr.runtimes.node.config import DestinationSection, ScreeningSection
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import Origin, Setup
from edgecxr.runtimes.node.spool import Spool

__all__ = ["Activity", "Shared", "WorkerState"]

Activity = Literal["opening", "idle", "screening", "waiting", "stopped", "dead"]


@dataclass(frozen=True)
class WorkerState:
    """One worker as health and page show it."""

    name: str
    activity: Activity = "opening"
    origin: Origin | None = None
    pid: int = 0
    proved: float | None = None  # when its live engine last reproduced the golden set, unix s
    restarts: int = 0
    stuck: int = 0  # of the restarts
    problem: str = ""  # why it does not screen; "" while it can


@dataclass
class Shared:
    """What all workers of a node have in common."""

    spool: Spool
    settings: ScreeningSection
    setup: Setup
    metrics: Metrics
    destinations: tuple[DestinationSection, ...] = ()
    stopping: threading.Event = field(default_factory=threading.Event)
    _failures: dict[int, int] = field(default_factory=dict)  # image -> how often an engine failed on it
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def engine_failed_on(self, image: int) -> int:
        """Count one more failure of an engine on this image; how many there were."""
        with self._lock:
            self._failures[image] = self._failures.get(image, 0) + 1
            return self._failures[image]

    def forget(self, image: int) -> None:
        """The image is settled."""
        with self._lock:
            self._failures.pop(image, None)

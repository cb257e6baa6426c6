"""What the workers of a node have in common, and how each shows itself to the others."""

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

from edgecxr.errors import SpoolError, SpoolFull
from edgecxr.runtimes.node.config import DestinationSection, ScreeningSection
from edgecxr.runtimes.node.following import nobody
from edgecxr.runtimes.node.images import Image, State
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import Fault, Origin, Setup
from edgecxr.runtimes.node.spool import Spool

__all__ = ["SPOOL_FAULTS", "Activity", "ProofAsked", "Shared", "WorkerState"]

Activity = Literal["opening", "idle", "screening", "waiting", "stopped", "dead"]
SPOOL_FAULTS = (OSError, SpoolError, SpoolFull)  # a full or busy disk: may pass
logger = logging.getLogger(__name__)


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


class ProofAsked:
    """Whether a worker is asked to prove its engine; all who ask before it has answered share one answer."""

    def __init__(self) -> None:
        self._proof: Future[str] | None = None
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return self._proof is not None

    def ask(self) -> "Future[str]":
        """The answer to come; "" when the golden set was reproduced."""
        with self._lock:
            if self._proof is None:
                self._proof = Future()
            return self._proof

    def answer(self, said: str) -> None:
        """To all who have asked; whoever asks from now on gets an answer of their own."""
        with self._lock:
            proof, self._proof = self._proof, None
        if proof is not None:
            proof.set_result(said)


@dataclass
class Shared:
    """What all workers of a node have in common."""

    spool: Spool
    settings: ScreeningSection
    setup: Setup
    metrics: Metrics
    destinations: tuple[DestinationSection, ...] = ()
    switched_off: str = ""  # why no engine follows any more, until the next start
    stopping: threading.Event = field(default_factory=threading.Event)
    _failures: dict[int, int] = field(default_factory=dict)  # image -> how often an engine failed on it
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def follow_no_more(self, fault: Fault | None) -> None:
        """Where an engine that was to take over has ended a process: what opens from now on is followed by none."""
        if fault is not None and fault.follower:
            self.setup = replace(self.setup, successors=nobody)
            self.switched_off = fault.detail

    def engine_failed_on(self, image: int) -> int:
        """Count one more failure of an engine on this image; how many there were."""
        with self._lock:
            self._failures[image] = self._failures.get(image, 0) + 1
            return self._failures[image]

    def forget(self, image: int) -> None:
        """The image is settled."""
        with self._lock:
            self._failures.pop(image, None)

    def put_back(self, image: Image, fault: Fault) -> None:
        """Put an image without a result back: uncounted where the machine was at fault, and it was not twice."""
        told = {"image": image.id, "fault": fault.kind, "error": fault.detail}
        if fault.kind == "machine" and self.engine_failed_on(image.id) < 2:
            self.spool.release(image.id)
            logger.error("the engine failed; the image waits", extra=told)
            return
        state = self.spool.fail(image.id, fault.detail)
        if state is State.QUARANTINED:
            self.forget(image.id)
            self.metrics.quarantined.inc()
        logger.error("no result", extra={**told, "state": state.value})

    def taken_away(self, image: Image) -> bool:
        """Whether the image is no longer ours to settle: a person moved it by hand."""
        try:
            return self.spool.get(image.id).state is not State.SCREENING
        except SPOOL_FAULTS:
            return False

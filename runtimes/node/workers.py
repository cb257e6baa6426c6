"""The workers: each takes one image at a time from the spool, has it screened in a process of its own, and settles it.

    the film was decided on or refused      spool.finish, with what has to be sent
    its process crashed or stalled on it    spool.fail: an attempt is counted; a fresh process takes over
    engine or kernel at fault               spool.release: nothing is counted, nothing is decided; a fresh process, later
    the same again on a proven engine       spool.fail: it is the film after all

A process serves only after it reproduced the bundle's golden set, so an engine that cannot be trusted decides nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgecxr.errors import EngineError, SpoolError, SpoolFull
from edgecxr.runtimes.node.config import DestinationSection, ScreeningSection
from edgecxr.runtimes.node.images import Image, State
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.outcome import deliveries, outcome
from edgecxr.runtimes.node.screening_process import OPEN_TIMEOUT_S, Fault, Origin, Reply, ScreeningProcess, Setup
from edgecxr.runtimes.node.spool import Spool

__all__ = ["WorkerState", "Workers"]

Activity = Literal["opening", "idle", "screening", "waiting", "stopped", "dead"]
IDLE_S = 0.5  # after which an idle worker looks for requests to prove, replace or stop
LONGEST_PAUSE_S = 60.0
SPOOL_FAULTS = (OSError, SpoolError, SpoolFull)  # a full or busy disk: may pass
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerState:
    """One worker as health and page show it."""

    name: str
    activity: Activity = "opening"
    origin: Origin | None = None
    pid: int = 0
    restarts: int = 0
    stuck: int = 0  # of the restarts
    problem: str = ""  # why it does not screen; "" while it can


class Workers:
    """`settings.workers` threads, each with a screening process. One bundle for all; `swap` changes it while running."""

    def __init__(
        self,
        spool: Spool,
        settings: ScreeningSection,
        bundle: Path,
        metrics: Metrics,
        destinations: Sequence[DestinationSection] = (),
    ) -> None:
        self.spool = spool
        self.settings = settings
        self.metrics = metrics
        self.destinations = tuple(destinations)
        self.setup = Setup(bundle, settings.engine, settings.precision, settings.point, settings.threads)
        self.stopping = threading.Event()
        self._released: dict[int, int] = {}  # image -> how often an engine failed on it
        self._lock = threading.Lock()
        self._fresh: list[ScreeningProcess] = []  # being opened by `swap`
        self._workers = [_Worker(f"worker-{number}", self) for number in range(1, settings.workers + 1)]

    def start(self) -> None:
        """Returns at once; `states` tells when the workers have opened and proven their engines."""
        for worker in self._workers:
            worker.start()

    def stop(self, grace_s: float = 30.0) -> None:
        """Let each worker finish the image in its hands; after `grace_s` it is put back into the queue."""
        self.stopping.set()
        end = time.monotonic() + grace_s
        for child in self._fresh:
            child.interrupt()
        for worker in self._workers:
            worker.hurry()
        for worker in self._workers:
            worker.finish_by(end)

    def states(self) -> list[WorkerState]:
        """One for each worker."""
        return [worker.current() for worker in self._workers]

    def prove(self, timeout_s: float | None = None) -> list[str]:
        """Hold every live engine against the golden set, between images; what went wrong, [] when nothing did.

        An engine that fails is replaced by a fresh one, which has to prove itself before it decides anything.
        """
        limit = self.settings.timeout_s * 2 + OPEN_TIMEOUT_S if timeout_s is None else timeout_s
        asked = [(worker, worker.ask_proof()) for worker in self._workers]
        end = time.monotonic() + limit
        return [f"{worker.name}: {said}" for worker, proof in asked if (said := _said(proof, end))]

    def swap(self, bundle: Path) -> Origin:
        """Open and prove `bundle` beside the one in use, then let every worker go over to it between two images.

        Raises EngineError, and keeps the old one, when the new one cannot be opened or does not prove itself.
        """
        setup = replace(self.setup, bundle=bundle)
        fresh = [ScreeningProcess(setup) for _ in self._workers]
        self._fresh = fresh
        try:
            for child in fresh:
                child.open()
        except EngineError:
            for child in fresh:
                child.kill()
            raise
        finally:
            self._fresh = []
        self.setup = setup
        for worker, child in zip(self._workers, fresh, strict=True):
            worker.hand_over(child)
        return fresh[0].origin

    def engine_failed_on(self, image: int) -> int:
        """Count one more failure of an engine on this image; how many there were."""
        with self._lock:
            self._released[image] = self._released.get(image, 0) + 1
            return self._released[image]

    def forget(self, image: int) -> None:
        """The image is settled."""
        with self._lock:
            self._released.pop(image, None)


def _said(proof: "Future[str]", end: float) -> str:
    try:
        return proof.result(max(0.0, end - time.monotonic()))
    except FutureTimeout:
        return "did not prove itself in time"


class _Worker(threading.Thread):
    def __init__(self, name: str, pool: Workers) -> None:
        super().__init__(name=name, daemon=True)
        self._pool = pool
        self._state = WorkerState(name)
        self._child: ScreeningProcess | None = None
        self._opening: ScreeningProcess | None = None
        self._next: ScreeningProcess | None = None
        self._proof: Future[str] | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._faults = 0  # in a row

    # asked by other threads

    def current(self) -> WorkerState:
        if self.ident is not None and not self.is_alive() and not self._pool.stopping.is_set():
            return replace(self._state, activity="dead", problem=self._state.problem or "its thread died")
        return self._state

    def wake(self) -> None:
        self._wake.set()

    def hurry(self) -> None:
        """The node is stopping: an engine that is being opened is not needed any more."""
        self.wake()
        opening = self._opening
        if opening is not None:
            opening.interrupt()

    def ask_proof(self) -> "Future[str]":
        with self._lock:
            if self._proof is None:
                self._proof = Future()
            proof = self._proof
        self.wake()
        return proof

    def hand_over(self, child: ScreeningProcess) -> None:
        with self._lock:
            unused, self._next = self._next, child
        if unused is not None:
            unused.close()
        self.wake()

    def finish_by(self, end: float) -> None:
        if self.ident is None:
            return
        self.join(max(0.0, end - time.monotonic()))
        child = self._child or self._opening
        if self.is_alive() and child is not None:
            logger.warning("the image in hand goes back into the queue", extra={"worker": self.name})
            child.interrupt()
        self.join(5.0)

    # the thread

    def run(self) -> None:
        try:
            while not self._pool.stopping.is_set():
                try:
                    self._turn()
                except SPOOL_FAULTS as error:
                    logger.exception("the spool failed; trying again", extra={"worker": self.name})
                    self._tell(activity="waiting", problem=f"the spool failed: {error}")
                    self._pause()
                except Exception as error:
                    logger.exception("a fault of ours; going on", extra={"worker": self.name})
                    self._tell(activity="waiting", problem=f"internal error: {type(error).__name__}")
                    self._pause()
        finally:
            self._go_over()
            self._close()
            self._answer_proof("the node is stopping")
            self._tell(activity="stopped")

    def _turn(self) -> None:
        self._go_over()
        if self._child is None and not self._open():
            self._pause()
            return
        if self._proof is not None:
            self._prove()
            return
        spool = self._pool.spool
        seen = spool.change()
        image = spool.claim()
        if image is None:
            self._tell(activity="idle", problem="")
            spool.wait(seen, IDLE_S)
            return
        self._screen(image)

    def _open(self) -> bool:
        self._tell(activity="opening", pid=0)
        self._opening = ScreeningProcess(self._pool.setup)
        try:
            self._opening.open()
        except EngineError as error:
            self._opening = None
            self._faults += 1
            self._tell(activity="waiting", origin=None, problem=str(error))
            logger.error("no engine: images wait", extra={"worker": self.name, "error": str(error)})
            self._pool.metrics.proven(False)
            self._answer_proof(str(error))
            return False
        self._child, self._opening = self._opening, None
        self._serve(self._child)
        self._answer_proof("")
        return True

    def _serve(self, child: ScreeningProcess) -> None:
        origin = child.origin
        self._tell(activity="idle", origin=origin, pid=child.pid, problem="")
        self._pool.metrics.proven(True)
        told = {"engine": origin.engine, "precision": origin.precision, "bundle": origin.bundle[:12]}
        logger.info("engine proven on the golden set", extra={"worker": self.name, **told})

    def _go_over(self) -> None:
        """To the process of a new bundle, if one was handed over."""
        with self._lock:
            child, self._next = self._next, None
        if child is not None:
            self._close()
            self._child = child
            self._faults = 0
            self._serve(child)

    def _prove(self) -> None:
        child = self._child
        fault = child.prove(self._pool.settings.timeout_s) if child is not None else None
        self._pool.metrics.proven(fault is None)
        if fault is None:
            self._answer_proof("")
            return
        logger.error("the golden set was not reproduced", extra={"worker": self.name, "error": fault.detail})
        self._answer_proof(fault.detail)
        self._replace(fault)

    def _answer_proof(self, said: str) -> None:
        with self._lock:
            proof, self._proof = self._proof, None
        if proof is not None:
            proof.set_result(said)

    def _screen(self, image: Image) -> None:
        self._tell(activity="screening", problem="")
        child, path = self._child, self._pool.spool.path(image)
        said = child.screen(path, self._pool.settings.timeout_s) if child else Fault("machine", "no process")
        if isinstance(said, Reply):
            self._faults = 0
            self._settle(image, lambda: self._finish(image, said))
        elif self._pool.stopping.is_set() and said.kind in ("crashed", "stuck"):
            self._settle(image, lambda: self._pool.spool.release(image.id))
        else:
            self._replace(said)
            self._settle(image, lambda: self._return(image, said))

    def _finish(self, image: Image, reply: Reply) -> None:
        if self._child is None:
            raise EngineError("a reply without a process")
        try:
            found = outcome(image, reply, self._child.origin, time.time())
            wanted = deliveries(reply.screening, reply.identity, self._pool.destinations)
            self._pool.spool.finish(image.id, found, wanted)
        except SPOOL_FAULTS:
            raise
        except Exception as error:  # a result that cannot be written down is none
            logger.exception("no record can be made", extra={"image": image.id})
            self._return(image, Fault("film", f"internal error: {type(error).__name__}"))
            return
        self._pool.forget(image.id)
        self._pool.metrics.finished(image, reply.screening)
        told = {"reason": found.record["reason"]} if found.status == "refused" else {}
        logger.info("screened", extra={"image": image.id, "status": found.status, **told})

    def _return(self, image: Image, fault: Fault) -> None:
        """Put an image without a result back: uncounted where the machine was at fault, and it was not twice."""
        told = {"image": image.id, "fault": fault.kind, "error": fault.detail}
        if fault.kind == "machine" and self._pool.engine_failed_on(image.id) < 2:
            self._pool.spool.release(image.id)
            logger.error("the engine failed; the image waits", extra=told)
            return
        state = self._pool.spool.fail(image.id, fault.detail)
        if state is State.QUARANTINED:
            self._pool.forget(image.id)
            self._pool.metrics.quarantined.inc()
        logger.error("no result", extra={**told, "state": state.value})

    def _settle(self, image: Image, commit: Callable[[], object]) -> None:
        """Commit, again and again while the disk does not let us; an image in hand is never dropped."""
        while True:
            try:
                commit()
                return
            except SPOOL_FAULTS as error:
                logger.exception("the spool failed; trying again", extra={"worker": self.name, "image": image.id})
                self._tell(problem=f"the spool failed: {error}")
            if self._pool.stopping.is_set() or self._taken_away(image):
                return  # what is left in screening is found at the next start, and done again
            self._pause()

    def _taken_away(self, image: Image) -> bool:
        """Whether the image is no longer ours to settle: a person moved it by hand."""
        try:
            return self._pool.spool.get(image.id).state is not State.SCREENING
        except SPOOL_FAULTS:
            return False

    def _replace(self, fault: Fault) -> None:
        self._faults += 1
        self._pool.metrics.restarts.labels(fault.kind).inc()
        stuck = self._state.stuck + (fault.kind == "stuck")
        self._tell(activity="opening", restarts=self._state.restarts + 1, stuck=stuck, problem=fault.detail, pid=0)
        self._close()
        if fault.kind == "machine":
            self._pause()

    def _pause(self) -> None:
        """Longer with every fault in a row; a request of another thread ends it."""
        self._wake.wait(min(LONGEST_PAUSE_S, 2.0 ** (self._faults - 1)) if self._faults else 1.0)
        self._wake.clear()

    def _close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _tell(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]  # the keys are those of WorkerState

"""One worker: a thread that takes one image at a time from the spool, has it screened in a process, and settles it.

the film was decided on or refused      spool.finish, with what has to be sent
its process crashed or stalled on it    spool.fail: an attempt is counted; a fresh process takes over
engine or kernel at fault               spool.release: nothing counted, nothing decided; a fresh process, later
the same again on a proven engine       spool.fail: it is the film after all

While it has nothing to do it lets its process begin with a film that is being made durable (see `ahead`). What comes of
that, crash and stall too, is settled when that film is claimed, exactly as if it had been begun then.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from edgecxr.errors import EngineError
from edgecxr.runtimes.node.ahead import Ahead
from edgecxr.runtimes.node.doubts import Standing
from edgecxr.runtimes.node.images import Image
from edgecxr.runtimes.node.outcome import deliveries, object_uid, outcome
from edgecxr.runtimes.node.screening_process import Fault, Reply, ScreeningProcess
from edgecxr.runtimes.node.worker_state import SPOOL_FAULTS, ProofAsked, Shared, WorkerState

__all__ = ["Worker"]

IDLE_S = 0.5  # after which an idle worker looks for requests to prove, replace or stop
LONGEST_PAUSE_S = 60.0
logger = logging.getLogger(__name__)


class Worker(threading.Thread):
    """Claims, asks, settles, until `shared.stopping`. Its process serves only after the golden set was reproduced."""

    def __init__(self, name: str, shared: Shared) -> None:
        super().__init__(name=name, daemon=True)
        self._shared = shared
        self._state = WorkerState(name)
        self._child: ScreeningProcess | None = None
        self._opening: ScreeningProcess | None = None
        self._next: ScreeningProcess | None = None
        self._proof = ProofAsked()
        self._ahead = Ahead(shared.spool.coming)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._faults = 0  # in a row
        doubts = shared.spool.doubts
        self._standing = Standing(name, lambda proof, told: doubts.mark(proof, told, object_uid), doubts.owed)

    def current(self) -> WorkerState:
        """How it fares."""
        if self.ident is not None and not self.is_alive() and not self._shared.stopping.is_set():
            return replace(self._state, activity="dead", problem=self._state.problem or "its thread died")
        return self._state

    def wake(self) -> None:
        """End a pause: something is asked of it."""
        self._wake.set()

    def hurry(self) -> None:
        """The node is stopping: an engine that is being opened is not needed any more."""
        self.wake()
        if (opening := self._opening) is not None:
            opening.interrupt()

    def ask_proof(self) -> "Future[str]":
        """Between two images, hold the live engine against the golden set; "" when it was reproduced."""
        proof = self._proof.ask()
        self.wake()
        return proof

    def hand_over(self, child: ScreeningProcess) -> None:
        """Go over to this opened process between two images."""
        with self._lock:
            unused, self._next = self._next, child
        if unused is not None:
            unused.close()
        self.wake()

    def finish_by(self, end: float) -> None:
        """Wait for the thread to end; after `end` (monotonic) its process is killed, and its image put back."""
        if self.ident is None:
            return
        self.join(max(0.0, end - time.monotonic()))
        child = self._child or self._opening
        if self.is_alive() and child is not None:
            logger.warning("the image in hand goes back into the queue", extra={"worker": self.name})
            child.interrupt()
        self.join(5.0)

    def run(self) -> None:
        """The thread."""
        try:
            while not self._shared.stopping.is_set():
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
            self._ahead.forget()
            self._proof.answer("the node is stopping")
            self._standing.settle()
            self._tell(activity="stopped")

    def _turn(self) -> None:
        self._standing.settle()
        self._go_over()
        self._heed()
        if self._ahead.owes and (image := self._shared.spool.claim(only=self._ahead.name)) is not None:
            self._screen(image)
        if self._child is None and not self._open():
            self._pause()
            return
        if self._proof and not self._ahead.name:
            self._prove()
            return
        spool, ahead = self._shared.spool, self._ahead
        seen, over = spool.change(), ahead.over  # before the claim: what is over by now can be claimed
        image = (spool.claim(only=ahead.name) if ahead.name else None) or spool.claim(but=ahead.others())
        if image is not None:
            self._screen(image)
        elif over:
            self._give_up()
        elif ahead.name or self._child is None or not ahead.begin(self._child):
            self._tell(activity="idle", problem="")
            spool.wait(seen, IDLE_S, ahead.awaited)

    def _give_up(self) -> None:
        """Of a film that was begun and never became an image."""
        said = self._ahead.hear(self._shared.settings.timeout_s)
        if isinstance(said, Fault):
            self._replace(said)
        self._ahead.forget()

    def _open(self) -> bool:
        self._tell(activity="opening", pid=0, proved=None)
        self._opening = ScreeningProcess(self._shared.setup)
        if self._shared.stopping.is_set():  # since before `hurry` could see what to interrupt
            self._opening.interrupt()
        try:
            self._opening.open()
        except EngineError as error:
            lost, self._opening = self._opening.lost, None
            self._shared.follow_no_more(lost)
            self._faults += 1
            self._tell(activity="waiting", origin=None, problem=str(error))
            logger.error("no engine: images wait", extra={"worker": self.name, "error": str(error)})
            self._shared.metrics.proven(False)
            self._proof.answer(str(error))
            return False
        self._child, self._opening = self._opening, None
        self._proof.answer("")  # opening was the proof; whoever asks from now on gets one of their own
        self._serve(self._child)
        return True

    def _serve(self, child: ScreeningProcess) -> None:
        origin = child.origin
        self._standing.passed()
        self._tell(activity="idle", origin=origin, pid=child.pid, proved=time.time(), problem="")
        self._shared.metrics.proven(True)
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

    def _heed(self) -> None:
        """What engines do that take over in its process: what one decided that has failed since is in doubt."""
        child = self._child
        if child is not None and child.following.tell(self.name):
            self._tell(origin=child.origin)
        if child is not None and (fallen := child.following.fallen()):
            self._standing.fell(fallen)
            if isinstance(self._ahead.said, Reply):  # of a film that cannot be claimed yet
                self._ahead.forget()

    def _prove(self) -> None:
        child = self._child
        fault = child.prove(self._shared.settings.timeout_s) if child is not None else None
        if fault is not None and fault.kind == "crashed" and child is not None and child.interrupted:
            return  # by the stop of the node, before it could tell
        self._heed()
        self._shared.metrics.proven(fault is None)
        if fault is None:
            self._standing.passed()
            self._tell(proved=time.time())
            self._proof.answer("")
            return
        logger.error("the golden set was not reproduced", extra={"worker": self.name, "error": fault.detail})
        self._standing.failed(fault.detail)
        self._close()
        self._standing.settle()
        self._proof.answer(fault.detail)
        self._replace(fault)

    def _screen(self, image: Image) -> None:
        if (owed := self._ahead.owed(image.file)) is not None:
            self._ahead.forget()
            self._settle(image, lambda: self._shared.put_back(image, owed))
            return
        self._tell(activity="screening", problem="")
        said = self._said(image)
        self._heed()
        if isinstance(said, Reply):
            self._faults = 0
            self._settle(image, lambda: self._finish(image, said))
        elif said is None or (self._shared.stopping.is_set() and said.kind in ("crashed", "stuck")):
            self._settle(image, lambda: self._shared.spool.release(image.id))
        else:
            self._replace(said)
            self._settle(image, lambda: self._shared.put_back(image, said))

    def _said(self, image: Image) -> Reply | Fault | None:
        """What the process says of the image; None where another film, which it had begun, has ended it."""
        ahead, child, timeout_s = self._ahead, self._child, self._shared.settings.timeout_s
        heard = ahead.hear(timeout_s)
        if ahead.name == image.file:
            said = ahead.said
            ahead.forget()
            if said is not None:
                return said
        elif isinstance(heard, Fault):
            self._replace(heard)
            return None
        return child.screen(self._shared.spool.path(image), timeout_s) if child else Fault("machine", "no process")

    def _finish(self, image: Image, reply: Reply) -> None:
        if self._child is None:
            raise EngineError("a reply without a process")
        try:
            found = outcome(image, reply, self._child.origin, time.time(), self._standing.proof)
            self._shared.spool.finish(image.id, found, deliveries(found, self._shared.destinations))
        except SPOOL_FAULTS:
            raise
        except Exception as error:  # a result that cannot be written down is none
            logger.exception("no record can be made", extra={"image": image.id})
            self._shared.put_back(image, Fault("film", f"internal error: {type(error).__name__}"))
            return
        self._shared.forget(image.id)
        self._shared.metrics.finished(image, reply.screening)
        told = {"reason": found.record["reason"]} if found.status == "refused" else {}
        logger.info("screened", extra={"image": image.id, "status": found.status, **told})

    def _settle(self, image: Image, commit: Callable[[], object]) -> None:
        """Commit, again and again while the disk does not let us; an image in hand is never dropped."""
        while True:
            try:
                commit()
                return
            except SPOOL_FAULTS as error:
                logger.exception("the spool failed; trying again", extra={"worker": self.name, "image": image.id})
                self._tell(problem=f"the spool failed: {error}")
            if self._shared.stopping.is_set() or self._shared.taken_away(image):
                return  # what is left in screening is found at the next start, and done again
            self._pause()

    def _replace(self, fault: Fault) -> None:
        self._faults += 1
        self._shared.follow_no_more(fault)
        self._shared.metrics.restarts.labels(fault.kind).inc()
        stuck = self._state.stuck + (fault.kind == "stuck")
        restarts = self._state.restarts + 1
        self._tell(activity="opening", restarts=restarts, stuck=stuck, problem=fault.detail, pid=0, proved=None)
        self._close()
        if fault.kind == "machine":
            self._pause()

    def _pause(self) -> None:
        """Longer with every fault in a row; a request of another thread ends it."""
        self._wake.wait(min(LONGEST_PAUSE_S, 2.0 ** (self._faults - 1)) if self._faults else 1.0)
        self._wake.clear()

    def _close(self) -> None:
        self._heed()
        child, self._child = self._child, None
        if child is not None:
            child.close()
        if not self._ahead.owes:  # a reply goes with the process that made it
            self._ahead.forget()

    def _tell(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]  # the keys are those of WorkerState

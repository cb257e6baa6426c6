"""Results on their way to the archives: each delivery is tried until its archive has it."""

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecxr.errors import EdgeCxrError, SendError, SpoolError
from edgecxr.runtimes.node.config import DestinationSection
from edgecxr.runtimes.node.lines import Calls, Peer
from edgecxr.runtimes.node.sender import SendResult, send

if TYPE_CHECKING:
    from edgecxr.runtimes.node.deliveries import Delivery
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["DestinationState", "Outbox", "delay_s", "place"]

LOG = logging.getLogger(__name__)
FIRST_S, LONGEST_S = 5.0, 3600.0  # between attempts: 5, 10, 20 … seconds, then an hour
JITTER = 0.2  # of the delay, so that nodes behind one failed archive do not return in step
POLL_S = 0.5
BATCH = 32  # results of one association; they lie on disk until it has ended

Build = Callable[["Delivery"], Path]


def delay_s(failures: int) -> float:
    """How long to wait after so many failures in a row (>= 1): exponential with jitter, in seconds."""
    delay = min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 16))
    return delay * random.uniform(1 - JITTER, 1 + JITTER)


@dataclass(frozen=True)
class DestinationState:
    """What the health page shows of one archive."""

    name: str
    sent: int = 0
    failures: int = 0  # in a row, to reach it at all
    error: str = ""  # "" when the last attempt went well; it names no patient
    retry: float = 0.0  # when it is tried again (unix s), where it was not reached


class Outbox:
    """Delivers what the spool has due; a thread for each destination, so that a dead archive holds up no other.

    `build` makes the DICOM file of a delivery; the file is removed after it was tried. Where it cannot be built
    (ResultError) or is refused, that delivery waits and the others go on. Nothing is ever given up.
    """

    def __init__(
        self,
        spool: "Spool",
        destinations: Sequence[DestinationSection],
        build: Build,
        *,
        calling_ae: str = "EDGECXR",
        timeout_s: float = 30.0,
    ) -> None:
        """Raises ConfigError when certificates cannot be loaded."""
        self._calls = Calls()
        self._stopping = threading.Event()
        means = _Means(spool, build, calling_ae, timeout_s, self._calls, self._stopping)
        self._routes = [_Route(section.name, Peer.of(section), means) for section in destinations]

    def start(self) -> None:
        """Begin to deliver."""
        for route in self._routes:
            route.start()

    def stop(self) -> None:
        """End: connections are cut, what was under way stays due, and no thread is left."""
        self._stopping.set()
        self._calls.end()
        for route in self._routes:
            if route.ident is not None:
                route.join()

    def states(self) -> list[DestinationState]:
        """How each destination fares."""
        return [route.state for route in self._routes]


@dataclass(frozen=True)
class _Means:
    """What all destinations share."""

    spool: "Spool"
    build: Build
    calling_ae: str
    timeout_s: float
    calls: Calls
    stopping: threading.Event


class _Route(threading.Thread):
    """Deliveries of one destination."""

    def __init__(self, name: str, peer: Peer, means: _Means) -> None:
        super().__init__(name=f"outbox-{name}", daemon=True)
        self.destination = name
        self.peer = peer
        self.means = means
        self.spool = means.spool
        self.stopping = means.stopping
        self.state = DestinationState(name)
        self.quiet_until = 0.0  # monotonic s

    def run(self) -> None:
        """Deliver until stopped. A fault (of the spool's disk, say) is logged, and tried again later."""
        while not self.stopping.is_set():
            pause = POLL_S
            try:
                if time.monotonic() >= self.quiet_until and (batch := self._due()):
                    self._deliver(batch)
                    pause = 0.0
            except Exception as error:
                LOG.exception("outbox %s: a fault of ours", self.destination)
                self.state = replace(self.state, error=f"internal error: {place(error)}")
                pause = FIRST_S
            self.stopping.wait(pause)

    def _due(self) -> list["Delivery"]:
        return self.spool.due(time.time(), BATCH, self.destination)

    def _deliver(self, batch: list["Delivery"]) -> None:
        """Build, send, and note what became of each; what a stop cuts off stays as it is."""
        built: list[tuple[Delivery, Path]] = []
        try:
            for delivery in batch:
                if self.stopping.is_set():
                    return
                if (path := self._built(delivery)) is not None:
                    built.append((delivery, path))
            if built:
                self._send(built)
        finally:
            for _, path in built:
                path.unlink(missing_ok=True)

    def _built(self, delivery: "Delivery") -> Path | None:
        """None where there is nothing to send now. What is built of a result that changed meanwhile is dropped."""
        try:
            path = self.means.build(delivery)
            if self.spool.stands(delivery):
                return path
            path.unlink(missing_ok=True)
        except EdgeCxrError as error:
            self._postpone(delivery, str(error))
        except Exception as error:
            self._postpone(delivery, f"internal error: {place(error)}")
        return None

    def _send(self, built: list[tuple["Delivery", Path]]) -> None:
        paths = [path for _, path in built]
        waiting = {path: delivery for delivery, path in built}

        def settle(result: SendResult) -> None:
            self._settle(waiting[result.file], result)
            del waiting[result.file]

        try:
            send(
                paths,
                self.peer,
                self.means.calling_ae,
                progress=settle,
                timeout_s=self.means.timeout_s,
                calls=self.means.calls,
            )
        except SendError as error:
            if not self.stopping.is_set():
                self._unreached(list(waiting.values()), str(error))
            return
        except Exception as error:  # over the first of them that has no answer: the others are due as before
            if not waiting or self.stopping.is_set():
                raise
            LOG.exception("outbox %s: a fault of ours", self.destination)
            self._postpone(next(iter(waiting.values())), f"internal error: {place(error)}")
            return
        if self.state.failures:
            LOG.info("outbox %s: reached again", self.destination)
        self.state = replace(self.state, failures=0, retry=0.0)

    def _settle(self, delivery: "Delivery", result: SendResult) -> None:
        """Note one answer at once: a crash after it must not send the object again for nothing."""
        if result.sent:
            with self._outstanding():
                self.spool.sent(delivery.id, delivery.sop_instance)
            self.state = replace(self.state, sent=self.state.sent + 1, error="")
        elif not self.stopping.is_set():
            self._postpone(delivery, result.error)

    def _postpone(self, delivery: "Delivery", error: str) -> None:
        """Keep the peer's words in the spool; they may name a patient, so log and state have numbers only."""
        wait = delay_s(delivery.attempts + 1)
        LOG.warning("outbox %s: delivery %d failed, again in %.0f s", self.destination, delivery.id, wait)
        told = f"the {delivery.kind} of image {delivery.image} was not delivered; edgecxr queue show {delivery.image}"
        self.state = replace(self.state, error=f"{told} says why")
        with self._outstanding():
            self.spool.postpone(delivery.id, error, time.time() + wait)

    def _unreached(self, batch: list["Delivery"], error: str) -> None:
        """The destination waits as a whole; its deliveries are due when it is tried again."""
        failures = self.state.failures + 1
        wait = delay_s(failures)
        LOG.warning("outbox %s: not reached, again in %.0f s: %s", self.destination, wait, error)
        self.quiet_until = time.monotonic() + wait
        self.state = replace(self.state, failures=failures, error=error, retry=time.time() + wait)
        for delivery in batch:
            with self._outstanding():
                self.spool.postpone(delivery.id, error, time.time())

    @contextmanager
    def _outstanding(self) -> Iterator[None]:
        """A delivery whose image was sent back by hand, or whose result was doubted since, cannot be noted."""
        try:
            yield
        except SpoolError as error:
            LOG.info("outbox %s: %s", self.destination, error)


def place(error: BaseException) -> str:
    """An unforeseen error by its kind and place; its words may name a patient."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
        if frames
        else repr(type(error))
    )

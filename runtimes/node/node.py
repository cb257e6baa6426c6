"""The node: every part opened in the right order, watched while it runs, and stopped in reverse."""

import io
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from edgecxr.errors import ResultError
from edgecxr.runtimes.node import clock
from edgecxr.runtimes.node.config import NodeConfig
from edgecxr.runtimes.node.deliveries import Delivery
from edgecxr.runtimes.node.drawing_process import LARGEST, Picture
from edgecxr.runtimes.node.drawings import Drawings
from edgecxr.runtimes.node.events import CommitmentReporter
from edgecxr.runtimes.node.health import Health, HealthMonitor, Rounds
from edgecxr.runtimes.node.images import Image, State
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.model import Models, choose
from edgecxr.runtimes.node.outbox import Outbox
from edgecxr.runtimes.node.outcome import object_uid
from edgecxr.runtimes.node.parts import disk_error
from edgecxr.runtimes.node.receiver import Receiver
from edgecxr.runtimes.node.results.objects import build
from edgecxr.runtimes.node.screening_process import Origin
from edgecxr.runtimes.node.spool import Spool
from edgecxr.runtimes.node.watch import Watcher
from edgecxr.runtimes.node.web.app import WebServer, create_app
from edgecxr.runtimes.node.workers import Workers
from edgecxr.spec import ModelSpec

__all__ = ["Node"]

FOLLOW_S, RETENTION_S = 2.0, 60.0  # how often an installed bundle is looked for, and old images are forgotten
MEGABYTE = 10**6
logger = logging.getLogger(__name__)


class Node:
    """Everything that `edgecxr serve` runs. A context manager; `start` once, `stop` once."""

    def __init__(self, config: NodeConfig) -> None:
        """Check what can be checked without taking anything: bundle, keys, certificates, the spool's index.

        Raises ConfigError, BundleError (not trusted, not whole), SpoolError.
        """
        self.config = config
        chosen = choose(config)
        self.metrics_of_parts = Metrics()
        self.spool = Spool(config.folder / "spool", config.spool)
        self._outgoing = config.folder / "outgoing"
        self.workers = Workers(
            self.spool,
            config.screening,
            chosen.path,
            self.metrics_of_parts,
            config.destinations,
            digest=chosen.digest,
        )
        self.models = Models(config, self.workers, chosen)
        dicom, http = config.dicom, config.http
        self.drawings = Drawings(self.spool, config.screening.timeout_s)
        self.receiver = None if dicom is None else Receiver(self.spool, dicom)
        self.reporter = None if dicom is None else CommitmentReporter(self.spool, dicom)
        self.watchers = [Watcher(self.spool, section) for section in config.watch]
        calling_ae = "EDGECXR" if dicom is None else dicom.ae
        self.outbox = Outbox(self.spool, config.destinations, self._built, calling_ae=calling_ae)
        self.web = None if http is None else WebServer(create_app(self), http)
        self.monitor = HealthMonitor(self.workers, self._asides)
        self._rounds = Rounds(
            (
                ("the proof of the engines", config.health.prove_every_s, self.monitor.prove),
                ("following the bundle", FOLLOW_S, self.models.follow),
                ("tidying the spool", RETENTION_S, self._tidy),
            )
        )
        self._parts: list[tuple[str, Callable[[float], object]]] = []  # started, with how each is stopped
        self._threads: dict[threading.Thread, str] = {}  # that must live as long as the node
        self._stopping = False

    def start(self) -> None:
        """Take the spool, and open every part. Whatever fails, what was opened is closed again.

        Raises SpoolError (another node has the spool), ConfigError (an address is in use), SpoolFull.
        """
        try:
            self._start()
        except BaseException:
            self.stop(0)
            raise

    def _start(self) -> None:
        recovery = self.spool.recover()
        logger.info("the spool is open", extra={"recovery": asdict(recovery)})
        self._outgoing.mkdir(mode=0o700, exist_ok=True)
        for left in self._outgoing.iterdir():
            left.unlink()
        statistics = None if self.receiver is None else self.receiver.statistics
        self.metrics_of_parts.watch(self.spool, statistics, self._origin)
        self._run("rounds", self._rounds.start, lambda grace_s: self._rounds.stop())
        self._run("workers", self.workers.start, self.workers.stop)
        self._run("outbox", self.outbox.start, lambda grace_s: self.outbox.stop())
        self._run("drawings", lambda: None, lambda grace_s: self.drawings.close())  # the outbox may wait for one
        if self.reporter is not None:
            reporter = self.reporter
            self._run("storage commitment", reporter.start, lambda grace_s: reporter.stop(), "commitment-reporter")
        if self.web is not None:
            web = self.web
            self._run("page", web.start, lambda grace_s: web.stop(min(5.0, grace_s)), "edgecxr-http")
        for watcher in self.watchers:
            self._run("watched folder", watcher.start, lambda grace_s, watcher=watcher: watcher.stop())  # type: ignore[misc]
        if self.receiver is not None:
            self._run("receiver", self.receiver.start, self.receiver.stop, "dicom-listener")

    def _run(
        self, name: str, start: Callable[[], None], stop: Callable[[float], object], thread: str | None = None
    ) -> None:
        """Start a part, and remember its threads (`thread`: the name of the one that must live)."""
        before = set(threading.enumerate())
        self._parts.append((name, stop))
        start()
        for new in set(threading.enumerate()) - before:
            if thread is None or new.name == thread:
                self._threads[new] = name

    def stop(self, grace_s: float = 30.0) -> None:
        """Take nothing new, let transfers and the images in hand finish within `grace_s`, close. Twice is harmless.

        What is received and not decided waits in the spool for the next start, and so does what is not delivered.
        """
        self._stopping = True
        end = time.monotonic() + grace_s
        while self._parts:
            name, stop = self._parts.pop()
            try:
                stop(max(0.0, end - time.monotonic()))
            except Exception:
                logger.exception("a part could not be stopped", extra={"stopping": name})
        self._threads.clear()
        self.spool.close()

    def __enter__(self) -> "Node":
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    # what the page asks

    def ready(self) -> tuple[bool, list[str]]:
        """Whether images are taken and screened, and what stands in the way."""
        obstacles = [] if self.monitor.able() else self.monitor.obstacles()
        obstacles += self._dead()
        free, least = self.spool.free_bytes(), self.config.spool.refuse_below_mb * MEGABYTE
        if free < least:
            obstacles.append(
                f"{free // MEGABYTE} MB are free on the disk, under spool.refuse_below_mb: nothing is taken"
            )
        if self._stopping:
            obstacles.append("the node is stopping")
        return not obstacles, obstacles

    def health(self) -> Health:
        """How the node is now."""
        return self.monitor.state()

    def metrics(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return self.metrics_of_parts.page(self.ready()[0])

    def spec(self, bundle: str) -> ModelSpec | None:
        """The model in the bundle with this digest; None when it is no longer here."""
        return self.models.spec(bundle)

    def picture(self, image: Image) -> Picture:
        """The film as the page shows it. Raises Refusal, OSError (no longer kept), DrawingError."""
        return self.drawings.draw(image, LARGEST, 0)

    def result_object(self, kind: str, image: int, uid: str = "") -> bytes:
        """The SR or the Secondary Capture of an image as a PS3.10 file; `uid`: its SOP Instance UID, if not the usual.

        Raises ResultError, SpoolError, and DrawingError where its picture cannot be drawn now.
        """
        row, result = self.spool.get(image), self.spool.result(image)
        if result is None or row.state is State.QUARANTINED:
            raise ResultError(f"image {image} has no result ({row.state.value}); no object can be made of it")
        settings, source = self.config.results, self.spool.path(row)
        uid = uid or object_uid(result.record, kind, result.doubt)
        stream, draw = io.BytesIO(), partial(self.drawings.draw, row)
        made = build(kind, row, result, source, uid, settings=settings, draw=draw)
        made.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    # what the parts ask

    def _built(self, delivery: Delivery) -> Path:
        """The file of a delivery, for the outbox, which removes it. Raises as `result_object`, and SpoolFull."""
        path = self._outgoing / f"{delivery.id}.dcm"
        # first in memory: of a full disk pydicom tells no errno, but what it was writing
        made = self.result_object(delivery.kind, delivery.image, delivery.sop_instance)
        try:
            path.write_bytes(made)
        except OSError as error:
            path.unlink(missing_ok=True)  # half an object would hold the room that the next attempt needs
            raise disk_error(error, f"a result object could not be written to {self._outgoing}") from error
        return path

    def _origin(self) -> Origin | None:
        return next((state.origin for state in self.workers.states() if state.origin is not None), None)

    def _tidy(self) -> None:
        removed = self.spool.expire(time.time())
        if removed:
            logger.info("delivered images were forgotten", extra={"images": removed})

    def _dead(self) -> list[str]:
        if self._stopping:
            return []
        return [f"{name}: its thread died" for thread, name in self._threads.items() if not thread.is_alive()]

    def _asides(self) -> list[str]:
        """What a person should see to, without patient data: files of watched folders are counted, not named."""
        found = [self.models.problem] if self.models.problem else []
        found += list(self._rounds.problems.values())
        found += [f"destination {state.name}: {state.error}" for state in self.outbox.states() if state.error]
        known = [section.name for section in self.config.destinations]
        found += [
            f"{number} result(s) wait for the destination {name}, which is not in the configuration: "
            f"name it there again, or give them up with edgecxr queue forget {name}"
            for name, number in self.spool.waiting().items()
            if name not in known
        ]
        stuck = sum(len(watcher.problems()) for watcher in self.watchers)
        if stuck:
            found.append(f"{stuck} file(s) of the watched folders cannot be taken; the log says why")
        if self.reporter is not None and self.reporter.unreachable:
            asking = len(self.reporter.unreachable)
            found.append(
                f"{asking} storage commitment(s) cannot be answered: give the asking peer a port (dicom.peers)"
            )
        aside, size = self.spool.quarantined()
        if aside:
            found.append(f"{aside} image(s) of {size / MEGABYTE:.1f} MB are quarantined: see edgecxr queue")
        doubtful = self.spool.doubts.count()
        if doubtful:
            found.append(f"{doubtful} result(s) are in doubt, because their engine failed its next proof: screen again")
        if clock.synchronised() is False and not self.config.health.clock_by_hand:
            found.append("the clock is not synchronised: dates and times of results may be wrong")
        return found

"""The workers of a node: how many there are, what they open, and that they go over to another bundle together."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from pathlib import Path

from edgecxr.errors import EngineError
from edgecxr.runtimes.node.config import DestinationSection, ScreeningSection
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import OPEN_TIMEOUT_S, Origin, ScreeningProcess, Setup
from edgecxr.runtimes.node.spool import Spool
from edgecxr.runtimes.node.worker import Worker
from edgecxr.runtimes.node.worker_state import Shared, WorkerState

__all__ = ["WorkerState", "Workers"]

logger = logging.getLogger(__name__)


class Workers:
    """`settings.workers` threads, each with a screening process. One bundle for all; `swap` changes it."""

    def __init__(
        self,
        spool: Spool,
        settings: ScreeningSection,
        bundle: Path,
        metrics: Metrics,
        destinations: Sequence[DestinationSection] = (),
        *,
        digest: str | None = None,
    ) -> None:
        """`digest` is that of the bundle that was checked; a process that finds another does not serve."""
        setup = Setup(bundle, settings.engine, settings.precision, settings.point, settings.threads, digest=digest)
        self._shared = Shared(spool, settings, setup, metrics, tuple(destinations))
        self._fresh: list[ScreeningProcess] = []  # being opened by `swap`
        self._workers = [Worker(f"worker-{number}", self._shared) for number in range(1, settings.workers + 1)]

    @property
    def bundle(self) -> Path:
        """The bundle in use."""
        return self._shared.setup.bundle

    @property
    def switched_off(self) -> str:
        """Why engines of the CPU alone are opened until the next start; "" while that is not so."""
        return self._shared.switched_off

    def start(self) -> None:
        """Returns at once; `states` tells when the workers have opened and proven their engines."""
        for worker in self._workers:
            worker.start()

    def stop(self, grace_s: float = 30.0) -> None:
        """Let each worker finish the image in its hands; after `grace_s` it is put back into the queue."""
        self._shared.stopping.set()
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
        if self._shared.stopping.is_set():
            return []
        limit = self._shared.settings.timeout_s * 2 + OPEN_TIMEOUT_S if timeout_s is None else timeout_s
        asked = [(worker, worker.ask_proof()) for worker in self._workers]
        end = time.monotonic() + limit
        return [f"{worker.name}: {said}" for worker, proof in asked if (said := _said(worker, proof, end))]

    def swap(self, bundle: Path, digest: str | None = None) -> Origin:
        """Open and prove `bundle` beside the one in use, then let every worker go over to it between two images.

        `digest` is that of the bundle that was checked, as when the workers are made.
        Raises EngineError, and keeps the old one, when the new one cannot be opened or does not prove itself.
        """
        setup = replace(self._shared.setup, bundle=bundle, digest=digest)
        fresh = [ScreeningProcess(setup) for _ in self._workers]
        self._fresh = fresh
        try:
            for child in fresh:
                child.open()
            if self._shared.stopping.is_set():
                raise EngineError("the node is stopping")
        except EngineError:
            for child in fresh:
                self._shared.follow_no_more(child.lost)
                child.kill()
            raise
        finally:
            self._fresh = []
        self._shared.setup = replace(self._shared.setup, bundle=bundle, digest=digest)
        for worker, child in zip(self._workers, fresh, strict=True):
            worker.hand_over(child)
        return fresh[0].origin


def _said(worker: Worker, proof: "Future[str]", end: float) -> str:
    try:
        return proof.result(max(0.0, end - time.monotonic()))
    except FutureTimeout:
        logger.error("a proof did not come about in time", extra={"worker": worker.name})
        return "did not prove itself in time"

"""The node's figures for Prometheus, in a registry of its own. No label holds anything about a patient or a peer."""

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from edgecxr import __version__
from edgecxr.runtimes.node.images import Image
from edgecxr.runtimes.node.screening_process import Origin
from edgecxr.runtimes.node.spool import Spool
from edgecxr.runtimes.screening import STAGES, Screening

__all__ = ["Metrics"]

DECISION_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """Counters that the parts of the node move, and gauges that are read from it when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decided = self._counter("decided", "Decisions, by finding.", "finding", "decision")
        self._refused = self._counter("refused", "Images refused after they were received, by reason.", "reason")
        self.quarantined = self._counter("quarantined", "Images set aside after two attempts without a result.")
        self.restarts = self._counter("worker_restarts", "Screening processes replaced, by cause.", "cause")
        self.proofs = self._counter("proofs", "Golden sets run on a live engine, by outcome.", "outcome")
        self._decision_s = Histogram(
            "edgecxr_decision_seconds",
            "From received to decision committed.",
            buckets=DECISION_S,
            registry=self.registry,
        )
        self._stage_s = Histogram(
            "edgecxr_stage_seconds",
            "Time in each stage of screening.",
            ["stage"],
            buckets=STAGE_S,
            registry=self.registry,
        )
        self._ready = Gauge("edgecxr_ready", "1 while images are taken and screened.", registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"edgecxr_{name}", text, labels, registry=self.registry)

    def watch(
        self,
        spool: Spool,
        receiver: Callable[[], Mapping[str, object]] | None = None,
        origin: Callable[[], Origin | None] | None = None,
    ) -> None:
        """Read these, too, whenever the figures are asked for."""
        self.registry.register(_Node(spool, receiver, origin))

    def finished(self, image: Image, screening: Screening) -> None:
        """An image was decided on or refused, and that is committed."""
        for finding in screening.findings:
            self._decided.labels(finding.name, finding.decision).inc()
        if screening.reason is not None:
            self._refused.labels(screening.reason.value).inc()
        self._decision_s.observe(max(0.0, time.time() - image.received))  # the clock may have been set back
        for stage in STAGES:
            if (spent := screening.milliseconds.get(stage)) is not None:
                self._stage_s.labels(stage).observe(spent / 1000)

    def proven(self, passed: bool) -> None:
        """A live engine was held against the golden set."""
        self.proofs.labels("passed" if passed else "failed").inc()

    def page(self, ready: bool) -> bytes:
        """Prometheus text format 0.0.4."""
        self._ready.set(ready)
        return generate_latest(self.registry)


class _Node(Collector):
    def __init__(
        self,
        spool: Spool,
        receiver: Callable[[], Mapping[str, object]] | None,
        origin: Callable[[], Origin | None] | None,
    ) -> None:
        self._spool = spool
        self._receiver = receiver
        self._origin = origin

    def describe(self) -> list[Metric]:
        return []  # asked at registration, when the spool need not be read

    def collect(self) -> Iterator[Metric]:
        images = GaugeMetricFamily("edgecxr_images", "Images in the spool, by state.", labels=["state"])
        for state, count in self._spool.counts().items():
            images.add_metric([state.value], count)
        yield images
        yield GaugeMetricFamily(
            "edgecxr_waiting_seconds", "Age of the oldest image that waits.", value=self._spool.waiting_s() or 0.0
        )
        yield GaugeMetricFamily("edgecxr_disk_free_bytes", "Free room of the spool.", value=self._spool.free_bytes())
        yield GaugeMetricFamily(
            "edgecxr_outbox_outstanding", "Results not delivered yet.", value=self._spool.outstanding()
        )
        size = self._spool.quarantined()[1]
        yield GaugeMetricFamily("edgecxr_quarantined_bytes", "Room that quarantined images take.", value=size)
        doubtful = self._spool.doubts.count()
        yield GaugeMetricFamily("edgecxr_results_in_doubt", "Given by an engine that failed then.", value=doubtful)
        yield from self._network()
        yield self._info()

    def _network(self) -> Iterator[Metric]:
        told = GaugeMetricFamily("edgecxr_dicom", "The receiver's statistics since its start.", labels=["statistic"])
        for name, value in (self._receiver() if self._receiver else {}).items():
            if isinstance(value, (int, float)):
                told.add_metric([name], value)
        yield told

    def _info(self) -> Metric:
        origin = self._origin() if self._origin else None
        info = {"version": __version__}
        if origin is not None:
            info |= {"engine": origin.engine, "precision": origin.precision, "kernel": origin.kernel}
            info |= {"bundle": origin.bundle, "model": f"{origin.spec.name} {origin.spec.version}"}
        family = InfoMetricFamily("edgecxr_node", "What screens.", value=info)
        return family

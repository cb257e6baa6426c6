"""The figures that Prometheus is given."""

import time

from prometheus_client.parser import text_string_to_metric_families

from edgecxr.decision import FindingResult
from edgecxr.errors import RefusalReason
from edgecxr.runtimes.node.images import Image, State
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.spool import Arrival, Spool
from edgecxr.runtimes.screening import Screening

ORIGIN = {"engine": "openvino-cpu", "precision": "int8", "kernel": "cpp", "bundle": "0" * 64}


def image(received: float) -> Image:
    texts = dict.fromkeys(("sop_class", "sop_instance", "syntax", "peer", "calling_ae", "error", "copy", "file"), "")
    return Image(
        id=1, source="dicom", priority=0, received=received, size=1, state=State.SCREENING, attempts=1, **texts
    )


def values(metrics: Metrics) -> dict[str, float]:
    """`name{label}` without other labels' names, for every sample."""
    families = text_string_to_metric_families(metrics.page(True).decode())
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def test_decisions_refusals_and_times() -> None:
    metrics = Metrics()
    finding = FindingResult("covid", 0.9, 0.4, "positive")
    spent = {"read": 12.0, "preprocess": 2.0, "infer": None}
    decided = Screening("film", "ok", **ORIGIN, findings=(finding,), milliseconds=spent)
    metrics.finished(image(time.time() - 3), decided)
    metrics.finished(image(time.time() + 3600), decided)  # the clock was set back
    metrics.finished(image(time.time()), Screening("film", "refused", **ORIGIN, reason=RefusalReason.NO_PIXELS))
    found = values(metrics)
    assert found["edgecxr_decided_total positive covid"] == 2
    assert found["edgecxr_refused_total no_pixels"] == 1
    assert found["edgecxr_decision_seconds_count"] == 3
    assert 3 <= found["edgecxr_decision_seconds_sum"] < 60
    assert found["edgecxr_stage_seconds_count read"] == 2
    assert found["edgecxr_ready"] == 1


def test_what_is_read_when_it_is_asked_for(spool: Spool) -> None:
    metrics = Metrics()
    metrics.watch(spool, lambda: {"stored": 4, "name": "not a number"})
    with spool.part() as part:
        part.write(b"x")
        spool.commit(part, Arrival("", "", "", "http"))
    found = values(metrics)
    assert found["edgecxr_images received"] == 1
    assert found["edgecxr_quarantined_bytes"] == found["edgecxr_results_in_doubt"] == 0
    assert found["edgecxr_images quarantined"] == 0
    assert found["edgecxr_dicom stored"] == 4
    assert found["edgecxr_disk_free_bytes"] > 0
    assert found["edgecxr_outbox_outstanding"] == 0
    assert not any("not a number" in name for name in found)


def test_two_nodes_in_one_process_do_not_share_figures() -> None:
    first, second = Metrics(), Metrics()
    first.quarantined.inc()
    assert values(first)["edgecxr_quarantined_total"] == 1
    assert values(second)["edgecxr_quarantined_total"] == 0

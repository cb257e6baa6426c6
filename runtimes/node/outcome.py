"""What is committed for one screened image: its result, its urgency, and what has to be sent to whom."""

import uuid
from collections.abc import Sequence

from edgecxr.runtimes.node.config import DestinationSection
from edgecxr.runtimes.node.images import Image, NewDelivery, Outcome
from edgecxr.runtimes.node.results.record import to_record
from edgecxr.runtimes.node.screening_process import Origin, Reply
from edgecxr.runtimes.screening import Screening

__all__ = ["deliveries", "outcome"]


def outcome(image: Image, reply: Reply, origin: Origin, decided: float) -> Outcome:
    """The result of an image, decided at `decided` (Unix seconds) by the process of `origin`."""
    screening = reply.screening
    record = to_record(screening, image, origin.spec, origin.point, decided)
    if image.source != "dicom":
        record["file"] = image.peer
    return Outcome(screening.status, record, screening.cam, reply.identity, record["urgency"])


def deliveries(
    screening: Screening, identity: dict[str, str], destinations: Sequence[DestinationSection]
) -> list[NewDelivery]:
    """One object of each kind for each destination, each kind with one UID fixed here, so that a retry sends the same.

    A film outside a study (a PNG, a broken header) has no place in a PACS; a refused one has no heatmap to capture.
    """
    if not identity.get("study_instance"):
        return []
    uids = {kind: f"2.25.{uuid.uuid4().int}" for kind in ("sr", "capture")}
    return [
        NewDelivery(destination.name, kind, uids[kind])
        for destination in destinations
        for kind in destination.send
        if kind == "sr" or screening.status == "ok"
    ]

"""What is committed for one screened image: its result, its urgency, and what has to be sent to whom."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgecxr.runtimes.node import clock
from edgecxr.runtimes.node.config import DestinationSection
from edgecxr.runtimes.node.images import Image, NewDelivery, Outcome
from edgecxr.runtimes.node.results.codes import uid
from edgecxr.runtimes.node.results.record import to_record
from edgecxr.runtimes.node.screening_process import Origin, Reply

__all__ = ["deliveries", "object_uid", "outcome"]


def outcome(image: Image, reply: Reply, origin: Origin, decided: float, proof: str = "") -> Outcome:
    """The result of an image, decided at `decided` (Unix seconds) by the process of `origin`, which passed `proof`."""
    screening = reply.screening
    record = to_record(screening, image, origin.spec, origin.point, decided)
    if image.source == "folder":  # of a watched folder the peer is the name of the file
        record["file"] = image.peer
    record["clock_synchronised"] = clock.synchronised()
    if record["clock_synchronised"] is False:
        record["notes"].append(clock.UNSYNCHRONISED)
    return Outcome(screening.status, record, screening.cam, reply.identity, record["urgency"], proof)


def object_uid(record: Mapping[str, Any], kind: str, doubt: str = "") -> str:
    """The UID of the `kind` of object that tells of this result: one for every destination, retry and download.

    With a `doubt` it says something else, and is another object.
    """
    which = ("object", record["sop_instance"], str(record["image"]), kind, str(record["decided"]))
    return str(uid(*which, doubt) if doubt else uid(*which))


def deliveries(outcome: Outcome, destinations: Sequence[DestinationSection]) -> list[NewDelivery]:
    """One object of each kind for each destination, with its UID fixed now, so that a retry sends the same.

    A film outside a study (a PNG, a broken header) has no place in a PACS. Of a refused one goes everything, too: where
    a viewer shows pictures only, a film without a capture would look like one with nothing on it.
    """
    if not (outcome.identity or {}).get("study_instance"):
        return []
    return [
        NewDelivery(destination.name, kind, object_uid(outcome.record, kind))
        for destination in destinations
        for kind in destination.send
    ]

"""What leaves the node about an image: a record (JSON), a structured report and a capture (DICOM)."""

from edgecxr.runtimes.node.results.objects import build
from edgecxr.runtimes.node.results.record import most_urgent, to_record, urgency

__all__ = ["build", "most_urgent", "to_record", "urgency"]

"""Storage commitment, push model, as provider: the request (PS3.4 J.3.2).

A request is kept in the spool before it is accepted. Its answer, an N-EVENT-REPORT, is delivered by `events` on an
association of its own, never on the one that asked: it survives a restart, and a modality that releases at once.
"""

import logging

from edgecxr.errors import Refusal, SpoolFull
from edgecxr.read.elements import Encoding
from edgecxr.read.guard import Limits
from edgecxr.read.header import Header
from edgecxr.runtimes.node.commitments import CommitmentRequest
from edgecxr.runtimes.node.dimse import Command, Context, Drain, Reply, Sink, Status, Tag
from edgecxr.runtimes.node.spool import Spool
from edgecxr.runtimes.node.storage import BIG_ENDIAN, EXPLICIT, IMPLICIT, Caller

__all__ = ["PUSH_MODEL", "PUSH_MODEL_INSTANCE", "SYNTAXES", "Commitment"]

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN)
REQUEST = 1  # the one action of the class: Request Storage Commitment
MOST_BYTES = 1 << 22  # of an action information; 10,000 references take about 1.5 MB
LIMITS = Limits(file_bytes=MOST_BYTES, depth=8)

logger = logging.getLogger(__name__)


class Commitment:
    """N-ACTION of the push model, into a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def open(self, command: Command, context: Context, caller: Caller) -> Sink:
        """What takes the action information, or the status that says why it is not wanted."""
        if command.text(Tag.REQUESTED_CLASS) != PUSH_MODEL or context.abstract != PUSH_MODEL:
            return Drain(Reply(Status.NO_SUCH_CLASS, "not the storage commitment push model"))
        if command.text(Tag.REQUESTED_INSTANCE) != PUSH_MODEL_INSTANCE:
            return Drain(Reply(Status.NO_SUCH_INSTANCE, "not the well-known instance of the push model"))
        if command.number(Tag.ACTION) != REQUEST:
            return Drain(Reply(Status.NO_SUCH_ACTION, "the action is 1, request storage commitment"))
        if not command.has_data_set:
            return Drain(Reply(Status.INVALID_ARGUMENT, "a request that names nothing"))
        if caller.port is None:
            return Drain(Reply(Status.PROCESSING_FAILURE, "no port is configured here to report to this AE"))
        return Asking(self._spool, context.transfer, caller)


class Asking:
    """One request, while it comes in."""

    def __init__(self, spool: Spool, transfer: str, caller: Caller) -> None:
        self._spool = spool
        self._transfer = transfer
        self._caller = caller
        self._data = bytearray()
        self._refused: Drain | None = None

    def write(self, piece: memoryview) -> None:
        """Gather, below the limit."""
        if self._refused is None and len(self._data) + len(piece) > MOST_BYTES:
            self._refused = Drain(Reply(Status.RESOURCE_LIMIT, f"more than {MOST_BYTES >> 20} MB in one request"))
            self._data.clear()
        if self._refused is None:
            self._data += piece
        else:
            self._refused.write(piece)

    def finish(self) -> Reply:
        """Keep the request, then accept it."""
        if self._refused is not None:
            return self._refused.finish()
        try:
            request = read_request(bytes(self._data), self._transfer, self._caller)
        except Refusal:
            return Reply(Status.INVALID_ARGUMENT, "the request cannot be read")
        if not request.transaction or not request.references or not all(map(all, request.references)):
            return Reply(Status.INVALID_ARGUMENT, "the request lacks its Transaction UID or a reference")
        try:
            number = self._spool.ask(request)
        except SpoolFull as error:
            return Reply(Status.RESOURCE_LIMIT, "no room for the request", note={"detail": str(error)})
        except Exception as error:  # the boundary: whatever fails here is an answer to this operation
            logger.error("a storage commitment request could not be kept", exc_info=error)
            return Reply(Status.PROCESSING_FAILURE, "the request could not be kept")
        action = {Tag.ACTION: REQUEST.to_bytes(2, "little")}
        return Reply(Status.SUCCESS, "", action, {"commitment": number, "references": len(request.references)})

    def discard(self) -> None:
        """Nothing was kept."""


def read_request(data: bytes, transfer: str, caller: Caller) -> CommitmentRequest:
    """Action information of PS3.4 table J.3-1. Raises Refusal where it cannot be read."""
    encoding = Encoding(implicit=transfer == IMPLICIT, little=transfer != BIG_ENDIAN)
    header = Header(memoryview(data), (0, len(data)), encoding, LIMITS)
    references = tuple(
        (item.text("ReferencedSOPClassUID"), item.text("ReferencedSOPInstanceUID"))
        for item in header.items("ReferencedSOPSequence")
    )
    return CommitmentRequest(header.text("TransactionUID"), caller.ae, caller.address, references)

"""Answers to storage commitment requests: N-EVENT-REPORT on an association of our own (PS3.4 J.3.3)."""

import ipaddress
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import build_role
from pynetdicom.presentation import build_context

from edgecxr.errors import EdgeCxrError, SendError
from edgecxr.runtimes.node.caller import call
from edgecxr.runtimes.node.config import DicomSection, PeerSection
from edgecxr.runtimes.node.lines import Calls, Peer, tls_context
from edgecxr.runtimes.node.outbox import FIRST_S, POLL_S, delay_s

if TYPE_CHECKING:
    from edgecxr.runtimes.node.commitments import Commitment, CommitmentRequest
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["CommitmentReporter", "event_information"]

LOG = logging.getLogger(__name__)
PUSH_MODEL = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model SOP Class
PUSH_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known instance
ALL_STORED, SOME_FAILED = 1, 2  # event types (PS3.4 J.3.3.1)
NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0112, 0x0119  # Failure Reason (PS3.3 C.14.1.1)


class CommitmentReporter(threading.Thread):
    """Tells each modality what became of the images that it asked about, in a thread of its own for each.

    A modality is reached at the host and port that the configuration gives for its AE title; where the host is a
    network or not given, at the address it asked from. Without a port it cannot be reached: its request is kept, and
    counted in `unreachable`.
    """

    def __init__(self, spool: "Spool", section: DicomSection, *, timeout_s: float = 30.0) -> None:
        """Raises ConfigError when certificates cannot be loaded."""
        super().__init__(name="commitment-reporter", daemon=True)
        self.spool = spool
        self.section = section
        self.timeout_s = timeout_s
        self.reported = 0
        self.unreachable: set[int] = set()  # requests of modalities without a configured port
        self._tls = tls_context(section.tls) if section.tls else None
        self._calls = Calls()
        self._stopping = threading.Event()
        self._callers: dict[str, threading.Thread] = {}  # by the AE title of the modality
        self._lock = threading.Lock()

    def run(self) -> None:
        """Report until stopped."""
        while not self._stopping.is_set():
            pause = POLL_S
            try:
                self._call_who_waits()
            except Exception:
                LOG.exception("storage commitment: a fault of ours")
                pause = FIRST_S
            self._stopping.wait(pause)
        for caller in self._callers.values():
            caller.join()

    def stop(self) -> None:
        """End; a report under way is cut off and stays due."""
        self._stopping.set()
        self._calls.end()
        if self.ident is not None:
            self.join()

    def _call_who_waits(self) -> None:
        """A thread for each modality that has something due and is not being called: one that hangs delays none."""
        self._callers = {title: caller for title, caller in self._callers.items() if caller.is_alive()}
        batches: dict[str, list[Commitment]] = {}
        for commitment in self.spool.asked_due(time.time(), without=tuple(self._callers)):
            batches.setdefault(commitment.request.calling_ae, []).append(commitment)
        for title, batch in batches.items():
            caller = threading.Thread(target=self._answer_all, args=(batch,), name="commitment-caller", daemon=True)
            self._callers[title] = caller
            caller.start()

    def _answer_all(self, batch: "Sequence[Commitment]") -> None:
        try:
            for commitment in batch:
                if not self._stopping.is_set():
                    self._answer(commitment)
        except Exception:
            LOG.exception("storage commitment: a fault of ours")
            self._stopping.wait(FIRST_S)

    def _answer(self, commitment: "Commitment") -> None:
        try:
            peer = self._peer(commitment.request)
            if peer is None:
                self.unreachable.add(commitment.id)
                raise SendError(
                    f"no port is configured for {commitment.request.calling_ae} (dicom.peers: ae, host, port),"
                    " so that its storage commitment report waits"
                )
            self._report(peer, commitment.request)
        except EdgeCxrError as error:
            if self._stopping.is_set():
                return
            wait = delay_s(commitment.attempts + 1)
            LOG.warning("storage commitment %d, again in %.0f s: %s", commitment.id, wait, error)
            self.spool.postpone_answer(commitment.id, str(error), time.time() + wait)
            return
        self.spool.answered(commitment.id)
        self.unreachable.discard(commitment.id)
        with self._lock:
            self.reported += 1

    def _peer(self, request: "CommitmentRequest") -> Peer | None:
        section = _configured(self.section.peers, request)
        if section is None or section.port is None:
            return None
        return Peer(section.ae, _host(section) or request.address, section.port, self._tls)

    def _report(self, peer: Peer, request: "CommitmentRequest") -> None:
        """Raises SendError unless the modality takes the report."""
        kind, information = event_information(self.spool, request)
        contexts = [build_context(PUSH_MODEL, ImplicitVRLittleEndian)]
        roles = [build_role(PUSH_MODEL, scu_role=False, scp_role=True)]
        with call(
            peer, self.section.ae, contexts, timeout_s=self.timeout_s, calls=self._calls, roles=roles
        ) as established:
            answer, _ = established.association.send_n_event_report(
                information, kind, PUSH_MODEL, PUSH_INSTANCE, msg_id=1
            )
            if "Status" not in answer:
                raise SendError(f"{peer}: {established.fault or 'no answer to the report'}")
            if answer.Status != 0:
                raise SendError(f"{peer}: the report was answered with status 0x{answer.Status:04X}")


def event_information(spool: "Spool", request: "CommitmentRequest") -> tuple[int, Dataset]:
    """Event type and information of a request as the spool stands now (PS3.4 table J.3-2)."""
    stored, failed = [], []
    for sop_class, sop_instance in request.references:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = sop_instance
        if spool.is_durable(sop_class, sop_instance):
            stored.append(item)
            continue
        others = [image.sop_class for image in spool.find(sop_instance)]
        item.FailureReason = CLASS_CONFLICT if others and sop_class not in others else NO_SUCH_INSTANCE
        failed.append(item)
    information = Dataset()
    information.TransactionUID = request.transaction
    if stored:
        information.ReferencedSOPSequence = Items(stored)
    if failed:
        information.FailedSOPSequence = Items(failed)
    return (SOME_FAILED if failed else ALL_STORED), information


def _configured(peers: Sequence[PeerSection], request: "CommitmentRequest") -> PeerSection | None:
    """The peer of this AE title; of several the one whose host or network the request came from."""
    named = [peer for peer in peers if peer.ae.strip() == request.calling_ae.strip()]
    return next((peer for peer in named if _covers(peer, request.address)), named[0] if named else None)


def _covers(peer: PeerSection, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(peer.host or "0.0.0.0/0", strict=False)
    except ValueError:
        return peer.host == address


def _host(section: PeerSection) -> str | None:
    """The configured host, where it is one and not a network."""
    return section.host if section.host and "/" not in section.host else None

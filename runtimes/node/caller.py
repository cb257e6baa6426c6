"""Associations that the node opens (PS3.8), over pynetdicom: connected, bounded in time, and never left behind.

pynetdicom connects without telling why it could not, and sends without a time limit. So the connection (TCP, TLS) is
made by `lines` and handed to it: errors keep the words of the system or the peer, a peer that stops reading is noticed,
and `Calls.end` cuts every connection of an owner that stops.
"""

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from pynetdicom import AE, Association, _config, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from edgecxr.errors import SendError
from edgecxr.runtimes.node.lines import Calls, Peer, connect, words
from edgecxr.runtimes.node.pdu import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION

__all__ = ["Call", "Peer", "call"]

_config.LOG_HANDLER_LEVEL = "none"  # it formats every PDU for a log that nobody reads
_config.STORE_SEND_CHUNKED_DATASET = True  # a path is sent as it lies on disk: never parsed, never decoded
LIBRARY_LOG = logging.getLogger("pynetdicom")
if LIBRARY_LOG.level == logging.NOTSET:
    LIBRARY_LOG.setLevel(logging.CRITICAL + 1)  # what matters is in the errors raised here; its log has identifiers

ANSWER_LIMIT = 16 << 20  # bytes of one PDU; answers to what the node asks have some hundred
JOIN_S = 5.0  # its threads end within milliseconds once the socket is shut


@dataclass(frozen=True)
class Call:
    """An established association; `fault` says why it ended, once it has."""

    association: Any
    wire: "_Wire"

    @property
    def alive(self) -> bool:
        """Whether more can be sent over it."""
        return bool(self.association.is_established) and not self.fault

    @property
    def fault(self) -> str:
        """What the connection died of; "" while it is sound."""
        return self.wire.fault


@contextmanager
def call(
    peer: Peer,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    *,
    timeout_s: float,
    calls: Calls | None = None,
    roles: Sequence[Any] = (),
) -> Iterator[Call]:
    """An association with `peer` over at most 128 contexts, released in the end.

    `timeout_s` bounds connecting, each answer to a negotiation, and silence of a peer in the middle of anything.
    Raises SendError with the peer's own words.
    """
    owner = calls or Calls()
    line = connect(peer, timeout_s, owner)
    association = wire = None
    try:
        application = _Application(calling_ae, line)
        application.acse_timeout = application.dimse_timeout = timeout_s
        application.network_timeout = None  # idle time between our own requests is ours
        handlers = [(evt.EVT_PDU_RECV, _note_abort)]
        host, port = line.getpeername()[:2]
        asked = monotonic()
        association = application.associate(
            host, port, list(contexts), peer.ae, ext_neg=list(roles), evt_handlers=handlers
        )
        wire = application.wire
        if not association.is_established:
            raise SendError(f"{peer}: {_why_not(association, wire, monotonic() - asked, timeout_s)}")
        yield Call(association, wire)
        if association.is_established:
            association.release()
    except OSError as error:
        raise SendError(f"{peer}: {words(error)}") from error
    finally:
        _close(line, association)
        owner.remove(line)


class _Wire(AssociationSocket):  # type: ignore[misc]  # pynetdicom has no types
    """pynetdicom's socket over a connection that is already made; each wait for the peer is bounded."""

    def __init__(self, association: Any, line: socket.socket, address: AddressInformation) -> None:
        self._line = line
        self.fault = ""
        super().__init__(association, address=address)

    def _create_socket(self, address: AddressInformation) -> socket.socket:
        return self._line

    def connect(self, primitive: T_CONNECT) -> None:
        """Tell the state machine that the transport is there (PS3.8 9.2, AE-1 and AE-2)."""
        self._is_connected = True
        primitive.result = "Evt2"
        self.provider_queue.put(primitive)
        self._ready.set()

    def send(self, bytestream: bytes) -> None:
        """Send all; a peer that takes nothing for the timeout ends the connection."""
        rest = memoryview(bytestream)
        try:
            while len(rest):
                rest = rest[self._line.send(rest) :]
        except OSError as error:
            self.fault = self.fault or f"sending: {words(error)}"
            self.event_queue.put("Evt17")

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or what came before the peer hung up. Raises OSError."""
        if nr_bytes > ANSWER_LIMIT:
            self.fault = self.fault or f"the peer announces an answer of {nr_bytes:,} bytes"
            raise OSError(self.fault)
        buffer = bytearray(nr_bytes)
        filled = 0
        try:
            while filled < nr_bytes and (count := self._line.recv_into(memoryview(buffer)[filled:])):
                filled += count
        except OSError as error:
            self.fault = self.fault or f"receiving: {words(error)}"
            raise
        if filled < nr_bytes:
            self.fault = self.fault or "the peer closed the connection"
        return buffer[:filled]


class _Application(AE):  # type: ignore[misc]  # pynetdicom has no types
    """An application entity for one association over one connection."""

    wire: _Wire

    def __init__(self, title: str, line: socket.socket) -> None:
        super().__init__(title)
        self.implementation_class_uid = IMPLEMENTATION_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION
        self._line = line

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: object) -> _Wire:
        self.wire = _Wire(assoc, self._line, address)
        _keep_answers(assoc.dimse)
        return self.wire


def _keep_answers(messages: Any) -> None:
    """Let only who waits for an answer take it.

    pynetdicom 3.0.4 pauses its reactor while a request is under way, but a reactor that is just waking up runs one
    more round: it takes the answer off the queue and drops it, and the request times out. On a busy machine that
    happens once in some hundred requests. We serve nobody, so the reactor has nothing to take at all.
    """
    take = messages.get_msg
    messages.get_msg = lambda block=False: take(block=True) if block else (None, None)


def _note_abort(event: Any) -> None:
    pdu = event.pdu
    if type(pdu).__name__ == "A_ABORT_RQ":
        wire = event.assoc.dul.socket
        reason = f" ({pdu.reason_str.strip()})" if pdu.source == 2 and pdu.reason_str else ""
        wire.fault = wire.fault or f"the peer aborted the association{reason}"


def _why_not(association: Any, wire: _Wire, waited_s: float, timeout_s: float) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"association refused: {answer.result_str}, {answer.source_str}: {answer.reason_str}"
    if wire.fault:
        return wire.fault
    if answer is not None:
        return "the peer accepts none of the object classes and transfer syntaxes"
    if waited_s < timeout_s:
        return "the peer closed the connection without an answer to the association request"
    return f"no answer to the association request within {timeout_s:g} s"


def _close(line: socket.socket, association: Any) -> None:
    """Shut the connection and wait for both threads of the association."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    if association is not None:
        association.dul.kill_dul()
        association._kill = True
        association._reactor_checkpoint.set()
        for thread in (association.dul, association):
            if thread.ident is not None:
                thread.join(JOIN_S)
    line.close()

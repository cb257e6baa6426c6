"""Reading under deadlines, and the negotiation of contexts."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from edgecxr.runtimes.node import association
from edgecxr.runtimes.node.association import Closed, Wire, negotiate, objection, read_request
from edgecxr.runtimes.node.pdu import AbortReason, AssociateRequest, PduError, ProposedContext, Rejection, Verdict

OFFERED = {"1.1": ("2.1", "2.2"), "1.2": ("2.3",)}


def a_request(*contexts: ProposedContext, roles: dict[str, tuple[bool, bool]] | None = None) -> AssociateRequest:
    return AssociateRequest(1, "US", "THEM", bytes(32), "1.2.840.10008.3.1.1.1", contexts, roles=roles or {})


@pytest.mark.parametrize(
    ("abstract", "transfers", "verdict", "transfer"),
    [
        ("1.1", ("2.1",), Verdict.ACCEPTED, "2.1"),
        ("1.1", ("2.9", "2.2", "2.1"), Verdict.ACCEPTED, "2.2"),  # their order
        ("1.2", ("2.1", "2.2"), Verdict.TRANSFER_SYNTAXES, "2.1"),
        ("1.2", (), Verdict.TRANSFER_SYNTAXES, ""),
        ("1.9", ("2.1",), Verdict.ABSTRACT_SYNTAX, "2.1"),
        ("", (), Verdict.ABSTRACT_SYNTAX, ""),
    ],
)
def test_a_context_is_answered(abstract: str, transfers: tuple[str, ...], verdict: Verdict, transfer: str) -> None:
    (answer,) = negotiate(a_request(ProposedContext(1, abstract, transfers)), OFFERED)
    assert (answer.number, answer.verdict, answer.transfer) == (1, verdict, transfer)


@pytest.mark.parametrize(("role", "taken"), [((True, False), True), ((True, True), True), ((False, True), False)])
def test_a_peer_that_wants_to_be_provider_only_is_not_served(role: tuple[bool, bool], taken: bool) -> None:
    (answer,) = negotiate(a_request(ProposedContext(1, "1.1", ("2.1",)), roles={"1.1": role}), OFFERED)
    assert answer.verdict is (Verdict.ACCEPTED if taken else Verdict.USER_REJECTED)


def test_another_version_and_another_application_are_objected_to() -> None:
    assert objection(a_request()) is None
    assert objection(AssociateRequest(2, "", "", b"", "1.2.840.10008.3.1.1.1")) is Rejection.PROTOCOL_VERSION
    assert objection(AssociateRequest(3, "", "", b"", "1.2.840.10008.3.1.1.1")) is None
    assert objection(AssociateRequest(1, "", "", b"", "1.2.3")) is Rejection.APPLICATION_CONTEXT


@pytest.fixture
def wires() -> Iterator[tuple[Wire, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield Wire(here), there


def test_bytes_come_out_as_they_went_in_whatever_the_pieces(wires: tuple[Wire, socket.socket]) -> None:
    wire, there = wires
    data = bytes(range(256)) * 4000

    def send() -> None:
        for start in range(0, len(data), 7777):
            there.sendall(data[start : start + 7777])

    thread = threading.Thread(target=send)
    thread.start()
    wire.pace(20)
    first = wire.read(10)
    wire.enlarge()
    assert first + wire.read(100_000) + wire.read(1) + wire.read(len(data) - 100_011) == data
    thread.join()


def test_silence_ends_a_read(wires: tuple[Wire, socket.socket]) -> None:
    wire, _ = wires
    wire.pace(0.05)
    with pytest.raises(TimeoutError):
        wire.read(1)


def test_a_trickle_ends_a_read_though_it_never_is_silent(wires: tuple[Wire, socket.socket]) -> None:
    wire, there = wires
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.02):
            there.send(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        for slowest in (0, 1 << 20):
            wire.pace(0.3, slowest)
            with pytest.raises(TimeoutError, match=r"too slow|timed out"):
                wire.read(1 << 20)
    finally:
        stop.set()
        thread.join()


def test_another_thread_ends_a_read(wires: tuple[Wire, socket.socket]) -> None:
    wire, _ = wires
    threading.Timer(0.05, wire.wake).start()
    with pytest.raises(Closed, match="closed"):
        wire.read(1)


def test_another_thread_ends_reading_though_bytes_keep_coming(wires: tuple[Wire, socket.socket]) -> None:
    wire, there = wires
    there.sendall(b"xx")
    wire.interrupt()
    with pytest.raises(Closed, match="closed"):
        wire.read(1)


@pytest.mark.parametrize(
    ("head", "reason", "match"),
    [
        (b"\1\0\xff\xff\xff\xff", AbortReason.INVALID_PARAMETER, "4,294,967,295 bytes is declared; 262,144"),
        (b"\4\0\0\0\0\4", AbortReason.UNEXPECTED_PDU, "type 0x04"),
        (b"GET / ", AbortReason.UNRECOGNIZED_PDU, "type 0x47"),
        (b"\1\0\0\0\0\0", AbortReason.INVALID_PARAMETER, "of 0 bytes"),
    ],
)
def test_what_is_no_request_is_not_read_on(
    wires: tuple[Wire, socket.socket], head: bytes, reason: AbortReason, match: str
) -> None:
    wire, there = wires
    there.sendall(head)
    with pytest.raises(PduError, match=match) as caught:
        read_request(wire)
    assert caught.value.reason is reason


def test_the_last_word_arrives_though_bytes_are_unread(wires: tuple[Wire, socket.socket]) -> None:
    wire, there = wires
    there.sendall(bytes(50_000))
    there.shutdown(socket.SHUT_WR)
    wire.hang_up(b"last word")
    assert there.recv(100) == b"last word"
    assert there.recv(100) == b""
    wire.hang_up(b"again")  # harmless


def test_the_buffer_does_not_grow(wires: tuple[Wire, socket.socket]) -> None:
    wire, there = wires
    there.sendall(struct.pack(">BxL", 1, association.MOST_REQUEST))
    wire.pace(0.05)
    with pytest.raises(TimeoutError):
        read_request(wire)
    assert len(wire._buffer) == association.SMALL

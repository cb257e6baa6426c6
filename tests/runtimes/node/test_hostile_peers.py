"""Peers that mean harm, or whose link has died: the receiver stays up, its memory stays flat, and others are served."""

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
from waiting import until

from edgecxr.runtimes.node.peers import LEAVING

VERIFICATION, EXPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
ABORT = 7


def served(node: Any, calling: bytes = b"GOOD") -> bool:
    """Whether a good peer is: association, C-ECHO, C-STORE, release."""
    with node.peer() as peer:
        peer.associate(calling=calling, contexts={DX: (EXPLICIT,), VERIFICATION: (EXPLICIT,)})
        assert peer.echo() == 0
        peer.send(peer.store(DX, "1.2.3") + b"\4\0\0\0\0\x0e" + peer.value(b"\x10\0\x10\0PN\0\0", control=2))
        assert peer.status() == 0
        peer.send(b"\5\0\0\0\0\4\0\0\0\0")
        return bool(peer.answer()[0] == 6)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def crowd(listening: Callable[..., Any]) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("count", [1, 12, 200])
def test_silent_connections(listening: Callable[..., Any], crowd: ExitStack, count: int) -> None:
    node = listening(max_connections=64, max_associations=16)
    for _ in range(count):
        crowd.enter_context(node.peer())
        if count < 64:
            continue
        assert node.receiver.statistics()["connections_open"] <= 64 + LEAVING
    assert served(node)
    assert (node.receiver.statistics()["evicted"] > 0) is (count > 64)


@pytest.mark.parametrize("titles", ["one title", "a title each"])
def test_silent_associations(
    listening: Callable[..., Any], crowd: ExitStack, titles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.peers.SPARED_S", 0.0)
    node = listening(max_associations=8, max_associations_per_peer=4)
    for number in range(12):
        peer = crowd.enter_context(node.peer())
        peer.associate(calling=b"S%d" % number if titles == "a title each" else b"S")
    assert served(node)
    assert served(node, b"S")
    assert node.receiver.statistics()["rejected"] == 0


def test_silent_associations_are_aborted_in_the_end(listening: Callable[..., Any]) -> None:
    node = listening(idle_timeout_s=0.2)
    with node.peer() as peer:
        peer.associate()
        assert peer.answer()[0] == ABORT
    until(lambda: node.receiver.statistics()["timeouts"] == 1)


def test_an_empty_fragment_begins_a_message_that_has_to_go_on(listening: Callable[..., Any]) -> None:
    node = listening(idle_timeout_s=300, transfer_timeout_s=0.2)
    with node.peer() as peer:
        peer.associate(contexts={VERIFICATION: (EXPLICIT,)})
        peer.send(b"\4\0\0\0\0\6" + peer.value(b"", control=1))
        assert peer.answer()[0] == ABORT
    until(lambda: node.receiver.statistics()["timeouts"] == 1)


def test_empty_fragments_without_end_are_no_message(listening: Callable[..., Any]) -> None:
    node = listening()
    with node.peer() as peer:
        peer.associate(contexts={VERIFICATION: (EXPLICIT,)})
        with contextlib.suppress(OSError):
            peer.send((b"\4\0\0\0\0\6" + peer.value(b"", control=1)) * 1000)
    until(lambda: node.receiver.statistics()["protocol_errors"] == 1)


def test_a_silent_connection_is_closed_in_the_end(listening: Callable[..., Any]) -> None:
    with listening(request_timeout_s=0.2).peer() as peer:
        assert peer.answer() == (0, b"")


def test_a_request_that_trickles_in_is_closed_in_the_end(listening: Callable[..., Any]) -> None:
    with listening(request_timeout_s=0.5).peer() as peer:
        peer.sock.settimeout(0.02)
        with contextlib.suppress(ConnectionError):
            for byte in peer.request() * 1000:
                peer.send(bytes((byte,)))
                with contextlib.suppress(TimeoutError):
                    if not peer.sock.recv(1):
                        return
        assert peer.sock.fileno() >= 0


def test_a_transfer_that_stalls_or_trickles_is_aborted_and_leaves_nothing(listening: Callable[..., Any]) -> None:
    node = listening(transfer_timeout_s=0.3)
    for trickle in (False, True):
        with node.peer() as peer:
            peer.associate(contexts={DX: (EXPLICIT,)})
            peer.send(peer.store(DX, "1.2.3"))
            peer.sock.settimeout(0.02 if trickle else 20)
            for _ in range(2000):
                with contextlib.suppress(ConnectionError):
                    peer.send(b"\4\0\0\0\0\x07" + peer.value(b"\0"))
                with contextlib.suppress(TimeoutError):
                    assert peer.sock.recv(1) in (bytes((ABORT,)), b"")
                    break
            else:
                pytest.fail("the trickle was never aborted")
        assert served(node)
    until(lambda: list((node.spool.folder / "incoming").iterdir()) == [])
    until(lambda: node.receiver.statistics()["timeouts"] == 2)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, (1 << 18) + 7])
def test_a_pdu_that_is_declared_too_large_is_aborted_at_once(listening: Callable[..., Any], length: int) -> None:
    node = listening()
    before = resident_bytes()
    for kind in (1, 4):
        with node.peer() as peer:
            if kind == 4:
                peer.associate()
            peer.send(struct.pack(">BxL", kind, length) + bytes(60_000))
            assert peer.answer()[0] == ABORT
    assert served(node)
    assert resident_bytes() - before < 50e6


def test_a_request_as_long_as_it_may_be_costs_no_more_than_it_sends(listening: Callable[..., Any]) -> None:
    node = listening()
    with node.peer() as peer:
        peer.send(struct.pack(">BxL", 1, 1 << 18) + bytes(1 << 18))
        assert peer.answer()[0] in (3, ABORT)
    assert served(node)


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS hello
        b"\0" * 100,
        b"\xff" * 100,
        b"\1\0\0\0\0\x44" + b"\xff" * 68,
        b"\1\0\0\0\0\x00",
        b"\5\0\0\0\0\4\0\0\0\0",
        b"\4\0\0\0\0\x06\0\0\0\2\1\3",
        b"\7\0\0\0\0\4\0\0\0\0",
        b"",
    ],
    ids=lambda noise: noise[:6].hex() or "nothing",
)
def test_noise_is_hung_up_on(listening: Callable[..., Any], noise: bytes) -> None:
    node = listening()
    with node.peer() as peer:
        peer.send(noise)
        peer.sock.shutdown(socket.SHUT_WR)
        kind, _ = peer.answer()
        assert kind in (0, 3, ABORT)
    assert served(node)
    assert node.receiver.statistics()["faults"] == 0


def test_noise_on_an_association_is_aborted(listening: Callable[..., Any]) -> None:
    node = listening()
    for noise in (b"\xff" * 50, b"\1\0\0\0\0\0", b"\2\0\0\0\0\0", b"\0" * 6, b"\4\0\0\0\0\5abcde"):
        with node.peer() as peer:
            peer.associate()
            peer.send(noise)
            assert peer.answer()[0] == ABORT
    assert served(node)


def test_a_command_set_without_end_is_aborted(listening: Callable[..., Any]) -> None:
    node = listening()
    with node.peer() as peer:
        peer.associate()
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                peer.send(struct.pack(">BxL", 4, 10_006) + peer.value(bytes(10_000), control=1))
        assert peer.answer()[0] in (ABORT, 0)
    until(lambda: node.receiver.statistics()["protocol_errors"] == 1)
    assert served(node)


def test_a_hundred_half_transfers_leave_nothing(listening: Callable[..., Any]) -> None:
    node = listening()
    for number in range(100):
        with node.peer() as peer:
            peer.associate(contexts={DX: (EXPLICIT,)})
            peer.send(
                peer.store(DX, "1.2.4") + struct.pack(">BxL", 4, 10_006) + peer.value(bytes(10_000))[: 100 * number]
            )
    assert served(node)
    node.receiver.stop(10)
    assert list((node.spool.folder / "incoming").iterdir()) == []
    assert not node.spool.find("1.2.4")


def test_a_peer_that_never_reads_its_answers_is_given_up(listening: Callable[..., Any]) -> None:
    node = listening(transfer_timeout_s=0.3)
    with node.peer() as peer:
        peer.associate()
        echo = peer.message(
            {0x0002: VERIFICATION.encode() + b"\0", 0x0100: b"\x30\0", 0x0110: b"\1\0", 0x0800: b"\1\1"}
        )
        peer.sock.settimeout(2)
        with contextlib.suppress(OSError):
            for _ in range(2000):
                peer.send(echo * 1000)
    assert served(node)


def test_load_balancers_that_connect_and_leave(listening: Callable[..., Any]) -> None:
    node = listening()
    for _ in range(300):
        with node.peer():
            pass
    assert served(node)
    node.receiver.stop(10)
    assert node.receiver.statistics()["connections_open"] == 0


def test_a_damaged_session_is_never_a_fault_of_ours(listening: Callable[..., Any]) -> None:
    node = listening(transfer_timeout_s=5, idle_timeout_s=20, request_timeout_s=20)
    random = Random(5)
    with node.peer() as peer:
        data = peer.value(b"\x10\0\x10\0PN\4\0Ab^C", control=2)
        session = peer.request(contexts={DX: (EXPLICIT,), VERIFICATION: (EXPLICIT,)})
        session += peer.store(DX, "1.2.5") + struct.pack(">BxL", 4, len(data)) + data
        session += peer.message({0x0100: b"\x30\0", 0x0110: b"\1\0", 0x0800: b"\1\1"}) + b"\5\0\0\0\0\4\0\0\0\0"
    for _ in range(300):
        damaged = bytearray(session)
        for _ in range(random.randint(1, 6)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        with node.peer() as peer, contextlib.suppress(ConnectionError):
            peer.send(bytes(damaged))
            peer.sock.shutdown(socket.SHUT_WR)
            while peer.read(4096):
                pass
    assert node.receiver.statistics()["faults"] == 0
    assert served(node)

"""The receiver as peers see it: dcmtk, pynetdicom and raw sockets, plain and over TLS."""

import logging
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_fragments
from pydicom.errors import InvalidDicomError
from pynetdicom import AE
from waiting import until

from edgecxr.errors import ConfigError
from edgecxr.runtimes.node.config import DicomSection
from edgecxr.runtimes.node.pdu import IMPLEMENTATION_UID
from edgecxr.runtimes.node.receiver import Receiver
from edgecxr.runtimes.node.storage import CLASSES

VERIFICATION, EXPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
RELEASE = b"\5\0\0\0\0\4\0\0\0\0"
PATIENCE_S = 120


def test_an_echo_and_a_release(listening: Callable[..., Any]) -> None:
    node = listening()
    caller = AE(ae_title="ECHO")
    caller.add_requested_context(VERIFICATION)
    association = caller.associate("127.0.0.1", node.port)
    assert association.acceptor.implementation_class_uid == IMPLEMENTATION_UID
    assert association.acceptor.maximum_length == 1 << 18
    assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released
    until(lambda: node.receiver.statistics()["echoes"] == 1)


def test_many_associations_one_after_the_other_leave_nothing_open(listening: Callable[..., Any]) -> None:
    node = listening()
    for _ in range(50):
        with node.peer() as peer:
            peer.associate()
            assert peer.echo() == 0
            peer.send(RELEASE)
            assert peer.answer() == (6, bytes(4))
            assert peer.answer() == (0, b"")
    node.receiver.stop(10)
    statistics = node.receiver.statistics()
    assert (statistics["associations"], statistics["connections_open"], statistics["aborted"]) == (50, 0, 0)


@pytest.mark.parametrize(
    ("section", "request_", "expected"),
    [
        ({"check_called_ae": True}, {"called": b"OTHER"}, (1, 1, 7)),
        ({"peers": [{"ae": "KNOWN"}]}, {}, (1, 1, 3)),
        ({"peers": [{"ae": "RAW", "host": "10.0.0.0/8"}]}, {}, (1, 1, 3)),
        ({}, {"version": 2}, (1, 2, 2)),
        ({}, {"application": b"1.2.3"}, (1, 1, 2)),
    ],
)
def test_who_is_rejected_is_told_why(
    listening: Callable[..., Any], section: dict[str, Any], request_: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    node = listening(**section)
    with node.peer() as peer:
        peer.send(peer.request(**request_))
        assert peer.answer() == (3, bytes((0, *expected)))
        assert peer.answer() == (0, b"")
    until(lambda: node.receiver.statistics()["rejected"] == 1)


@pytest.mark.parametrize(
    ("section", "called"),
    [
        ({}, b"OTHER"),
        ({"check_called_ae": True, "ae": "NODE"}, b"NODE"),
        ({"peers": [{"ae": "RAW", "host": "127.0.0.0/8"}]}, b"X"),
    ],
)
def test_who_may_is_accepted(listening: Callable[..., Any], section: dict[str, Any], called: bytes) -> None:
    with listening(**section).peer() as peer:
        body = peer.associate(called=called)
        assert body[4:20] == called.ljust(16)
        assert peer.echo() == 0


def test_an_association_too_many_is_rejected_for_now(listening: Callable[..., Any]) -> None:
    node = listening(max_associations=2)
    with node.peer() as first, node.peer() as second, node.peer() as third:
        for number, peer in enumerate((first, second)):
            peer.associate(calling=b"A%d" % number, contexts={DX: (EXPLICIT,)})
            peer.send(peer.store(DX, "1.2.3"))  # under way
            peer.send(b"\4\0\0\0\0\x08" + peer.value(b"\0\0"))
        until(lambda: not any(one.resting_since for one in node.receiver._table._all[:2]))
        third.send(third.request(calling=b"A3"))
        assert third.answer() == (3, bytes((0, 2, 3, 2)))


def test_a_peer_that_breaks_off_leaves_nothing(listening: Callable[..., Any]) -> None:
    node = listening()
    for last_word in (b"", b"\7\0\0\0\0\4\0\0\0\0"):
        with node.peer() as peer:
            peer.associate(contexts={DX: (EXPLICIT,)})
            peer.send(peer.store(DX, "1.2.3") + b"\4\0\0\0\x03\xec" + peer.value(bytes(998)) + last_word)
    until(lambda: node.receiver.statistics()["aborted"] == 2)
    until(lambda: list((node.spool.folder / "incoming").iterdir()) == [])
    assert node.spool.find("1.2.3") == []


def test_the_log_names_peers_and_statuses_but_no_patient(
    listening: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edgecxr")
    node = listening()
    name = b"\x10\0\x10\0PN\x08\0Doe^Jane"
    with node.peer() as peer:
        peer.associate(contexts={DX: (EXPLICIT,)})
        peer.send(peer.store(DX, "1.2.3") + b"\4\0\0\0\0\x16" + peer.value(name, control=2))
        assert peer.status() == 0
    node.receiver.stop(10)
    (stored,) = (record for record in caplog.records if record.getMessage() == "an operation was answered")
    told = vars(stored)
    assert (told["ae"], told["address"], told["status"], told["bytes"]) == ("RAW", "127.0.0.1", "0x0000", 16)
    assert told["syntax"] == EXPLICIT
    assert all("Doe" not in str(vars(record)) and "1.2.3'" not in str(vars(record)) for record in caplog.records)


def test_a_stop_lets_a_transfer_finish_and_ends_who_rests(listening: Callable[..., Any]) -> None:
    node = listening()
    with node.peer() as resting, node.peer() as busy, node.peer() as stranger:
        resting.associate()
        busy.associate(contexts={DX: (EXPLICIT,)})
        busy.send(busy.store(DX, "1.2.3") + b"\4\0\0\0\0\x08" + busy.value(b"\0\0"))
        until(lambda: list((node.spool.folder / "incoming").iterdir()))
        stopping = threading.Thread(target=node.receiver.stop, args=(PATIENCE_S,))
        stopping.start()
        assert resting.answer()[0] == 7
        assert stranger.answer() == (0, b"")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE_S)
        busy.send(b"\4\0\0\0\0\x08" + busy.value(b"\0\0", control=2))
        assert busy.status() == 0
        assert busy.answer()[0] == 7
        for peer in (resting, busy):
            peer.sock.close()
        stopping.join(PATIENCE_S)
    assert node.spool.is_durable(DX, "1.2.3")


def test_a_stop_aborts_a_transfer_that_outlasts_its_grace(listening: Callable[..., Any]) -> None:
    node = listening()
    with node.peer() as peer:
        peer.associate(contexts={DX: (EXPLICIT,)})
        peer.send(peer.store(DX, "1.2.3") + b"\4\0\0\0\0\x08" + peer.value(b"\0\0"))
        until(lambda: list((node.spool.folder / "incoming").iterdir()))
        stopping = threading.Thread(target=node.receiver.stop, args=(0.1,))
        stopping.start()
        assert peer.answer()[0] == 7
        peer.sock.close()
        stopping.join(PATIENCE_S)
    until(lambda: list((node.spool.folder / "incoming").iterdir()) == [])


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_one_socket_for_both_internet_protocols(listening: Callable[..., Any]) -> None:
    node = listening(host="::", peers=[{"ae": "RAW", "host": "127.0.0.1"}, {"ae": "SIX", "host": "::1"}])
    for host, calling in (("127.0.0.1", b"RAW"), ("::1", b"SIX")):
        with node.peer(host) as peer:
            peer.associate(calling=calling)
            assert peer.echo() == 0


def test_it_starts_again_after_a_stop(listening: Callable[..., Any]) -> None:
    node = listening()
    node.receiver.stop(0)
    node.receiver.start()
    with node.peer() as peer:
        peer.associate()
        assert peer.echo() == 0


def test_a_port_in_use_is_said(listening: Callable[..., Any]) -> None:
    node = listening()
    other = Receiver(node.spool, DicomSection(host="127.0.0.1", port=node.port))
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {node.port}"):
        other.start()
    other.stop()


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE_S, env=environment
    )


@pytest.mark.peers
def test_dcmtk_echoes(listening: Callable[..., Any]) -> None:
    assert run("echoscu", "-v", "127.0.0.1", listening().port).returncode == 0


@pytest.mark.peers
@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore:The value length:UserWarning:pydicom")
@pytest.mark.parametrize("options", [("-xv",), ("-xv", "+C"), ("-xv", "+C", "-pdu", "131072")])
def test_dcmtk_stores_bit_for_bit_what_its_file_holds(
    listening: Callable[..., Any], shared_dicom: Path, options: tuple[str, ...]
) -> None:
    node = listening()
    film = shared_dicom / "pylibjpeg-data__966_fixed.dcm"
    answer = run("storescu", "-v", *options, "127.0.0.1", node.port, film)
    assert answer.returncode == 0, answer.stderr
    sent = dcmread(film)
    received = dcmread(node.spool.path(node.spool.find(sent.SOPInstanceUID)[0]))
    assert received == sent
    assert received.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID


@pytest.mark.peers
@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of values that the standard does not allow
def test_every_real_and_hostile_file_is_stored_as_sent_or_reported_as_not_sent(
    listening: Callable[..., Any], shared_dicom: Path
) -> None:
    node = listening()
    sending = ("dcmsend", "-v", "+sd", "--no-halt", "--decompress-never", "127.0.0.1", node.port, shared_dicom)
    answer = run(*sending)
    successes = answer.stderr.count("Received C-STORE Response (Success)")
    assert "C-STORE Response (" not in answer.stderr.replace("C-STORE Response (Success)", "")
    statistics = node.receiver.statistics()
    assert statistics["stored"] == successes > 20
    assert statistics["refused"] == statistics["refused_full"] == statistics["faults"] == 0
    sent = pixels_by_identity(shared_dicom)
    compared = 0
    for image, _ in node.spool.listing(limit=1000):
        assert image.sop_class in CLASSES
        originals = sent.get((image.sop_instance, image.syntax), [])
        if originals:
            assert frames(dcmread(node.spool.path(image))) in originals
            compared += 1
    assert compared > 20


def frames(dataset: Dataset) -> list[bytes]:
    """Pixel data without padding: dcmtk makes fragments of odd length even before it sends them."""
    data = dataset.PixelData
    native = not dataset.file_meta.TransferSyntaxUID.is_encapsulated
    return [part.rstrip(b"\0") for part in ([data] if native else generate_fragments(data))]


def pixels_by_identity(folder: Path) -> dict[tuple[str, str], list[list[bytes]]]:
    """Pixel data of the files, by SOP Instance UID and transfer syntax; some UIDs are of several files."""
    found: dict[tuple[str, str], list[list[bytes]]] = {}
    for path in sorted(folder.iterdir()):
        try:
            dataset = dcmread(path)
            key = (str(dataset.SOPInstanceUID), str(dataset.file_meta.TransferSyntaxUID))
            found.setdefault(key, []).append(frames(dataset))
        except (InvalidDicomError, AttributeError, ValueError, struct.error, EOFError, OSError):
            continue  # hostile: no header that pydicom reads, no UID, no pixels; dcmsend reports those as not sent
    return found

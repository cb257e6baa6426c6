"""Sending to real DICOM servers: pynetdicom's here, dcmtk's and Orthanc's behind their marker."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from waiting import LONG_S, until

from edgecxr.errors import SendError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import TlsSection
from edgecxr.runtimes.node.lines import Calls, Peer, tls_context
from edgecxr.runtimes.node.sender import SendResult, send

Serve = Callable[..., Peer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(on_store)``: a PACS on a free port; `on_store(event)` gives the status of each object."""
    with ExitStack() as stack:

        def start(
            on_store: Callable[[Any], int] = lambda event: 0,
            *,
            syntaxes: list[str] | None = None,
            classes: list[str] | None = None,
            tls: ssl.SSLContext | None = None,
            called: bool = False,
        ) -> Peer:
            application = AE("PACS")
            application.require_called_aet = called
            for uid in classes or [context.abstract_syntax for context in AllStoragePresentationContexts]:
                application.add_supported_context(uid, syntaxes or [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
            server = application.start_server(
                ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)], ssl_context=tls
            )
            stack.callback(server.shutdown)
            return Peer("PACS", "127.0.0.1", server.socket.getsockname()[1])

        yield start


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    return [write_dicom(chest(number, size=64), tmp_path / f"{number}.dcm") for number in range(3)]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and "Requestor" in thread.name]
    assert left == []


def silent_listener(stack: ExitStack) -> Peer:
    """A port that takes connections and says nothing."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return Peer("PACS", "127.0.0.1", listener.getsockname()[1])


def test_files_arrive_as_they_are_over_one_association(serve: Serve, films: list[Path]) -> None:
    got: list[tuple[Any, bytes]] = []

    def keep(event: Any) -> int:
        got.append((event.assoc, event.encoded_dataset(include_meta=False)))
        return 0

    steps: list[SendResult] = []
    results = send(films, serve(keep), "EDGECXR", progress=steps.append)
    assert results == steps == [SendResult(film, 0) for film in films]
    assert len({id(association) for association, _ in got}) == 1
    for film, (_, data) in zip(films, got, strict=True):
        assert film.read_bytes().endswith(data)
        assert len(data) > 64 * 64


def test_no_answer_is_lost_among_many(serve: Serve, films: list[Path]) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads interleave as on a busy machine
    try:
        results = send(films * 50, serve(), "EDGECXR", timeout_s=LONG_S)
    finally:
        sys.setswitchinterval(interval)
    assert [result.error for result in results if not result.sent] == []


def test_a_warning_counts_as_sent_and_a_failure_does_not(serve: Serve, films: list[Path]) -> None:
    answers = iter([0xB000, 0xA700, 0x0111])
    results = send(films, serve(lambda event: next(answers)), "EDGECXR")
    assert [(result.status, result.sent) for result in results] == [(0xB000, True), (0xA700, False), (0x0111, True)]
    assert [result.error for result in results] == [
        "0xB000 taken with a warning",
        "0xA700 out of resources",
        "0x0111 the peer has it already",
    ]


def test_the_peers_comment_is_told(serve: Serve, films: list[Path]) -> None:
    def refuse(event: Any) -> pydicom.Dataset:
        answer = pydicom.Dataset()
        answer.Status = 0xA702
        answer.ErrorComment = "disk 2 is full"
        return answer

    (result,) = send(films[:1], serve(refuse), "EDGECXR")
    assert result.error == "0xA702 out of resources: 'disk 2 is full'"


def test_what_is_no_dicom_file_is_said_and_the_rest_goes(serve: Serve, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    files = [films[0], tmp_path / "notes.txt", tmp_path / "absent.dcm", films[1]]
    results = send(files, serve(), "EDGECXR")
    assert [result.sent for result in results] == [True, False, False, True]
    assert [result.file for result in results] == files
    assert "not a DICOM file (PS3.10)" in results[1].error
    assert "No such file" in results[2].error


def test_a_class_that_the_peer_does_not_take_is_said(serve: Serve, films: list[Path]) -> None:
    other = write_dicom(chest(5, size=64), films[0].with_name("other.dcm"), syntax="jpeg_lossless")
    results = send([films[0], other], serve(), "EDGECXR")
    assert [result.sent for result in results] == [True, False]
    assert results[1].error.startswith("the peer does not take ")
    assert "Image Storage" in results[1].error
    assert "(JPEG Lossless" in results[1].error


def test_a_file_without_meta_information_is_no_dicom_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").write_bytes(bytes(128) + b"DICM")
    (result,) = send([tmp_path / "empty.dcm"], serve(), "EDGECXR")
    assert result.error == "not a DICOM file (PS3.10): its meta information has no SOP class"


def test_a_peer_that_knows_only_implicit_vr_gets_implicit_vr(serve: Serve, films: list[Path]) -> None:
    got: list[pydicom.Dataset] = []

    def keep(event: Any) -> int:
        got.append(event.dataset)
        return 0

    (result,) = send(films[:1], serve(keep, syntaxes=[ImplicitVRLittleEndian]), "EDGECXR")
    assert result.sent
    assert got[0].PixelData == pydicom.dcmread(films[0]).PixelData


def test_more_than_128_pairs_of_class_and_syntax_take_a_second_association(serve: Serve, tmp_path: Path) -> None:
    source = pydicom.dcmread(write_dicom(chest(1, size=64), tmp_path / "film.dcm", syntax="implicit"))
    files = []
    for number, context in enumerate(AllStoragePresentationContexts[:130]):
        source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = context.abstract_syntax
        files.append(tmp_path / f"{number}.dcm")
        source.save_as(files[-1])
    used: list[int] = []

    def keep(event: Any) -> int:
        used.append(id(event.assoc))
        return 0

    results = send(files, serve(keep), "EDGECXR")
    assert [result.sent for result in results] == [True] * 130
    assert [used.count(association) for association in dict.fromkeys(used)] == [128, 2]


def test_a_port_that_nobody_listens_on(films: list[Path]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        peer = Peer("PACS", "127.0.0.1", unused.getsockname()[1])
        with pytest.raises(SendError, match=r"PACS@127\.0\.0\.1:\d+: Connection refused"):
            send(films, peer, "EDGECXR")


def test_a_host_that_has_no_address(films: list[Path]) -> None:
    with pytest.raises(SendError, match=r"PACS@pacs\.invalid:104: "):
        send(films, Peer("PACS", "pacs.invalid", 104), "EDGECXR")


def test_a_refused_association_is_told_in_the_peers_words(serve: Serve, films: list[Path]) -> None:
    peer = serve(called=True)
    with pytest.raises(SendError, match=r"Rejected .*: Called AE title not recognised"):
        send(films, Peer("OTHER", peer.host, peer.port), "EDGECXR")


def test_a_peer_that_takes_no_class_at_all(serve: Serve, films: list[Path]) -> None:
    peer = serve(classes=["1.2.840.10008.1.1"])
    with pytest.raises(SendError, match="accepts none of the object classes"):
        send(films, peer, "EDGECXR")


def test_a_peer_that_says_nothing(films: list[Path]) -> None:
    with ExitStack() as stack, pytest.raises(SendError, match=r"no answer to the association request within 0\.3 s"):
        send(films, silent_listener(stack), "EDGECXR", timeout_s=0.3)


def test_a_peer_that_closes_without_an_answer(films: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closing = threading.Thread(target=lambda: listener.accept()[0].close())
        closing.start()
        peer = Peer("CLOSING", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(SendError, match=r"closed the connection|reset by peer|Broken pipe"):
            send(films, peer, "EDGECXR", timeout_s=LONG_S)
        closing.join()


def test_a_peer_that_hangs_over_a_file(serve: Serve, films: list[Path]) -> None:
    release = threading.Event()
    seen: list[str] = []

    def hang(event: Any) -> int:
        seen.append(event.request.AffectedSOPInstanceUID)
        if len(seen) == 1:
            release.wait(LONG_S)
        return 0

    peer = serve(hang)
    results = send(films, peer, "EDGECXR", timeout_s=3)  # far above what a peer that does not hang needs
    release.set()
    assert [result.sent for result in results] == [False, True, True]
    # We give up and abort; where the peer closes before that is written down, its closing is what is told
    assert re.search("no answer within|the peer closed the connection", results[0].error)


def test_a_peer_that_hangs_over_everything_is_given_up(serve: Serve, films: list[Path]) -> None:
    release = threading.Event()
    peer = serve(lambda event: int(not release.wait(LONG_S)))
    results = send([*films, *films], peer, "EDGECXR", timeout_s=2)
    release.set()
    assert not any(result.sent for result in results)
    assert "given up" in results[-1].error


def test_a_peer_that_aborts(serve: Serve, films: list[Path]) -> None:
    def abort(event: Any) -> int:
        event.assoc.abort()
        return 0

    results = send(films, serve(abort), "EDGECXR", timeout_s=5)
    assert not any(result.sent for result in results)
    assert "aborted" in results[0].error or "closed" in results[0].error


def test_calls_can_be_cut_from_another_thread(serve: Serve, films: list[Path]) -> None:
    release, reached, calls = threading.Event(), threading.Event(), Calls()

    def hang(event: Any) -> int:
        reached.set()
        release.wait(LONG_S)
        return 0

    found: list[SendResult] = []
    peer = serve(hang)
    thread = threading.Thread(target=lambda: found.extend(send(films, peer, "EDGECXR", timeout_s=60, calls=calls)))
    thread.start()
    assert reached.wait(LONG_S)
    calls.end()
    thread.join(20)
    release.set()
    assert not thread.is_alive()
    assert len(found) == 3
    assert not any(result.sent for result in found)
    with pytest.raises(SendError, match="stopping"):
        send(films, peer, "EDGECXR", calls=calls)


def test_a_connection_that_is_still_being_made_can_be_cut(films: list[Path]) -> None:
    calls, found = Calls(), []

    def attempt() -> None:
        with pytest.raises(SendError) as caught:
            send(films, Peer("PACS", *listener.getsockname()), "EDGECXR", timeout_s=600, calls=calls)
        found.append(caught.value)

    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # more than it queues: the next one waits for an answer to its SYN
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        thread = threading.Thread(target=attempt)
        thread.start()
        until(lambda: calls._lines)
        calls.end()
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert len(found) == 1


def certificate(folder: Path, name: str) -> TlsSection:
    """A key and a self-signed certificate, which is its own authority."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TlsSection(certificate=folder / f"{name}.pem", key=folder / f"{name}.key", authority=None)


def test_tls_with_a_certificate_on_each_side(serve: Serve, films: list[Path], tmp_path: Path) -> None:
    ours, theirs, foreign = (certificate(tmp_path, name) for name in ("ours", "theirs", "foreign"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.certificate, theirs.key)
    context.load_verify_locations(ours.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    plain = serve(tls=context)

    def secured(mine: TlsSection, authority: Path) -> Peer:
        section = mine.model_copy(update={"authority": authority})
        return Peer(plain.ae, plain.host, plain.port, tls_context(section))

    assert all(result.sent for result in send(films, secured(ours, theirs.certificate), "EDGECXR"))
    with pytest.raises(SendError, match=r"(?i)certificate verify failed"):
        send(films, secured(ours, foreign.certificate), "EDGECXR")
    with pytest.raises(SendError):
        send(films, secured(foreign, theirs.certificate), "EDGECXR", timeout_s=5)


def wait_for(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, f"nobody listens on {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.peers
def test_storescp_of_dcmtk_takes_the_bytes(films: list[Path], tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    command = [str(shutil.which("storescp")), "+B", "--fork", "-aet", "DCMTK", "-od", str(folder), str(port)]
    with subprocess.Popen(command) as server:
        try:
            wait_for(port)
            results = send(films, Peer("DCMTK", "127.0.0.1", port), "EDGECXR")
        finally:
            server.terminate()
    assert all(result.sent for result in results)
    received = {path.read_bytes()[-64 * 64 :] for path in folder.iterdir()}
    assert received == {path.read_bytes()[-64 * 64 :] for path in films}


@pytest.mark.peers
def test_orthanc_takes_every_file(films: list[Path], tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "orthanc.json"
    folder = str(tmp_path / "db")
    settings = {"DicomPort": port, "HttpServerEnabled": False, "StorageDirectory": folder, "IndexDirectory": folder}
    configuration.write_text(json.dumps(settings))
    executable = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/sbin")
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen([str(executable), str(configuration)], stdout=log, stderr=log) as server:
        try:
            wait_for(port)
            results = send(films, Peer("ORTHANC", "127.0.0.1", port), "EDGECXR")
        finally:
            server.terminate()
    assert [result.status for result in results] == [0, 0, 0]

"""Storage commitment reports to real listeners; the spool is the real one."""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from waiting import until

from edgecxr.runtimes.node import events as events_module
from edgecxr.runtimes.node import outbox as outbox_module
from edgecxr.runtimes.node.commitments import CommitmentRequest
from edgecxr.runtimes.node.config import DicomSection, PeerSection
from edgecxr.runtimes.node.events import PUSH_INSTANCE, PUSH_MODEL, CommitmentReporter, event_information
from edgecxr.runtimes.node.images import Arrival
from edgecxr.runtimes.node.spool import Spool

DX, CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    monkeypatch.setattr(outbox_module, "FIRST_S", 0.2)
    monkeypatch.setattr(events_module, "POLL_S", 0.05)
    with ExitStack() as opened:
        yield opened


class Modality:
    """Listens for reports, and answers with `status`."""

    def __init__(self, stack: ExitStack, status: int = 0, port: int = 0) -> None:
        self.reports: list[tuple[int, Dataset]] = []
        self.callers: list[str] = []
        self.status = status
        application = AE("CONSOLE")
        application.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._report)]
        server = application.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        stack.callback(server.shutdown)
        self.port = int(server.socket.getsockname()[1])

    def _report(self, event: Any) -> tuple[int, Dataset | None]:
        assert event.request.AffectedSOPInstanceUID == PUSH_INSTANCE
        self.callers.append(event.assoc.requestor.ae_title)
        self.reports.append((event.event_type, event.event_information))
        return self.status, None


def store(spool: Spool, sop_class: str = DX) -> str:
    uid = str(generate_uid())
    with spool.part() as part:
        part.write(uid.encode())
        spool.commit(part, Arrival(sop_class, uid, "1.2.840.10008.1.2", "dicom"))
    return uid


def ask(spool: Spool, *references: tuple[str, str], ae: str = "CONSOLE", address: str = "127.0.0.1") -> str:
    transaction = str(generate_uid())
    spool.ask(CommitmentRequest(transaction, ae, address, references))
    return transaction


def report(stack: ExitStack, spool: Spool, *peers: PeerSection) -> CommitmentReporter:
    reporter = CommitmentReporter(spool, DicomSection(ae="NODE", peers=peers), timeout_s=2)
    stack.callback(reporter.stop)
    reporter.start()
    return reporter


def test_all_that_is_stored_is_event_type_1(spool: Spool, stack: ExitStack) -> None:
    modality = Modality(stack)
    uids = [store(spool), store(spool)]
    transaction = ask(spool, *((DX, uid) for uid in uids))
    reporter = report(stack, spool, PeerSection(ae="CONSOLE", host="127.0.0.1", port=modality.port))
    until(lambda: reporter.reported)
    ((kind, information),) = modality.reports
    assert kind == 1
    assert information.TransactionUID == transaction
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == uids
    assert "FailedSOPSequence" not in information
    assert modality.callers == ["NODE"]
    assert spool.asked_due(time.time() + 1e9) == []


def test_failures_are_event_type_2_with_their_reasons(spool: Spool) -> None:
    kept, other, lost = store(spool), store(spool, CR), store(spool)
    spool.path(spool.find(lost)[0]).unlink()
    never = str(generate_uid())
    references = ((DX, kept), (DX, other), (DX, lost), (DX, never))
    kind, information = event_information(spool, CommitmentRequest("1.2.3", "CONSOLE", "", references))
    assert kind == 2
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == [kept]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in information.FailedSOPSequence] == [
        (other, 0x0119),
        (lost, 0x0112),
        (never, 0x0112),
    ]


def test_a_modality_that_is_off_hears_later(spool: Spool, stack: ExitStack) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    ask(spool, (DX, store(spool)))
    reporter = report(stack, spool, PeerSection(ae="CONSOLE", host="127.0.0.1", port=port))
    until(lambda: any(item.attempts >= 2 for item in spool.asked_due(time.time() + 1e9)))
    assert "Connection refused" in spool.asked_due(time.time() + 1e9)[0].error
    Modality(stack, port=port)
    until(lambda: reporter.reported)


def test_a_report_that_is_refused_is_sent_again(spool: Spool, stack: ExitStack) -> None:
    modality = Modality(stack, status=0x0110)
    ask(spool, (DX, store(spool)))
    reporter = report(stack, spool, PeerSection(ae="CONSOLE", host="127.0.0.1", port=modality.port))
    until(lambda: len(modality.reports) >= 2)
    assert reporter.reported == 0
    modality.status = 0
    until(lambda: reporter.reported)


def test_a_modality_without_a_port_is_counted_and_its_request_kept(
    spool: Spool, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    ask(spool, (DX, store(spool)), ae="UNKNOWN")
    reporter = report(stack, spool)
    until(lambda: reporter.unreachable)
    until(lambda: spool.asked_due(time.time() + 1e9)[0].attempts)
    assert "no port is configured for UNKNOWN" in spool.asked_due(time.time() + 1e9)[0].error
    assert "no port is configured for UNKNOWN" in caplog.text


def test_a_network_means_the_address_that_asked(spool: Spool, stack: ExitStack) -> None:
    modality = Modality(stack)
    ask(spool, (DX, store(spool)))
    elsewhere = PeerSection(ae="CONSOLE", host="10.0.0.0/8", port=1)
    here = PeerSection(ae="CONSOLE", host="127.0.0.0/8", port=modality.port)
    reporter = report(stack, spool, elsewhere, here)
    until(lambda: reporter.reported)


def test_stop_cuts_a_modality_that_hangs(spool: Spool, stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    ask(spool, (DX, store(spool)))
    reporter = CommitmentReporter(
        spool,
        DicomSection(peers=(PeerSection(ae="CONSOLE", host="127.0.0.1", port=listener.getsockname()[1]),)),
        timeout_s=600,
    )
    reporter.start()
    line, _ = listener.accept()
    with line:
        reporter.stop()
    assert reporter not in threading.enumerate()
    assert spool.asked_due(time.time())[0].attempts == 0


def test_a_modality_that_hangs_delays_no_other(spool: Spool, stack: ExitStack) -> None:
    """It listens and never answers, and has asked ten times before the other did."""
    silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    modality = Modality(stack)
    for _ in range(10):
        ask(spool, (DX, store(spool)), ae="SILENT")
    ask(spool, (DX, store(spool)))
    peers = (
        PeerSection(ae="SILENT", host="127.0.0.1", port=silent.getsockname()[1]),
        PeerSection(ae="CONSOLE", host="127.0.0.1", port=modality.port),
    )
    reporter = CommitmentReporter(spool, DicomSection(ae="NODE", peers=peers), timeout_s=600)
    stack.callback(reporter.stop)
    reporter.start()
    until(lambda: reporter.reported)
    assert len(spool.asked_due(time.time(), limit=100)) == 10
    reporter.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("commitment")]


def test_a_clock_that_is_set_back_delays_nothing(spool: Spool, stack: ExitStack) -> None:
    modality = Modality(stack)
    ask(spool, (DX, store(spool)))
    spool.postpone_answer(1, "the console was off, in 2031", time.time() + 1e8)
    reporter = report(stack, spool, PeerSection(ae="CONSOLE", host="127.0.0.1", port=modality.port))
    until(lambda: reporter.reported)


@pytest.mark.peers
def test_orthanc_believes_the_report(spool: Spool, stack: ExitStack, tmp_path: Path) -> None:
    """Orthanc asks a listener of ours for commitment; the reporter answers it."""
    ports = [free_port(stack) for _ in range(3)]
    asked: list[Dataset] = []
    application = AE("NODE")
    application.add_supported_context(PUSH_MODEL)

    def action(event: Any) -> tuple[int, Dataset | None]:
        asked.append(event.action_information)
        return 0, None

    server = application.start_server(("127.0.0.1", ports[0]), block=False, evt_handlers=[(evt.EVT_N_ACTION, action)])
    stack.callback(server.shutdown)
    start_orthanc(stack, tmp_path, ports)
    uid, lost = store(spool), str(generate_uid())
    url = f"http://127.0.0.1:{ports[2]}/modalities/node/storage-commitment"
    body = json.dumps({"DicomInstances": [[DX, uid], [DX, lost]]}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body)) as reply:
        transaction = json.load(reply)["ID"]
    until(lambda: asked)
    references = tuple(
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in asked[0].ReferencedSOPSequence
    )
    spool.ask(CommitmentRequest(str(asked[0].TransactionUID), "ORTHANC", "127.0.0.1", references))
    reporter = report(stack, spool, PeerSection(ae="ORTHANC", host="127.0.0.1", port=ports[1]))
    until(lambda: reporter.reported)
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[2]}/storage-commitment/{transaction}") as reply:
        told = json.load(reply)
    assert told["Status"] == "Failure"
    assert [item["SOPInstanceUID"] for item in told["Success"]] == [uid]
    assert [(item["SOPInstanceUID"], item["FailureReason"]) for item in told["Failures"]] == [(lost, 0x0112)]


def free_port(stack: ExitStack) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_orthanc(stack: ExitStack, folder: Path, ports: list[int]) -> None:
    settings = {
        "DicomAet": "ORTHANC",
        "DicomPort": ports[1],
        "HttpPort": ports[2],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomModalities": {"node": ["NODE", "127.0.0.1", ports[0]]},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    executable = str(shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/sbin"))
    log = stack.enter_context((folder / "log").open("wb"))
    server = stack.enter_context(subprocess.Popen([executable, str(folder / "orthanc.json")], stdout=log, stderr=log))
    stack.callback(server.terminate)

    def answers() -> bool:
        """Its HTTP server, which begins after the DICOM server; that a port is open says less."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[2]}/system") as reply:
                return bool(json.load(reply)["DicomPort"] == ports[1])
        except OSError:
            return False

    until(answers)

"""A whole node on ports of its own: films in by DICOM, folder and HTTP; results out to an archive, and on the page."""

import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
import yaml
from pynetdicom import AE, StoragePresentationContexts, evt
from waiting import LONG_S, until

from edgecxr.bundle import Bundle, default_bundle_path, installed, keys, signature
from edgecxr.errors import BundleError, SpoolError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node import logs
from edgecxr.runtimes.node.caller import Peer
from edgecxr.runtimes.node.config import NodeConfig
from edgecxr.runtimes.node.node import Node
from edgecxr.runtimes.node.sender import send
from edgecxr.runtimes.node.spool import State
from edgecxr.runtimes.node.storage import CLASSES

NAME = "Waldvogel^Ottilie"
ENDED = (State.DECIDED, State.REFUSED, State.DELIVERED, State.QUARANTINED)


class Archive:
    """A pynetdicom PACS that keeps what it gets."""

    def __init__(self) -> None:
        self.objects: list[pydicom.Dataset] = []
        application = AE("PACS")
        for context in StoragePresentationContexts:
            application.add_supported_context(context.abstract_syntax)
        application.add_supported_context("1.2.840.10008.1.1")
        handlers = [(evt.EVT_C_STORE, self._store)]
        self.server: Any = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = self.server.socket.getsockname()[1]

    def _store(self, event: Any) -> int:
        self.objects.append(event.dataset)
        return 0


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    archive = Archive()
    yield archive
    archive.server.shutdown()


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Path, archive: Archive) -> dict[str, Any]:
    """A configuration on ephemeral ports."""
    return {
        "folder": str(tmp_path / "node"),
        "bundle": {"path": str(tiny_bundle), "allow_unsigned": True},
        "screening": {"threads": 1},
        "spool": {"refuse_below_mb": 0, "tidy_below_mb": 1},
        "dicom": {"host": "127.0.0.1", "port": 0},
        "http": {"port": 0},
        "watch": [{"folder": str(tmp_path / "in"), "settle_s": 0.2, "poll_s": 0.1}],
        "health": {"clock_by_hand": True},
        "destinations": [{"name": "pacs", "ae": "PACS", "host": "127.0.0.1", "port": archive.port}],
    }


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "films"
    folder.mkdir()
    made = []
    for number, (kind, syntax) in enumerate(zip(("normal", "covid"), ("explicit", "jpeg_lossless"), strict=True)):
        path = write_dicom(chest(number, kind, size=128), folder / f"{number}.dcm", syntax=syntax)
        film = pydicom.dcmread(path)
        film.PatientName, film.PatientID = NAME, "ID-4711"
        film.save_as(path)
        made.append(path)
    return made


def opened(settings: dict[str, Any]) -> Node:
    for section in settings["watch"]:
        Path(section["folder"]).mkdir(exist_ok=True)
    return Node(NodeConfig.model_validate(json.loads(json.dumps(settings)), strict=False))


def ended(node: Node) -> int:
    counts = node.spool.counts()
    return sum(counts[state] for state in ENDED)


def peer_of(node: Node) -> Peer:
    if node.receiver is None:
        raise TypeError("no receiver")
    return Peer("EDGECXR", "127.0.0.1", node.receiver.port)


def page_of(node: Node) -> str:
    if node.web is None:
        raise TypeError("no page")
    return f"http://127.0.0.1:{node.web.port}"


def test_films_in_results_out(settings: dict[str, Any], films: list[Path], archive: Archive) -> None:
    archive.objects.clear()
    log = io.StringIO()
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    logs.configure("debug", "json", log)
    try:
        with opened(settings) as node:
            sent = send(films, peer_of(node), "UNIT")
            assert [result.status for result in sent] == [0, 0]
            other = write_dicom(chest(9, "covid", size=128), films[0].parent / "by-folder.dcm")
            shutil.copy(other, Path(settings["watch"][0]["folder"]) / "film.dcm")
            with httpx.Client(base_url=page_of(node), timeout=LONG_S) as browser:
                last = write_dicom(chest(10, "normal", size=128), films[0].parent / "by-http.dcm")
                answer = browser.post("/v1/screen", content=last.read_bytes()).json()
                assert answer["status"] == "ok"
                until(lambda: node.spool.counts()[State.DELIVERED] == 4)
                assert browser.get("/readyz").json() == {"ready": True, "problems": []}
                assert "Ottilie" in browser.get("/").text
                assert browser.get("/health").status_code == 200
                figures = browser.get("/metrics").text
                assert 'edgecxr_images{state="delivered"} 4.0' in figures
                assert "edgecxr_decision_seconds_count 4.0" in figures
                assert "Ottilie" not in figures
            health = node.health()
            assert (health.engine, health.problems) == ("openvino-cpu", ())
            assert health.proved is not None
            made = node.result_object("sr", node.spool.find(pydicom.dcmread(films[0]).SOPInstanceUID)[0].id)
    finally:
        root.handlers[:], root.level = before
    assert sorted(item.Modality for item in archive.objects) == ["OT"] * 4 + ["SR"] * 4
    assert pydicom.dcmread(io.BytesIO(made)).SOPInstanceUID in {item.SOPInstanceUID for item in archive.objects}
    studies = {pydicom.dcmread(film).StudyInstanceUID for film in films}
    assert studies <= {item.StudyInstanceUID for item in archive.objects}
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert any(line["event"] == "screened" for line in lines)
    for secret in ("Waldvogel", "Ottilie", "ID-4711"):
        assert secret not in log.getvalue()


def test_a_dead_archive_holds_nothing_up(settings: dict[str, Any], films: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # listens, never answers
        settings["destinations"][0]["port"] = taken.getsockname()[1]
        with opened(settings) as node:
            send(films, peer_of(node), "UNIT")
            until(lambda: node.spool.counts()[State.DECIDED] == 2)
            assert node.ready() == (True, [])
            assert node.spool.outstanding() == 4
    with opened(settings) as again:
        assert again.spool.counts()[State.DECIDED] == 2


def test_an_image_without_an_engine_waits(settings: dict[str, Any], films: list[Path], tmp_path: Path) -> None:
    settings["screening"]["precision"] = "fp16"
    settings["screening"]["point"] = "no such point"
    with opened(settings) as node:
        send(films, peer_of(node), "UNIT")
        until(lambda: "no such point" in str(node.ready()[1]))
        assert node.spool.counts()[State.RECEIVED] == 2
        assert node.ready()[0] is False


def test_two_nodes_do_not_share_a_spool(settings: dict[str, Any]) -> None:
    with opened(settings), pytest.raises(SpoolError, match="another"):
        opened(settings).start()


def test_a_part_that_dies_is_noticed(settings: dict[str, Any]) -> None:
    with opened(settings) as node:
        until(lambda: node.ready()[0])
        node.watchers[0].stop()
        ready, problems = node.ready()
        assert (ready, problems) == (False, ["watched folder: its thread died"])


def test_an_unsigned_bundle_is_not_used(settings: dict[str, Any]) -> None:
    settings["bundle"]["allow_unsigned"] = False
    with pytest.raises(BundleError, match="is not signed"):
        opened(settings)


def test_an_installed_bundle_is_taken_into_use_and_a_bad_one_put_back(
    settings: dict[str, Any], films: list[Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    key = keys.generate(tmp_path / "maker")
    settings["bundle"] = {"trusted_keys": [str(tmp_path / "maker.pub")]}
    first = Path(shutil.copy(tiny_bundle, tmp_path / "first.cxr"))
    signature.sign(first, key)
    node_folder = Path(settings["folder"])
    node_folder.mkdir()
    used = installed.install(node_folder, first, trusted=[tmp_path / "maker.pub"]).path
    with opened(settings) as node:
        until(lambda: node.ready()[0])
        assert node.workers.bundle == used
        pointer = node_folder / "bundles" / "installed.json"
        bad = node_folder / "bundles" / "0123456789ab-bad.cxr"
        shutil.copy(tiny_bundle, bad)  # not signed
        pointer.write_text(json.dumps({"current": bad.name, "previous": used.name}))
        until(lambda: any("is not signed" in problem for problem in node.health().problems))
        assert node.workers.bundle == used
        until(lambda: installed.current(node_folder) == used)
        send(films, peer_of(node), "UNIT")
        until(lambda: ended(node) == 2)
        assert node.ready()[0]


def test_the_node_goes_back_to_the_packages_own_bundle(
    settings: dict[str, Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    own = default_bundle_path()
    if not own.exists():
        pytest.skip("the package has no bundle here")
    settings |= {"bundle": {"allow_unsigned": True}, "destinations": [], "watch": []}
    node_folder = Path(settings["folder"])
    node_folder.mkdir()
    first = installed.install(node_folder, tiny_bundle, allow_unsigned=True).path
    with opened(settings) as node:
        until(lambda: node.ready()[0])
        assert node.workers.bundle == first
        installed.rollback(node_folder, allow_unsigned=True)
        until(lambda: node.health().bundle == Bundle.open(own).digest)
        assert node.workers.bundle == own
        until(lambda: node.ready()[0])
        bad = node_folder / "bundles" / "0123456789ab-bad.cxr"
        bad.write_bytes(b"no bundle")  # the first that is installed after it, and cannot be opened
        (node_folder / "bundles" / "installed.json").write_text(json.dumps({"current": bad.name}))
        until(lambda: any("bad.cxr" in problem for problem in node.health().problems))
        until(lambda: installed.current(node_folder) is None)
        assert node.workers.bundle == own


@pytest.mark.shared_data
def test_every_shared_file_ends_somewhere(settings: dict[str, Any], shared_dicom: Path) -> None:
    files = sorted(shared_dicom.iterdir())
    settings["destinations"] = []
    with opened(settings) as node:
        for file in files:
            shutil.copy(file, settings["watch"][0]["folder"])
        until(lambda: ended(node) == len(files))
        rows = node.spool.listing(limit=200)
        assert len(rows) == len(files)
        for image, result in rows:
            assert image.error if image.state is State.QUARANTINED else result is not None
        assert not any(Path(settings["watch"][0]["folder"]).iterdir())
        assert node.ready() == (True, [])


@pytest.mark.peers
@pytest.mark.shared_data
def test_every_shared_file_sent_by_dcmsend_ends_somewhere(
    settings: dict[str, Any], shared_dicom: Path, tmp_path: Path
) -> None:
    """dcmsend's own report is the witness: what it says was taken ended, and what was not taken had a reason."""
    settings["destinations"] = []
    report = tmp_path / "report.txt"
    with opened(settings) as node:
        port = str(peer_of(node).port)
        command = ["dcmsend", "--scan-directories", "--no-halt", "--no-uid-checks", "--create-report-file", str(report)]
        subprocess.run([*command, "127.0.0.1", port, str(shared_dicom)], capture_output=True, timeout=LONG_S)
        entries = [dict(re.findall(r"^(\S.*?) *: (.*)$", part, re.M)) for part in report.read_text().split("\n\n")]
        told = [entry for entry in entries if "DIMSE Status" in entry]
        taken = [entry["SOP Instance"] for entry in told if entry["DIMSE Status"].startswith("0x0000")]
        statistics = {} if node.receiver is None else node.receiver.statistics()
        assert len(taken) == statistics["stored"] >= 30
        assert statistics["faults"] == statistics["protocol_errors"] == statistics["refused"] == 0
        for entry in told:
            if "no acceptable" in entry["DIMSE Status"]:  # then it is nothing that X-ray units send
                assert entry["SOP Class"].split()[0] not in CLASSES
        until(lambda: ended(node) == sum(node.spool.counts().values()))
        rows = node.spool.listing(limit=200)
        assert set(taken) <= {image.sop_instance for image, _ in rows}  # one has another UID in its meta information
        assert len(rows) <= len(taken)
        for image, result in rows:
            assert image.error if image.state is State.QUARANTINED else result is not None
        statuses = {result.status for _, result in rows if result is not None}
        assert statuses == {"ok", "refused"}
        assert node.ready() == (True, [])


class Served:
    """`edgecxr serve` in a process of its own."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "edgecxr", "serve", "--config", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        until(lambda: any("edgecxr serves" in line for line in self.lines) or self.process.poll() is not None)

    @property
    def port(self) -> int:
        """Of DICOM, as it says itself."""
        return int(next(found[1] for line in self.lines if (found := re.search(r"at 127\.0\.0\.1 port (\d+)", line))))

    def _read(self) -> None:
        if self.process.stdout is not None:
            self.lines.extend(self.process.stdout)

    def end(self, number: signal.Signals) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(LONG_S)
        self.reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_hand(
    settings: dict[str, Any], films: list[Path], tmp_path: Path, number: signal.Signals
) -> None:
    Path(settings["watch"][0]["folder"]).mkdir()
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    served = Served(tmp_path / "node.yaml")
    peer = Peer("EDGECXR", "127.0.0.1", served.port)
    assert [result.status for result in send(films, peer, "UNIT")] == [0, 0]
    assert served.end(number) == 0
    with opened(settings) as node:
        until(lambda: ended(node) == 2)
        counts = node.spool.counts()
        assert counts[State.QUARANTINED] == 0
        assert all(image.attempts == 1 for image, _ in node.spool.listing())
    assert not any("Ottilie" in line for line in served.lines)


def test_a_second_interrupt_ends_at_once(settings: dict[str, Any], tmp_path: Path) -> None:
    """The first waits for what is in hand; the second does not."""
    Path(settings["watch"][0]["folder"]).mkdir()
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    served = Served(tmp_path / "node.yaml")
    for child in Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGSTOP)  # so that the end has to wait for something
    served.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    # 0: the first had ended it in time; killed by the signal: it came when Python was already leaving
    assert served.end(signal.SIGINT) in (130, 0, -signal.SIGINT)

"""`edgecxr send` as a user meets it, against a server of pynetdicom."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecxr.phantom import chest, write_dicom

pytest.importorskip("pynetdicom", reason="pip install edgecxr[node]: sending needs pynetdicom")
from pynetdicom import AE, AllStoragePresentationContexts, evt

Run = Callable[..., Any]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    (folder / "more").mkdir(parents=True)
    write_dicom(chest(1, size=64), folder / "a.dcm")
    write_dicom(chest(2, size=64), folder / "more" / "b.dcm")
    return folder


class Archive:
    """A PACS; `statuses` are answered in turn, success after the last."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.callers: list[str] = []
        application = AE("PACS")
        application.supported_contexts = AllStoragePresentationContexts
        handlers = [(evt.EVT_C_STORE, self._store)]
        self.server = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.address = f"PACS@127.0.0.1:{self.server.socket.getsockname()[1]}"

    def _store(self, event: Any) -> int:
        self.callers.append(event.assoc.requestor.ae_title)
        return self.statuses.pop(0) if self.statuses else 0


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.server.shutdown()


def test_help_has_an_example(run: Run) -> None:
    done = run("send", "--help")
    assert done.returncode == 0
    assert "edgecxr send films/ --to ORTHANC@10.0.0.5:4242" in " ".join(done.stdout.split())


def test_a_folder_is_sent(run: Run, films: Path, archive: Archive) -> None:
    done = run("send", films, "--to", archive.address, "--calling-ae", "XRAY1")
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[1] for line in done.stdout.splitlines()] == ["sent", "sent"]
    assert done.stderr == f"2 of 2 files are at {archive.address}\n"
    assert archive.callers == ["XRAY1", "XRAY1"]


def test_what_was_not_taken_ends_with_1(run: Run, films: Path, archive: Archive) -> None:
    (films / "notes.txt").write_text("hello")
    archive.statuses = [0xA700, 0xB000]
    done = run("send", films, "--to", archive.address, "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["files"], value["sent"]) == (1, 3, 1)
    told = {Path(item["file"]).name: (item["sent"], item["status"], item["error"]) for item in value["results"]}
    assert told["a.dcm"] == (False, "0xA700", "0xA700 out of resources")
    assert told["b.dcm"] == (True, "0xB000", "0xB000 taken with a warning")
    assert told["notes.txt"][:2] == (False, None)
    assert "not a DICOM file" in told["notes.txt"][2]


def test_a_peer_that_is_not_there_ends_with_3(run: Run, films: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = run("send", films, "--to", f"PACS@127.0.0.1:{unused.getsockname()[1]}")
    assert done.returncode == 3
    assert "Connection refused: nothing listens there; check the address, the port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("films", "--to", "127.0.0.1:104"), "is not AE@host:port"),
        (("films", "--to", "PACS@host:0"), "is not AE@host:port"),
        (("films", "--to", "ANAETITLEOF17CHAR@host:104"), "is not AE@host:port"),
        (("absent", "--to", "PACS@host:104"), "there is no absent"),
        (("films", "--to", "PACS@host:104", "--calling-ae", "a\\b"), "is no AE title"),
        (("films", "--to", "PACS@host:104", "--tls-key", "x"), "--tls-certificate and --tls-key together"),
        (("films", "--to", "PACS@h:1", "--tls-key", "x", "--tls-certificate", "y"), "cannot be loaded"),
    ],
)
def test_misuse_ends_with_2(run: Run, films: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = run("send", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.parametrize("tool", ["send", "queue"])
def test_the_verb_is_listed(run: Run, tool: str) -> None:
    assert f" {tool} " in run("--help").stdout

"""``edgecxr serve``: what `--check` says, and how it ends. The running node: tests/runtimes/node/test_end_to_end."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pynetdicom", reason="pip install edgecxr[node]: the node needs it")
Run = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Path) -> dict[str, Any]:
    return {
        "folder": str(tmp_path / "state"),
        "bundle": {"path": str(tiny_bundle), "allow_unsigned": True},
        "screening": {"threads": 1},
        "spool": {"refuse_below_mb": 0, "tidy_below_mb": 1, "max_object_mb": 1},
        "dicom": {"host": "127.0.0.1", "port": 0},
        "http": {"port": 0},
        "watch": [{"folder": str(tmp_path / "in")}],
    }


@pytest.fixture
def check(run: Run, settings: dict[str, Any], tmp_path: Path) -> Callable[[], Any]:
    def check() -> Any:
        (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
        return run("serve", "--config", "node.yaml", "--check")

    return check


def test_all_is_well(check: Callable[[], Any], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = check()
    assert not (tmp_path / "state").exists()
    assert "can be created in" in done.stdout
    assert done.returncode == 0
    topics = [line[9:29].strip() for line in done.stdout.splitlines()]
    ports = ["DICOM port", "HTTP port"]
    assert topics == ["configuration", "folder", "disk", "spool", "watched folder", *ports, "bundle", "engine"]
    assert all(line.startswith("ok") for line in done.stdout.splitlines())


def test_a_watched_folder_that_is_absent_is_not_made(check: Callable[[], Any], tmp_path: Path) -> None:
    done = check()
    assert done.returncode == 0
    assert "warning  watched folder" in done.stdout
    assert "is absent; the node waits for it" in done.stdout
    assert not (tmp_path / "in").exists()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root has CAP_LEASE to lose")
def test_without_cap_lease_files_of_others_wait(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    settings["bundle"]["path"] = str(tmp_path / "absent.cxr")  # nothing is opened for long
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    check = [sys.executable, "-m", "edgecxr", "serve", "--config", str(tmp_path / "node.yaml"), "--check"]
    for drop, told in (([], False), (["setpriv", "--bounding-set=-lease"], True)):
        done = subprocess.run([*drop, *check], capture_output=True, text=True, check=False)
        (line,) = [line for line in done.stdout.splitlines() if "watched folder" in line]
        assert line.startswith("ok")
        assert ("files of other users are taken when they have not changed for 60 s" in line) == told
    assert list((tmp_path / "in").iterdir()) == []


def test_a_wrong_key_is_misuse(check: Callable[[], Any], settings: dict[str, Any]) -> None:
    settings["dicom"]["prot"] = 104
    done = check()
    assert done.returncode == 2
    assert "unknown key 'prot' in dicom; did you mean 'port'?" in done.stderr


def test_an_absent_file_and_an_unknown_level(run: Run, tmp_path: Path) -> None:
    done = run("serve", "--config", "absent.yaml")
    assert (done.returncode, "absent.yaml: cannot be read" in done.stderr) == (2, True)
    done = run("serve", "--config", "absent.yaml", "--level", "loud")
    assert (done.returncode, "unknown --level 'loud'" in done.stderr) == (2, True)


def test_a_port_in_use_is_the_machines_fault(check: Callable[[], Any], settings: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings["dicom"]["port"] = taken.getsockname()[1]
        done = check()
    assert done.returncode == 3
    assert "CANNOT   DICOM port" in done.stdout
    assert "is a node running already?" in done.stdout


def test_an_unsigned_bundle_is_wrong(check: Callable[[], Any], settings: dict[str, Any]) -> None:
    settings["bundle"]["allow_unsigned"] = False
    done = check()
    assert done.returncode == 2
    assert "WRONG    bundle" in done.stdout
    assert "is not signed" in done.stdout


def test_an_engine_that_cannot_serve(check: Callable[[], Any], settings: dict[str, Any]) -> None:
    settings["screening"]["engine"] = "abacus"
    done = check()
    assert done.returncode == 3
    assert "unknown engine 'abacus'" in done.stdout


def test_a_folder_that_cannot_be_written(check: Callable[[], Any], settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    settings["watch"][0]["folder"] = str(tmp_path / "file" / "in")
    done = check()
    assert done.returncode == 2
    assert "WRONG    watched folder" in done.stdout


def test_too_little_room(check: Callable[[], Any], settings: dict[str, Any]) -> None:
    settings["spool"] |= {"refuse_below_mb": 10**9}
    done = check()
    assert done.returncode == 3
    assert "CANNOT   disk" in done.stdout


def test_certificates_that_are_not_there(check: Callable[[], Any], settings: dict[str, Any], tmp_path: Path) -> None:
    settings["dicom"]["tls"] = {"certificate": str(tmp_path / "a.pem"), "key": str(tmp_path / "a.key")}
    done = check()
    assert done.returncode == 2
    assert "a.pem" in done.stdout


def test_an_archive_that_is_away_is_a_warning(check: Callable[[], Any], settings: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings["destinations"] = [{"name": "pacs", "ae": "PACS", "host": "127.0.0.1", "port": port}]
    done = check()
    assert done.returncode == 0
    assert "warning  destination pacs" in done.stdout
    assert "results wait until it answers" in done.stdout


def test_an_archive_that_answers(check: Callable[[], Any], settings: dict[str, Any]) -> None:
    from pynetdicom import AE

    application = AE("PACS")
    application.add_supported_context("1.2.840.10008.1.1")
    server: Any = application.start_server(("127.0.0.1", 0), block=False)
    port = server.socket.getsockname()[1]
    settings["destinations"] = [{"name": "pacs", "ae": "PACS", "host": "127.0.0.1", "port": port}]
    done = check()
    server.shutdown()
    assert "answers C-ECHO with status 0x0000" in done.stdout


def test_a_port_in_use_ends_the_start(run: Run, settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings["http"]["port"] = taken.getsockname()[1]
        (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
        done = run("serve", "--config", "node.yaml", "--text")
    assert done.returncode == 2
    assert "http: cannot listen on 127.0.0.1 port" in done.stderr

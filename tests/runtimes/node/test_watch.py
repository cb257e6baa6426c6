"""Files put into a watched folder slowly, renamed, locked, foreign and in masses; spool and files are real."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from edgecxr.phantom import SYNTAXES, chest, write_dicom
from edgecxr.runtimes.node.config import SpoolLimits, WatchSection
from edgecxr.runtimes.node.images import Image, State
from edgecxr.runtimes.node.spool import Spool
from edgecxr.runtimes.node.watch import Watcher, read_uids


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", SpoolLimits(refuse_below_mb=0, max_object_mb=1, max_waiting=5))
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    return write_dicom(chest(1, size=64), tmp_path / "film.dcm").read_bytes()


@pytest.fixture
def watcher(spool: Spool, folder: Path) -> Watcher:
    return Watcher(spool, WatchSection(folder=folder, settle_s=0, poll_s=0.05, priority=2))


def images(spool: Spool) -> list[Image]:
    return [image for image, _ in spool.listing()]


def content(spool: Spool) -> list[bytes]:
    return sorted(spool.path(image).read_bytes() for image in images(spool))


def test_a_file_moves_into_the_spool_as_it_is(watcher: Watcher, spool: Spool, folder: Path, film: bytes) -> None:
    (folder / "a.dcm").write_bytes(film)
    watcher.look()
    (image,) = images(spool)
    header = pydicom.dcmread(spool.path(image), stop_before_pixels=True)
    assert spool.path(image).read_bytes() == film
    assert (image.sop_class, image.sop_instance) == (header.SOPClassUID, header.SOPInstanceUID)
    assert (image.source, image.peer, image.priority, image.state) == ("folder", "a.dcm", 2, State.RECEIVED)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_uids_in_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    path = write_dicom(chest(1, size=64), tmp_path / "film.dcm", syntax=syntax)
    meta = pydicom.dcmread(path).file_meta
    assert read_uids(path) == (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_uids_of_anything_else_are_empty(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(data)
    assert read_uids(path) == ("", "", "")
    path.write_bytes(bytes(128) + b"DICM" + data)
    assert len(read_uids(path)) == 3


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\nrest", b"hello", b"\0" * 128 + b"DICM\2\0"])
def test_what_is_no_dicom_is_taken_as_well(watcher: Watcher, spool: Spool, folder: Path, data: bytes) -> None:
    (folder / "picture").write_bytes(data)
    watcher.look()
    assert content(spool) == [data]
    assert images(spool)[0].sop_class == ""
    assert not (folder / "picture").exists()


@pytest.mark.shared_data
def test_every_hostile_file_is_taken(shared_dicom: Path, tmp_path: Path, folder: Path) -> None:
    spool = Spool(tmp_path / "large", SpoolLimits(refuse_below_mb=0))
    files = sorted(path for path in shared_dicom.iterdir() if path.stat().st_size < 2_000_000)
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes())
    Watcher(spool, WatchSection(folder=folder, settle_s=0)).look()
    assert list(folder.iterdir()) == []
    assert len({path.read_bytes() for path in files}) <= sum(spool.counts().values())
    spool.close()


def test_a_growing_file_waits_until_it_has_settled(watcher: Watcher, spool: Spool, folder: Path) -> None:
    watcher.section = watcher.section.model_copy(update={"settle_s": 0.3})
    path = folder / "slow.png"
    for step in range(5):
        path.write_bytes(b"x" * (step + 1))
        watcher.look()
        time.sleep(0.1)
        assert images(spool) == []
    until(lambda: watcher.look() or images(spool))
    assert content(spool) == [b"xxxxx"]


def test_a_file_that_is_open_for_writing_waits(watcher: Watcher, spool: Spool, folder: Path) -> None:
    with (folder / "slow.png").open("wb") as handle:
        handle.write(b"first")
        handle.flush()
        for _ in range(3):
            watcher.look()
        assert images(spool) == []
        handle.write(b" second")
    watcher.look()
    assert content(spool) == [b"first second"]


def test_names_that_are_not_final_or_hidden_are_left_alone(watcher: Watcher, spool: Spool, folder: Path) -> None:
    names = (".hidden", "a.part", "b.TMP", "c.filepart", ".trash/d.dcm")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"data")
    watcher.look()
    assert images(spool) == []
    (folder / "a.part").rename(folder / "a.dcm")
    watcher.look()
    assert content(spool) == [b"data"]


def test_subfolders_are_watched_and_links_are_not_followed(
    watcher: Watcher, spool: Spool, folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.dcm").write_bytes(b"kept")
    (folder / "link").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "kept.dcm")
    (folder / "loop").symlink_to(folder)
    (folder / "one" / "two").mkdir(parents=True)
    (folder / "one" / "two" / "film").write_bytes(b"deep")
    os.mkfifo(folder / "pipe")
    watcher.look()
    assert content(spool) == [b"deep"]
    assert images(spool)[0].peer == "one/two/film"
    assert (elsewhere / "kept.dcm").exists()


@pytest.mark.parametrize(
    "name", ["a b.dcm", "Ünïcode-胸.dcm", "x" * 250, "new\nline", "-rf", b"\xff\xfe.dcm", "<script>"]
)
def test_odd_names(watcher: Watcher, spool: Spool, folder: Path, name: str | bytes) -> None:
    path = os.path.join(os.fsencode(folder), os.fsencode(name))
    with open(path, "wb") as handle:
        handle.write(b"data")
    watcher.look()
    assert content(spool) == [b"data"]
    assert not os.path.lexists(path)


def test_the_same_film_twice_is_one_image(watcher: Watcher, spool: Spool, folder: Path, film: bytes) -> None:
    for name in ("a.dcm", "b.dcm"):
        (folder / name).write_bytes(film)
    watcher.look()
    assert content(spool) == [film]
    assert list(folder.iterdir()) == []


def test_a_full_spool_makes_files_wait(watcher: Watcher, spool: Spool, folder: Path) -> None:
    for number in range(7):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    watcher.look()
    assert len(images(spool)) == 5
    assert len(list(folder.iterdir())) == 2
    assert "max_waiting" in next(iter(watcher.problems().values()))
    assert spool.claim() is not None
    assert spool.claim() is not None
    watcher.look()
    assert content(spool) == [b"%d" % number for number in range(7)]
    assert watcher.problems() == {}


def test_a_file_that_is_too_large_stays_and_is_named_once(
    watcher: Watcher, spool: Spool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "Doe^Jane.dcm").write_bytes(bytes(1_000_001))
    (folder / "good.dcm").write_bytes(b"good")
    for _ in range(3):
        watcher.look()
    assert content(spool) == [b"good"]
    ((name, problem),) = watcher.problems().items()
    assert name.endswith("Doe^Jane.dcm")
    assert problem == "1,000,001 bytes; spool.max_object_mb allows 1 MB"
    assert caplog.text.count("a file stays there") == 1
    assert "Doe" not in caplog.text


def test_a_file_that_cannot_be_removed_is_taken_once(
    watcher: Watcher, spool: Spool, folder: Path, caplog: pytest.LogCaptureFixture, immutable: Callable[..., None]
) -> None:
    (folder / "a.png").write_bytes(b"data")
    immutable(folder, True)
    for _ in range(3):
        watcher.look()
    assert content(spool) == [b"data"]
    assert caplog.text.count("cannot be removed") == 1
    immutable(folder, False)
    (sight,) = watcher._sights.values()
    sight.retry = 0.0
    watcher.look()
    assert content(spool) == [b"data"]
    assert list(folder.iterdir()) == []


@pytest.fixture
def immutable(folder: Path) -> Iterator[Callable[[Path, bool], None]]:
    """Make a folder so that nobody may remove what is in it: for root, by the immutable attribute."""

    def change(path: Path, on: bool) -> None:
        if os.geteuid():
            path.chmod(0o500 if on else 0o700)
        elif subprocess.run(["chattr", "+i" if on else "-i", path], check=False, capture_output=True).returncode:
            pytest.skip("this disk has no immutable attribute")

    yield change
    if os.geteuid():
        folder.chmod(0o700)
    else:
        subprocess.run(["chattr", "-i", folder], check=False, capture_output=True)


def test_a_folder_that_is_not_there_is_said_and_found_when_it_comes(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "stick"
    watcher = Watcher(spool, WatchSection(folder=folder, settle_s=0))
    watcher.look()
    watcher.look()
    assert caplog.text.count("there is no such folder") == 1
    folder.mkdir()
    (folder / "a.png").write_bytes(b"data")
    watcher.look()
    assert content(spool) == [b"data"]
    assert watcher.problems() == {}


def test_a_file_that_is_replaced_while_it_is_copied_is_not_lost(
    watcher: Watcher, spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.png").write_bytes(b"old")
    commit = spool.commit

    def replace(*arguments: Any) -> Any:
        receipt = commit(*arguments)
        if len(images(spool)) == 1:
            (folder / "new.part").write_bytes(b"new")
            (folder / "new.part").rename(folder / "a.png")
        return receipt

    monkeypatch.setattr(spool, "commit", replace)
    watcher.look()
    assert (folder / "a.png").read_bytes() == b"new"
    watcher.look()
    assert content(spool) == [b"new", b"old"]
    assert list(folder.iterdir()) == []


def test_a_file_that_is_written_again_while_it_is_copied_is_not_lost(
    watcher: Watcher, spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer has changed nothing yet when the bytes so far are in the spool; what it writes then counts as well."""
    (folder / "a.png").write_bytes(b"first")
    commit = spool.commit
    writers: list[Any] = []

    def write_on(*arguments: Any) -> Any:
        receipt = commit(*arguments)
        if not writers:
            writers.append((folder / "a.png").open("ab"))
        return receipt

    monkeypatch.setattr(spool, "commit", write_on)
    for _ in range(3):
        watcher.look()
    assert content(spool) == [b"first"]
    with writers[0] as writer:
        writer.write(b" second")
    watcher.look()
    assert content(spool) == [b"first", b"first second"]
    assert list(folder.iterdir()) == []


FOREIGN = """
import json, logging, os, sys
from pathlib import Path
from edgecxr.runtimes.node import watch
from edgecxr.runtimes.node.config import SpoolLimits, WatchSection
from edgecxr.runtimes.node.spool import Spool

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
logging.basicConfig(stream=sys.stderr, format="%(message)s")
spool = Spool(Path(sys.argv[1]) / "spool", SpoolLimits(refuse_below_mb=0))
watcher = watch.Watcher(spool, WatchSection(folder=Path(sys.argv[1]) / "in", settle_s=0))

def look():
    watcher.look()
    print(json.dumps([spool.path(image).read_text() for image, _ in spool.listing()]), flush=True)

for line in sys.stdin:
    watch.UNTOLD_S = float(line)
    look()
spool.close()
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that any user can reach and write; that of pytest is for its own user alone."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    (made / "in").mkdir()
    (made / "in").chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put files there as one user and watch as another")
def test_a_file_of_another_user_waits_long_without_change(shared: Path) -> None:
    """Nothing tells the node that it is still open for writing: without CAP_LEASE a lease is denied, not refused."""
    node = subprocess.Popen(
        [sys.executable, "-c", FOREIGN, str(shared)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def look(untold_s: float) -> Any:
        assert node.stdout is not None
        print(untold_s, file=node.stdin, flush=True)
        return json.loads(node.stdout.readline())

    with node:
        with (shared / "in" / "slow.txt").open("w") as writer:
            writer.write("first")
            writer.flush()
            assert [look(3600.0) for _ in range(3)] == [[], [], []]
            writer.write(" second")
        (shared / "in" / "other.txt").write_text("other")
        assert look(3600.0) == []
        assert sorted(look(0.0)) == ["first second", "other"]
        assert list((shared / "in").iterdir()) == []
        _, told = node.communicate()
    assert node.returncode == 0
    assert told.count("cannot be told") == 1
    assert "slow" not in told


def test_a_fault_of_ours_on_one_file_holds_up_no_other(
    watcher: Watcher, spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(name.encode())
    commit = spool.commit
    tries: list[str] = []

    def broken(*arguments: Any) -> Any:
        tries.append(arguments[1].peer)
        if arguments[1].peer == "a.png":
            raise KeyError("Doe^Jane")
        return commit(*arguments)

    monkeypatch.setattr(spool, "commit", broken)
    for _ in range(3):
        watcher.look()
    assert content(spool) == [b"b.png"]
    assert tries == ["a.png", "b.png"]
    ((name, problem),) = watcher.problems().items()
    assert name.endswith("a.png")
    assert problem.startswith("internal error: KeyError at test_watch.py:")
    monkeypatch.setattr(spool, "commit", commit)
    watcher._sights[folder / "a.png"].retry = 0.0
    watcher.look()
    assert content(spool) == [b"a.png", b"b.png"]


def test_an_empty_file_waits_longer(watcher: Watcher, spool: Spool, folder: Path) -> None:
    watcher.section = watcher.section.model_copy(update={"settle_s": 0.3})
    (folder / "a.png").touch()
    watcher.look()
    time.sleep(0.4)  # longer than a file with content waits, and far less than an empty one
    watcher.look()
    assert images(spool) == []
    until(lambda: watcher.look() or images(spool))
    assert content(spool) == [b""]


def test_as_a_thread_it_takes_what_comes_and_stops(watcher: Watcher, spool: Spool, folder: Path) -> None:
    watcher.start()
    for number in range(4):
        (folder / f"{number}.tmp").write_bytes(b"%d" % number)
        (folder / f"{number}.tmp").rename(folder / f"{number}.png")
    until(lambda: len(images(spool)) == 4)
    watcher.stop()
    assert watcher.taken == 4
    assert watcher not in threading.enumerate()
    (folder / "late.png").write_bytes(b"late")
    assert (folder / "late.png").exists()

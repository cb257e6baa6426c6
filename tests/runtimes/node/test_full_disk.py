"""A disk that is full at any moment: all of an image, or nothing of it."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from spools import CR, LIMITS, claimed, files
from waiting import until

from edgecxr.bundle.installed import current, install
from edgecxr.errors import BundleError, SpoolFull
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node import outbox
from edgecxr.runtimes.node.caller import Peer
from edgecxr.runtimes.node.config import DicomSection, NodeConfig
from edgecxr.runtimes.node.deliveries import NewDelivery
from edgecxr.runtimes.node.identity import read_identity
from edgecxr.runtimes.node.node import Node
from edgecxr.runtimes.node.receiver import Receiver
from edgecxr.runtimes.node.results.record import to_record
from edgecxr.runtimes.node.sender import send
from edgecxr.runtimes.node.spool import (
    Arrival,
    Outcome,
    Receipt,
    Spool,
    SpoolLimits,
    State,
)
from edgecxr.runtimes.screener import Screener

SR, CAPTURE = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.root
def test_a_full_disk_at_any_moment_keeps_all_of_an_image_or_nothing(tmp_path: Path) -> None:
    """Every amount of free room from none to enough: the disk is full while writing, making folders, and indexing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    told = []
    try:
        spool = Spool(disk / "spool", LIMITS.model_copy(update={"max_waiting": 10_000}))
        spool._parts._refuse_below = -1 << 40  # without the reservation, which is tested in test_parts
        for step in itertools.count():
            room = step * 4096
            _fill(disk, room)
            kept = files(disk / "spool")
            try:
                image = spool.get(_put_unreserved(spool, f"1.{step}", b"x" * 60_000).image)
                assert spool.path(image).read_bytes() == b"x" * 60_000
                told.append("")
            except SpoolFull as error:
                told.append(str(error))
                assert files(disk / "spool") == kept
                assert spool.find(f"1.{step}") == []
            (disk / "filler").unlink()
            if told[-3:] == ["", "", ""]:
                break
        assert [text for text in told if "written" in text]
        assert [text for text in told if "index" in text]
        _check_full_finish(spool, disk)
        spool.close()
    finally:
        subprocess.run(["umount", disk], check=True)


def _put_unreserved(spool: Spool, uid: str, data: bytes) -> Receipt:
    with spool.part() as part:
        part.write(data)
        return spool.commit(part, Arrival(CR, uid, "", "dicom"))


def _fill(disk: Path, room: int) -> None:
    usage = shutil.disk_usage(disk)
    (disk / "filler").write_bytes(bytes(max(0, usage.free - room)))


def _check_full_finish(spool: Spool, disk: Path) -> None:
    """A result that finds no room is not there, not in part, and can be given again."""
    image = claimed(spool).id
    _fill(disk, 0)
    large = Outcome("ok", {"text": "x" * 200_000})
    with pytest.raises(SpoolFull, match="no room on the disk for its index"):
        spool.finish(image, large)
    assert (spool.get(image).state, spool.result(image)) == (State.SCREENING, None)
    (disk / "filler").unlink()
    spool.finish(image, large)
    assert json.dumps(spool.result(image).record) == json.dumps(large.record)  # type: ignore[union-attr]


@pytest.mark.root
def test_no_room_for_a_folder_keeps_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=40", "tmpfs", disk], check=True)
    try:
        spool = Spool(disk / "spool", LIMITS)
        for index in range(os.statvfs(disk).f_ffree - 1):  # one is left, for the part; none for its folder
            (disk / str(index)).touch()
        with spool.part() as part:
            part.write(b"film")
            with pytest.raises(SpoolFull, match="an object could not be filed in the spool: No space left on device"):
                spool.commit(part, Arrival(CR, "1.2.3", "", "dicom"))
        assert (files(disk), spool.find("1.2.3")) == ([], [])
        with spool.part(), pytest.raises(SpoolFull, match=r"no file could be opened in .*: No space left on device"):
            spool.part()
        (disk / "0").unlink()
        assert _put_unreserved(spool, "1.2.3", b"film").copy == "new"
        spool.close()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.root
def test_a_disk_that_fills_during_a_transfer_refuses_it_and_recovers(tmp_path: Path) -> None:
    """Through the socket, on ext4, and another program takes the room that was set aside."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with (tmp_path / "disk.img").open("wb") as image:
        image.truncate(64_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", tmp_path / "disk.img"], check=True)
    subprocess.run(["mount", "-o", "loop", tmp_path / "disk.img", disk], check=True)
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", disk], check=True)
        spool = Spool(disk / "spool", SpoolLimits(refuse_below_mb=0, tidy_below_mb=0))
        stack.callback(spool.close)
        spool._parts._refuse_below = -1 << 40
        small, large = (a_film(tmp_path / f"{side}.dcm", side) for side in (100, 2500))
        with Receiver(spool, DicomSection(host="127.0.0.1", port=0)) as receiver:
            assert sent(receiver, small) == [0]
            _fill(disk, 3_000_000)  # room for the small one, and for a quarter of the large one
            again = a_film(tmp_path / "again.dcm", 101)
            assert sent(receiver, large, again, small) == [0xA700, 0, 0]
            assert list((disk / "spool" / "incoming").iterdir()) == []
            (disk / "filler").unlink()
            with contextlib.suppress(OSError):  # full before it is filled: the file system keeps blocks for itself
                _fill(disk, 0)
            assert sent(receiver, large, a_film(tmp_path / "another.dcm", 500)) == [0xA700, 0xA700]
            assert spool.counts()[State.RECEIVED] == 2
            (disk / "filler").unlink()
            assert sent(receiver, large, small) == [0, 0]
            assert receiver.statistics()["refused_full"] == 3
            assert receiver.statistics()["faults"] == 0
        for path in (small, large, again):
            (image_,) = spool.find(str(pydicom.dcmread(path).SOPInstanceUID))
            assert pydicom.dcmread(spool.path(image_)).PixelData == pydicom.dcmread(path).PixelData
        assert len(files(disk)) == 3


def a_film(path: Path, side: int) -> Path:
    return write_dicom(chest(side, "normal", size=side), path)


def sent(receiver: Receiver, *paths: Path) -> list[int | None]:
    peer = Peer("EDGECXR", "127.0.0.1", receiver.port)
    return [result.status for result in send(list(paths), peer, "UNIT", timeout_s=60)]


def test_no_room_in_the_index_keeps_nothing(tmp_path: Path) -> None:
    """SQLite's own limit on its file gives the same error as a full disk, without root."""
    spool = Spool(tmp_path / "spool", LIMITS)
    with spool._database.read() as connection:
        connection.execute("PRAGMA max_page_count = 1")
    for index in itertools.count():
        try:
            _put_unreserved(spool, f"1.{index}", b"film")
        except SpoolFull:
            break
    with pytest.raises(SpoolFull, match="no room on the disk for its index"):
        _put_unreserved(spool, "2.1", b"film")
    assert len(files(tmp_path)) == spool.counts()[State.RECEIVED] == index
    with spool._database.read() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert _put_unreserved(spool, "2.1", b"film").copy == "new"
    spool.close()


@pytest.mark.root
def test_results_that_find_no_room_are_sent_when_there_is(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk and index are full while the SR and the Secondary Capture are written to ``outgoing``."""
    monkeypatch.setattr(outbox, "FIRST_S", 0.2)
    disk = tmp_path / "disk"
    got: list[Any] = []

    def store(event: Any) -> int:
        got.append(event.dataset)
        return 0

    archive = AE("PACS")
    for sop_class in (SR, CAPTURE):
        archive.add_supported_context(sop_class)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], check=True)
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", disk], check=True)
        server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
        stack.callback(server.shutdown)
        node = _unstarted(disk / "node", tiny_bundle, server.socket.getsockname()[1])
        stack.callback(node.stop, 0)
        image = _decided(node, a_film(tmp_path / "film.dcm", 128), tiny_bundle)
        outgoing = disk / "node" / "outgoing"
        outgoing.mkdir()
        for room in (0, 4096):
            _fill(disk, room)
            for delivery, _ in node.spool.deliveries(image):
                with pytest.raises(SpoolFull, match=r"could not be written to .*outgoing: No space left on device"):
                    node._built(delivery)
                assert list(outgoing.iterdir()) == []
            (disk / "filler").unlink()
        _fill(disk, 0)
        node.outbox.start()
        stack.callback(node.outbox.stop)
        until(lambda: node.outbox.states()[0].error)
        assert (got, node.spool.get(image).state) == ([], State.DECIDED)
        (disk / "filler").unlink()
        until(lambda: node.spool.get(image).state is State.DELIVERED)
        until(lambda: list(outgoing.iterdir()) == [])
    assert sorted(item.Modality for item in got) == ["OT", "SR"]


def _unstarted(folder: Path, bundle: Path, port: int) -> Node:
    """A node whose parts are at hand: a full disk at its start is another matter."""
    settings = {
        "folder": folder,
        "bundle": {"path": bundle, "allow_unsigned": True},
        "spool": {"refuse_below_mb": 0, "tidy_below_mb": 0},
        "dicom": None,
        "http": None,
        "destinations": [{"name": "pacs", "ae": "PACS", "host": "127.0.0.1", "port": port}],
    }
    return Node(NodeConfig.model_validate(settings, strict=False))


def _decided(node: Node, film: Path, bundle: Path) -> int:
    """Screened as a worker does it, with both objects to be delivered."""
    node.spool._parts._refuse_below = -1 << 40
    _put_unreserved(node.spool, str(pydicom.dcmread(film).SOPInstanceUID), film.read_bytes())
    image = claimed(node.spool)
    path = node.spool.path(image)
    with Screener(bundle, threads=1) as screener:
        found = screener.screen(path)
        record = to_record(found, image, screener.bundle.spec, screener.point, time.time())
    outcome = Outcome(found.status, record, found.cam, read_identity(path), record["urgency"], "proof")
    node.spool.finish(image.id, outcome, [NewDelivery("pacs", kind, generate_uid()) for kind in ("sr", "capture")])
    return image.id


@pytest.mark.root
def test_an_install_that_finds_no_room_leaves_in_use_what_was(tmp_path: Path, tiny_build: Any) -> None:
    """Every amount of free room from none to enough."""
    old, new = (tiny_build.write(tmp_path / f"{name}.cxr", card=f"# {name}\n") for name in ("old", "new"))
    step = new.stat().st_size // 8
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={old.stat().st_size * 4}", "tmpfs", disk], check=True)
    try:
        install(disk, old, allow_unsigned=True)
        told: list[str] = []
        for room in itertools.chain(range(0, 8192, 4096), itertools.count(step, step)):
            _fill(disk, room)
            try:
                path = install(disk, new, allow_unsigned=True).path
                break
            except BundleError as error:
                told.append(str(error))
            used = current(disk)
            assert used is not None
            assert used.read_bytes() == old.read_bytes()
            assert not [left for left in (disk / "bundles").iterdir() if left.name.startswith(".")]
            (disk / "filler").unlink()
        assert len(told) > 4
        assert all("No space left on device; what was in use is in use still" in text for text in told)
        assert path == current(disk)
        assert path.read_bytes() == new.read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)

"""A disk that is full at any moment: all of an image, or nothing of it."""

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgecxr.errors import SpoolFull
from edgecxr.runtimes.node.spool import (
    Arrival,
    Image,
    Outcome,
    Receipt,
    Spool,
    SpoolLimits,
    State,
)

LIMITS = SpoolLimits(max_object_mb=1, refuse_below_mb=0, tidy_below_mb=0)
CR = "1.2.840.10008.5.1.4.1.1.1"
OK = Outcome("ok", {"findings": []})
REFUSED = Outcome("refused", {"reason": "no_contrast", "findings": []})


def claimed(spool: Spool) -> Image:
    image = spool.claim()
    assert image is not None
    return image


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".part", ".dcm", ".bin"))


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

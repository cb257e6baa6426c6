"""A spool that is opened: mended after a crash, refused where it cannot be trusted, kept from others."""

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from spools import LIMITS, claimed, put

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.database import SCHEMA_VERSION
from edgecxr.runtimes.node.spool import (
    Recovery,
    Spool,
    State,
)


def reopened(spool: Spool) -> tuple[Spool, Recovery]:
    spool.close()
    again = Spool(spool.folder, spool.limits)
    return again, again.recover()


def test_recovery_does_again_what_was_half_done(spool: Spool, folder: Path) -> None:
    images = [put(spool, f"1.{index}", bytes([index])).image for index in range(4)]
    claimed(spool)
    spool.release(images[0])
    for _ in range(2):  # the first has failed once before
        claimed(spool)
    spool.fail(images[0], "once")
    assert claimed(spool).id == images[0]
    (folder / "incoming" / "ab.part").write_bytes(b"half")
    stray = folder / "films" / "ff" / "ffff.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"never acknowledged")
    spool.path(spool.get(images[3])).unlink()
    spool, recovery = reopened(spool)
    assert recovery == Recovery(parts=1, orphans=1, requeued=1, quarantined=1, lost=1)
    states = [(spool.get(image).state, spool.get(image).attempts, spool.get(image).error) for image in images]
    assert states == [
        (State.QUARANTINED, 2, "crashed twice while being screened"),
        (State.RECEIVED, 1, ""),
        (State.RECEIVED, 0, ""),
        (State.QUARANTINED, 0, "its file is gone from the spool"),
    ]
    assert spool.path(spool.get(images[0])).parent.name == "quarantine"
    assert not stray.exists()
    with pytest.raises(SpoolError, match="the file of image 4 is gone"):
        spool.retry(images[3])
    spool, recovery = reopened(spool)
    assert recovery == Recovery()
    spool.close()


def test_a_file_that_was_not_moved_in_time_is_moved_at_the_next_start(spool: Spool, folder: Path) -> None:
    image = put(spool, "1.2.3").image
    for _ in range(2):
        spool.fail(claimed(spool).id, "crash")
    kept = spool.get(image)
    where = spool.path(kept)
    back = folder / "films" / kept.file[:2] / kept.file
    where.rename(back)  # as if the power had failed between commit and move
    assert spool.path(kept) == back
    spool, recovery = reopened(spool)
    assert recovery == Recovery()
    assert spool.path(spool.get(image)) == where
    spool.close()


def test_two_nodes_do_not_share_a_spool(spool: Spool, folder: Path) -> None:
    other = Spool(folder, LIMITS)
    with pytest.raises(SpoolError, match="in use by another node"):
        other.recover()
    assert other.counts()[State.RECEIVED] == 0  # reading is allowed
    spool.close()
    other.recover()
    other.close()


def test_a_newer_spool_is_refused_with_a_sentence(folder: Path) -> None:
    Spool(folder, LIMITS).close()
    with sqlite3.connect(folder / "node.db") as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(SpoolError, match=rf"is of schema {SCHEMA_VERSION + 1}, .* knows {SCHEMA_VERSION}: update"):
        Spool(folder, LIMITS)


def test_a_damaged_index_is_refused_with_a_sentence(folder: Path) -> None:
    folder.mkdir()
    (folder / "node.db").write_bytes(b"no database" * 1000)
    with pytest.raises(SpoolError, match="the spool's index cannot be used: file is not a database"):
        Spool(folder, LIMITS)


def test_a_closed_spool_says_so(spool: Spool) -> None:
    spool.close()
    with pytest.raises(SpoolError, match="the spool is closed"):
        spool.claim()


def test_another_process_sees_and_changes_the_spool(spool: Spool) -> None:
    put(spool, "1.1")
    for _ in range(2):
        spool.fail(claimed(spool).id, "crash")
    other = Spool(spool.folder, LIMITS)
    other.retry(1)
    other.close()
    assert claimed(spool).id == 1


def test_only_the_owner_may_read_the_spool(spool: Spool) -> None:
    image = spool.get(put(spool, "1.1").image)
    for path in (spool.folder, spool.path(image), spool.path(image).parent, spool.folder / "node.db"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"the spool .*/file cannot be used: (File exists|Not a directory)"):
        Spool(tmp_path / "file", LIMITS)
    assert os.listdir(tmp_path) == ["file"]


def test_many_may_open_a_new_spool_at_once(folder: Path) -> None:
    opened: list[Spool] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        opened.append(Spool(folder, LIMITS))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    for spool in opened:
        spool.close()

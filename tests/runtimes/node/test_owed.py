"""Marks that are owed: on the disk also when it is full, and never more than its one page."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from edgecxr.runtimes.node.owed import SIZE, Owed

TWO = [("a", "logits differ"), ("b", "no answer: Öl")]


def again(path: Path) -> list[tuple[str, str]]:
    """What the next start finds, in its order."""
    found, owed = [], Owed(path)
    owed.recover()
    while (first := owed.first()) is not None:
        found.append(first)
        owed.settled(first)
    return found


def test_what_is_owed_is_found_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "doubts"
    owed = Owed(path)
    owed.recover()
    assert path.stat().st_size == SIZE
    assert owed.first() is None
    for mark in TWO:
        owed.add(*mark)
    assert owed.first() == TWO[0]
    owed.settled(TWO[0])
    owed.settled(TWO[0])
    owed.add(*TWO[0])
    assert again(path) == TWO[::-1]
    assert again(path) == []


def test_long_reasons_are_cut_before_a_proof_is_left_out(tmp_path: Path) -> None:
    owed = Owed(tmp_path / "doubts")
    for number in range(10):
        owed.add(f"{number}", "x" * 900)
    assert (tmp_path / "doubts").stat().st_size == SIZE
    assert owed.first() == ("0", "x" * 900)
    assert again(tmp_path / "doubts") == [(f"{number}", "x" * 100) for number in range(10)]
    many = Owed(tmp_path / "many")
    for number in range(100):
        many.add(f"{number:032}", "x")
    found = again(tmp_path / "many")
    assert len(found) > 80
    assert found == [(f"{number:032}", "x"[:0]) for number in range(len(found))]


def test_a_damaged_file_is_told_and_taken_for_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "doubts"
    Owed(path).add(*TWO[0])
    path.write_bytes(path.read_bytes().replace(b"logits", b"logics"))
    with caplog.at_level(logging.ERROR):
        assert again(path) == []
    assert "the file is damaged" in caplog.text


@pytest.mark.root
def test_a_full_disk_takes_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        owed = Owed(disk / "doubts")
        owed.recover()
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(bytes(4096))
        owed.add(*TWO[0])
        assert again(disk / "doubts") == TWO[:1]
    finally:
        subprocess.run(["umount", disk], check=True)

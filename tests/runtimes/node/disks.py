"""Disks whose power can be cut: needs root and loop devices.

The files under test are on an ext4 file system in a file, which is on a second file system. That one is frozen
(FIFREEZE) at any moment, also in the middle of an fsync, and the file copied: an image of the disk at one instant.
Mounting the copy replays its journal. This models the loss of everything that the system had not written; not a drive
that lies about its own cache.
"""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FREEZE, THAW = 0xC0045877, 0xC0045878  # linux/fs.h: FIFREEZE, FITHAW
SIZE = 64_000_000  # bytes


def snapshot(outer: Path, target: Path) -> None:
    """Copy the disk of the spool as it is at one instant."""
    descriptor = os.open(outer, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FREEZE, 0)
        try:
            copy_sparse(outer / "disk.img", target)
        finally:
            fcntl.ioctl(descriptor, THAW, 0)
    finally:
        os.close(descriptor)


def copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as copy:
        size, end = file.seek(0, os.SEEK_END), 0
        copy.truncate(size)
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole to the end
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            os.lseek(copy.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(copy.fileno(), file.fileno(), start, end - start)


@contextmanager
def disks(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A fresh file system for the spool, in a file of a second one that can be frozen."""
    format_disk(folder / "outer.img", SIZE + 30_000_000)
    with mounted(folder / "outer.img", folder / "outer") as outer:
        format_disk(outer / "disk.img", SIZE)
        with mounted(outer / "disk.img", folder / "inner") as inner:
            yield outer, inner


def format_disk(path: Path, size: int) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", path], check=True)


@contextmanager
def mounted(disk: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield place
    finally:
        for _ in range(50):
            if subprocess.run(["umount", place], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)

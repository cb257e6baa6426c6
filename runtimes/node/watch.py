"""A watched folder: files that are put there become images of the spool, and then leave it."""

import logging
import mmap
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecxr.errors import EdgeCxrError, ObjectTooLarge, Refusal, SpoolFull
from edgecxr.read.dicom import is_dicom, open_dataset
from edgecxr.read.guard import DEFAULT
from edgecxr.runtimes.node.config import WatchSection
from edgecxr.runtimes.node.images import Arrival
from edgecxr.runtimes.node.lease import is_written
from edgecxr.runtimes.node.outbox import delay_s, place

if TYPE_CHECKING:
    from edgecxr.runtimes.node.parts import Part
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["UNTOLD_S", "Watcher", "read_uids"]

LOG = logging.getLogger(__name__)
CHUNK = 1 << 20  # bytes
UNFINISHED = (".part", ".tmp", ".partial", ".filepart", ".crdownload")  # what copying programs call a file meanwhile
UNTOLD_S = 60.0  # without change, where the system does not tell whether a program still writes a file
EMPTY_FACTOR = 10  # an empty file waits as many times longer: it is mostly one that is about to be written
UID = re.compile(r"[0-9.]{1,64}")

Signature = tuple[int, int, int, int]  # device, inode, size in bytes, modification time in ns


@dataclass
class _Sight:
    """A file in the folder, as last seen."""

    signature: Signature
    since: float  # monotonic s, from which it has looked so
    failures: int = 0
    retry: float = 0.0  # monotonic s
    problem: str = ""
    taken: bool = False  # it is in the spool and only has to go


class Watcher(threading.Thread):
    """Looks into one folder and its subfolders every `poll_s` seconds.

    A file is taken when its size and time have not changed for `settle_s` seconds and no program of this machine has
    it open for writing; where the system does not tell that, when they have not changed for `UNTOLD_S` seconds. Hidden
    names, links and names such as ``*.part`` are left alone. Its bytes are durable in the spool before it is removed.
    What has changed by then, or is being written again, is not removed: it is another file. What cannot be taken stays,
    is named in `problems`, and is tried again ever less often.
    """

    def __init__(self, spool: "Spool", section: WatchSection) -> None:
        super().__init__(name=f"watch-{section.folder.name}", daemon=True)
        self.spool = spool
        self.section = section
        self.taken = 0
        self._sights: dict[Path, _Sight] = {}
        self._unlisted: dict[Path, str] = {}
        self._full = ""
        self._untold = False  # somebody was told that it cannot be told who writes
        self._stopping = threading.Event()

    def run(self) -> None:
        """Watch until stopped."""
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception:
                LOG.exception("watched folder: a fault of ours")
            self._stopping.wait(self.section.poll_s)

    def stop(self) -> None:
        """End; a file that is being copied stays where it is."""
        self._stopping.set()
        if self.ident is not None:
            self.join()

    def problems(self) -> dict[str, str]:
        """What could not be taken, and why; names are as in the folder, and may be those of patients."""
        found = {_shown(path): problem for path, problem in self._unlisted.copy().items()}
        found |= {_shown(path): sight.problem for path, sight in self._sights.copy().items() if sight.problem}
        return found | ({_shown(self.section.folder): self._full} if self._full else {})

    def look(self) -> None:
        """One round: note what is there, and take what has settled, oldest first."""
        now = time.monotonic()
        present = dict(self._files())
        self._sights = {path: self._seen(path, signature, now) for path, signature in present.items()}
        for path in sorted(present, key=lambda path: (present[path][3], path)):
            sight = self._sights[path]
            if self._stopping.is_set():
                return
            if now < sight.retry or (not sight.taken and now - sight.since < self._settle(sight)):
                continue
            try:
                self._take(path, sight)
            except SpoolFull as error:
                self._wait_for_room(str(error))
                return
        self._full = ""

    def _seen(self, path: Path, signature: Signature, now: float) -> _Sight:
        known = self._sights.get(path)
        return known if known and known.signature == signature else _Sight(signature, now)

    def _settle(self, sight: _Sight) -> float:
        return self.section.settle_s * (1 if sight.signature[2] else EMPTY_FACTOR)

    def _files(self) -> Iterator[tuple[Path, Signature]]:
        """The regular files that are not hidden, unfinished or links, at any depth."""
        pending = [self.section.folder]
        unlisted = {}
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(Path(entry.path))
                        elif entry.is_file(follow_symlinks=False) and not entry.name.lower().endswith(UNFINISHED):
                            yield Path(entry.path), _signature(entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                if folder == self.section.folder:
                    unlisted[folder] = "there is no such folder"
            except OSError as error:
                unlisted[folder] = f"the folder cannot be listed: {error.strerror or error}"
        for folder in unlisted.keys() - self._unlisted.keys():
            LOG.warning("watched folder %s: %s", self.section.folder, unlisted[folder])
        self._unlisted = unlisted

    def _take(self, path: Path, sight: _Sight) -> None:
        """Bytes into the spool, durably; then remove the file. Raises SpoolFull."""
        try:
            with self._opened(path, sight) as descriptor:
                if not sight.taken:
                    if not self._copy(descriptor, path, sight):
                        return
                    sight.taken = True
                    self.taken += 1
                if self._may_be_written(descriptor, sight) or _signature(os.lstat(path)) != sight.signature:
                    return  # it is another file, or will be: for another round
                os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            what = "taken, but it cannot be removed" if sight.taken else "it cannot be read"
            self._report(sight, f"{what}: {error.strerror or error}")
        except SpoolFull:
            raise
        except EdgeCxrError as error:
            self._report(sight, str(error))
        except Exception as error:  # of one file: the others go on
            LOG.exception("watched folder %s: a fault of ours", self.section.folder)
            self._report(sight, f"internal error: {place(error)}")

    @contextmanager
    def _opened(self, path: Path, sight: _Sight) -> Iterator[int]:
        limit = self.spool.limits.max_object_mb
        if sight.signature[2] > limit * 1_000_000:
            raise ObjectTooLarge(f"{sight.signature[2]:,} bytes; spool.max_object_mb allows {limit:,} MB")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _copy(self, descriptor: int, path: Path, sight: _Sight) -> bool:
        """Whether the file is in the spool now; not, where it is still being written or changed on the way."""
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or self._may_be_written(descriptor, sight):
            return False
        with self.spool.part() as part:
            while chunk := os.read(descriptor, CHUNK):
                part.write(chunk)
                if self._stopping.is_set():
                    return False
            if _signature(os.fstat(descriptor)) != sight.signature or part.size != sight.signature[2]:
                return False
            self._commit(part, path)
        return True

    def _may_be_written(self, descriptor: int, sight: _Sight) -> bool:
        """Whether more of the file may come: a program has it open for writing, or may have, and changed it of late."""
        written = is_written(descriptor)
        if written is not None:
            return written
        if not self._untold:
            self._untold = True
            LOG.warning(
                "watched folder %s: whether a file there is still being written cannot be told (it is another user's "
                "and the node has no CAP_LEASE, or the disk has no leases): such files are taken when they have not "
                "changed for %.0f s",
                self.section.folder,
                UNTOLD_S,
            )
        return time.monotonic() - sight.since < UNTOLD_S

    def _commit(self, part: "Part", path: Path) -> None:
        sop_class, sop_instance, syntax = read_uids(part.path)
        name = _shown(path.relative_to(self.section.folder))
        priority = self.section.priority
        receipt = self.spool.commit(part, Arrival(sop_class, sop_instance, syntax, "folder", name, priority))
        LOG.info("watched folder: image %d taken (%s)", receipt.image, receipt.copy)

    def _report(self, sight: _Sight, problem: str) -> None:
        """Say it once, without the file's name; wait before it is tried again."""
        if problem != sight.problem:
            LOG.warning("watched folder %s: a file stays there: %s", self.section.folder, problem)
        sight.problem = problem
        sight.failures += 1
        sight.retry = time.monotonic() + delay_s(sight.failures)

    def _wait_for_room(self, problem: str) -> None:
        if not self._full:
            LOG.warning("watched folder %s: files wait: %s", self.section.folder, problem)
        self._full = problem


def read_uids(path: Path) -> tuple[str, str, str]:
    """SOP class, SOP instance and transfer syntax of a file; "" each where it is no DICOM file that can be read.

    The file must not shrink meanwhile: it is mapped.
    """
    try:
        with path.open("rb") as handle:
            data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        if not is_dicom(data):
            return "", "", ""
        header, syntax, _ = open_dataset(data, DEFAULT)
        found = (header.text("SOPClassUID"), header.text("SOPInstanceUID"), syntax)
    except (Refusal, ValueError):  # ValueError: nothing to map
        return "", "", ""
    return found if all(UID.fullmatch(value) for value in found) else ("", "", "")


def _signature(status: os.stat_result) -> Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _shown(path: Path) -> str:
    """A name as text that any database takes: bytes that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")

"""Objects on their way in: bytes straight to a file, with room on the disk reserved before the first of them."""

import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from edgecxr.errors import EdgeCxrError, ObjectTooLarge, SpoolError, SpoolFull
from edgecxr.runtimes.node.writeback import write_back

__all__ = ["MEGABYTE", "Part", "Parts", "disk_error", "free_bytes"]

MEGABYTE = 1_000_000
RESERVED = 64 * MEGABYTE  # set aside for an object at once, and again when it has filled that; a film has 2 to 36 MB
EARLY = 4 * MEGABYTE  # after so many bytes the disk begins with them, so that fsync finds little left to do
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def free_bytes(folder: Path) -> int:
    """Bytes that a program may still write on the disk of a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def disk_error(error: OSError, what: str) -> EdgeCxrError:
    """What an OSError of the disk means: SpoolFull where there is no room, SpoolError else."""
    told = f"{what}: {error.strerror or error}"
    return SpoolFull(told) if error.errno in NO_ROOM else SpoolError(told)


class Part:
    """One object that is being received. Leaving its ``with`` block discards it, unless the spool has committed it."""

    def __init__(
        self, path: Path, limit: int, closed: Callable[["Part"], None], grow: Callable[["Part"], None] | None = None
    ) -> None:
        """`grow` is asked for room when the part has filled what was `reserved`; it may raise SpoolFull."""
        self.path = path
        self.size = 0  # bytes
        self.reserved = limit  # bytes that the part may have without asking
        self.step = RESERVED  # bytes that it gets when it asks
        self._limit = limit
        self._begun = 0  # bytes that the disk has begun with
        self._closed = closed
        self._grow = grow
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of it.

        Raises SpoolFull where the disk is full, ObjectTooLarge past the limit, SpoolError where the disk fails or
        the part is closed; each of the first three discards the part.
        """
        if self._descriptor is None:
            raise SpoolError("this part was committed or discarded; take a new one for more bytes")
        view = memoryview(data)
        self.size += view.nbytes
        if self.size > self._limit:
            self.discard()
            raise ObjectTooLarge(
                f"more than {self._limit // MEGABYTE} MB in one object; spool.max_object_mb allows more"
            )
        if self.size > self.reserved and self._grow is not None:
            self._ask(self._grow)
        try:
            written = os.write(self._descriptor, view)
            if written != view.nbytes:
                self._rest(view.cast("B")[written:])
        except OSError as error:
            self.discard()
            raise disk_error(error, "an object could not be written to the spool") from error
        if self.size - self._begun >= EARLY:
            write_back(self._descriptor, self._begun, self.size - self._begun)
            self._begun = self.size

    def seal(self) -> None:
        """Make the bytes durable and close the file, which stays. Raises SpoolFull or SpoolError, and discards."""
        if self._descriptor is None:
            raise SpoolError("this part was committed or discarded already")
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.discard()
            raise disk_error(error, "an object could not be made durable") from error
        self._close()

    def discard(self) -> None:
        """Close and remove the file; nothing where that was done, or the spool has committed it."""
        if self._descriptor is not None:
            self._close()
            with contextlib.suppress(OSError):  # what a failing disk keeps is removed at the next start
                self.path.unlink(missing_ok=True)

    @property
    def open(self) -> bool:
        """Whether it still takes bytes."""
        return self._descriptor is not None

    def __enter__(self) -> "Part":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _ask(self, grow: Callable[["Part"], None]) -> None:
        try:
            grow(self)
        except SpoolFull:
            self.discard()
            raise

    def _rest(self, view: memoryview) -> None:
        """What a short write left; a full disk shows as one, before it shows as an error."""
        while view.nbytes and self._descriptor is not None:
            written = os.write(self._descriptor, view)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            view = view[written:]

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._closed(self)
            with contextlib.suppress(OSError):  # it was made durable before, or it is discarded
                os.close(descriptor)


class Parts:
    """The open parts of one spool, and the room that is set aside for them: a little at first, more as they grow."""

    def __init__(self, folder: Path, max_object: int, refuse_below: int) -> None:
        """`max_object` bytes an object may have, `refuse_below` bytes that stay free on the disk."""
        self.folder = folder
        self._max_object = max_object
        self._refuse_below = refuse_below
        self._open: set[Part] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)

    def open(self, step: int | None = None, expected: int = 0) -> Part:
        """A part, for which the disk has room. Raises SpoolFull, SpoolError.

        `step` bytes (`RESERVED` unless given) are set aside at once, and again whenever it has filled those. The disk
        must have room for the `expected` ones, too, but they are not set aside: who promises many may never send them.
        """
        step = RESERVED if step is None else step
        with self._lock:
            first = min(step, self._max_object)
            self._check(max(first, min(expected, self._max_object)))
            try:
                name = f"{uuid.uuid4().hex}.part"
                part = Part(self.folder / name, self._max_object, self._forget, self._extend)
            except OSError as error:
                raise disk_error(error, f"no file could be opened in {self.folder}") from error
            part.reserved, part.step = first, step
            self._open.add(part)
            return part

    def check(self) -> None:
        """Whether the disk has room beside what open parts may still take. Raises SpoolFull."""
        with self._lock:
            self._check(0)

    def _extend(self, part: Part) -> None:
        """More room for a part that has filled its own. Raises SpoolFull."""
        with self._lock:
            wanted = max(part.size, min(part.reserved + part.step, self._max_object))
            self._check(wanted - part.reserved)
            part.reserved = wanted

    def _check(self, more: int) -> None:
        """Whether the disk has room for `more` bytes beside what open parts may still take. Raises SpoolFull."""
        free = free_bytes(self.folder)
        promised = more + sum(max(0, part.reserved - part.size) for part in self._open)
        if free - promised < self._refuse_below:
            raise SpoolFull(
                f"{free // MEGABYTE} MB free on the disk, of which {promised // MEGABYTE} are for images on their "
                f"way in and {self._refuse_below // MEGABYTE} stay free (spool.refuse_below_mb)"
            )

    def _forget(self, part: Part) -> None:
        with self._lock:
            self._open.discard(part)

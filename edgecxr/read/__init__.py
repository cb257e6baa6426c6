"""Reading films: DICOM, PNG, TIFF and JPEG files, each exactly or not at all."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.radiograph import Radiograph
from edgecxr.read.dicom import is_dicom, read_dicom
from edgecxr.read.guard import DEFAULT, Limits, load
from edgecxr.read.photo import photo_reader
from edgecxr.spec import PreprocessSpec

__all__ = ["DEFAULT", "Limits", "file_stamp", "find_files", "is_dicom", "read_radiograph"]


def read_radiograph(
    path: str | Path, *, limits: Limits = DEFAULT, reduced_for: PreprocessSpec | None = None
) -> Radiograph:
    """The film in a DICOM, PNG, TIFF or JPEG file, told apart by content and never by name.

    With `reduced_for` (a model's `ModelSpec.reduced_for`), a DICOM film in JPEG 2000 is decoded at the coarsest of its
    resolutions that suffices for that input, and a note says so: (H, W) is then that resolution's. Without it, and in
    every other format, in full.

    Safe to call from several threads. Raises Refusal with the reason when the file is not read exactly; nothing else
    is raised for a bad file.
    """
    try:
        return _read(Path(path), str(path), limits, reduced_for)
    except MemoryError as error:
        raise Refusal(RefusalReason.TOO_LARGE, "the film does not fit into the memory that is left") from error


def _read(path: Path, source: str, limits: Limits, reduced_for: PreprocessSpec | None) -> Radiograph:
    data = load(path, limits)
    if is_dicom(data):
        return read_dicom(data, source, limits, reduced_for)
    reader = photo_reader(data)
    if reader is None:
        raise Refusal(RefusalReason.UNREADABLE, _unknown(data))
    return reader(data, source, limits)


def _unknown(data: memoryview) -> str:
    if not len(data):
        return "the file is empty"
    if bytes(data[:2]) in (b"\x08\x00", b"\x00\x08"):
        return "perhaps a DICOM data set, but without the PS3.10 meta information that names its transfer syntax"
    return f"neither DICOM, PNG, TIFF nor JPEG: the file begins with {bytes(data[:8]).hex(' ')}"


def file_stamp(path: str | Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in ns, to tell a file from a later one of its name; None without it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return status.st_size, status.st_mtime_ns


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files to read: each path that is no folder, as given, and all files below each folder, sorted by name.

    Inside folders, hidden names and DICOMDIR are left out. A path that does not exist, a folder that cannot be listed
    and a link to a folder (it may lead back) are yielded as they are, so that reading them refuses them by name.
    """
    for path in paths:
        pending = [Path(path)]
        top = True
        while pending:
            current = pending.pop()
            if not current.is_dir() or (current.is_symlink() and not top):
                yield current
            else:
                try:
                    pending += reversed(_listing(current))
                except OSError:
                    yield current
            top = False


def _listing(folder: Path) -> list[Path]:
    names = sorted(os.listdir(folder))
    return [folder / name for name in names if not name.startswith(".") and name.upper() != "DICOMDIR"]

"""Whether two files hold the same image, and a name for what brings no UID of its own."""

import hashlib
import uuid
from pathlib import Path
from typing import BinaryIO

from edgecxr.errors import Refusal
from edgecxr.read.elements import Encoding, walk_group
from edgecxr.read.guard import DEFAULT

__all__ = ["digest_uid", "same_image"]

CHUNK = 1 << 20  # bytes compared at once
HEAD = 1 << 16  # bytes in which a data set begins; where it does not, the whole files are compared
META = Encoding(implicit=False, little=True)  # PS3.10 7.1


def same_image(path: Path, other: Path, *, from_data_set: bool) -> bool:
    """Whether two files have the same bytes; a file that is gone or cannot be read is like no other.

    `from_data_set`: of DICOM files the meta information is passed over (PS3.10 7.1), which says who sent or wrote the
    file. Only for files of one transfer syntax, which stands there, too.
    """
    try:
        with path.open("rb", buffering=0) as one, other.open("rb", buffering=0) as two:
            files = (one, two)
            starts = [_data_set(file) if from_data_set else 0 for file in files]
            ends = [file.seek(0, 2) for file in files]
            if ends[0] - starts[0] != ends[1] - starts[1]:
                return False
            for file, start in zip(files, starts, strict=True):
                file.seek(start)
            return _alike(one, two)
    except OSError:
        return False


def digest_uid(path: Path) -> str:
    """A UID made of a file's bytes, the same whenever they come: 2.25 and a UUID (PS3.5 B.2) of their SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=5).int}"


def _alike(one: BinaryIO, two: BinaryIO) -> bool:
    while chunk := one.read(CHUNK):
        if chunk != two.read(CHUNK):
            return False
    return True


def _data_set(file: BinaryIO) -> int:
    """Where the data set of a PS3.10 file begins; 0 where there is no telling."""
    head = file.read(HEAD)
    if head[128:132] != b"DICM":
        return 0
    try:
        _, end = walk_group(memoryview(head), 132, META, DEFAULT)
    except Refusal:
        return 0
    return end if end < len(head) else 0

"""The container of a bundle: a zip whose members are stored, not compressed. The same content gives the same bytes."""

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgecxr.errors import BundleError

__all__ = ["LIMIT_BYTES", "pack", "read_bytes", "unpack", "write_atomically"]

LIMIT_BYTES = 64 * 1024 * 1024  # a student is about 3 MB in INT8; a file larger than this is no bundle of ours
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can state


def read_bytes(path: Path) -> bytes:
    """All bytes of the file, once, so that nothing can change between check and use. Raises BundleError."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}; give the path of a .cxr file") from error
    if len(data) > LIMIT_BYTES:
        raise BundleError(f"{path}: larger than {LIMIT_BYTES // 2**20} MB, so it is not a bundle")
    return data


def unpack(data: bytes, source: str) -> dict[str, bytes]:
    """Name -> content of every member. Raises BundleError for what is not a plain, whole, stored zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_listing(archive.infolist(), len(data), source)
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError, NotImplementedError) as error:
        raise BundleError(
            f"{source}: not a whole bundle ({error}); copy the file again from where it was built"
        ) from error


def _check_listing(listing: list[zipfile.ZipInfo], size: int, source: str) -> None:
    if not listing or listing[0].header_offset != 0:  # a cut file may end in the directory of an npz within it
        raise zipfile.BadZipFile("the directory is not that of the whole file")
    seen: set[str] = set()
    for info in listing:
        name = info.filename
        if name in seen:
            raise BundleError(f"{source}: holds two members named {name!r}; it was altered, so it is not used")
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise BundleError(
                f"{source}: member name {name!r} points outside the bundle; it was altered, so it is not used"
            )
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise BundleError(f"{source}: member {name!r} is compressed or encrypted; members of a bundle are stored")
        seen.add(name)
    claimed = sum(info.file_size for info in listing)
    if claimed > size:
        raise BundleError(
            f"{source}: members claim {claimed} bytes in a file of {size}; it was altered, so it is not used"
        )


def pack(members: Mapping[str, bytes]) -> bytes:
    """The zip of these members, in this order: the same members give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3  # Unix, on every platform
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write the whole file or none of it; survives a power cut after the return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

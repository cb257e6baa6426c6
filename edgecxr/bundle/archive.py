"""The container of a bundle: a zip whose members are stored, not compressed. The same content gives the same bytes."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from edgecxr.errors import BundleError

__all__ = ["LIMIT_BYTES", "loose_member", "pack", "read_bytes", "unpack"]

LIMIT_BYTES = 64 * 1024 * 1024  # a student is about 3 MB in INT8; a file larger than this is no bundle of ours
LOOSE = 1024 * 1024  # bytes of a manifest, at most
MOST = 64  # members; a bundle has nine at most
# Of APPNOTE.TXT 6.3.10: signature, version, flags, method, time and date (1980-01-01), CRC, sizes, lengths, attributes
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
VERSION, UNIX, UTF8, STORED, DATE, MODE = 20, 3, 0x800, 0, 0x21, 0o644 << 16


def read_bytes(
    path: Path, limit: int = LIMIT_BYTES, what: str = "a bundle", wanted: str = "the path of a .cxr file"
) -> bytes:
    """All bytes of the file, once, so that nothing can change between check and use. Raises BundleError.

    A file of more than `limit` bytes is not `what` was `wanted`, and is not read to its end.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}; give {wanted}") from error
    if len(data) > limit:
        size = f"{limit // 2**20} MB" if limit >= 2**20 else f"{limit // 2**10} KB"
        raise BundleError(f"{path}: larger than {size}, so it is not {what}")
    return data


def unpack(data: bytes, source: str) -> dict[str, bytes]:
    """Name -> content of every member. Raises BundleError for what is not a plain, whole, stored zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_listing(archive.infolist(), len(data), source)
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        if pack(members) != data:  # a zip says much twice, and some to nobody: this looks at every byte
            raise zipfile.BadZipFile("a header in it is not as EdgeCXR writes it")
        return members
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError, NotImplementedError) as error:
        raise BundleError(
            f"{source}: not a whole bundle ({error}); copy the file again from where it was built"
        ) from error


def loose_member(data: bytes, name: str) -> bytes | None:
    """A member of any zip, whatever else is in it; None where it cannot be read. Nothing of it is to be trusted.

    Of packed ones only deflate is read, which unpacks as far as it is asked to.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            info = archive.getinfo(name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                return None
            with archive.open(info) as stream:
                content = stream.read(LOOSE + 1)
            return content if len(content) <= LOOSE else None
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, OSError, RuntimeError):
        return None


def _check_listing(listing: list[zipfile.ZipInfo], size: int, source: str) -> None:
    if not listing or listing[0].header_offset != 0:  # a cut file may end in the directory of an npz within it
        raise zipfile.BadZipFile("the directory is not that of the whole file")
    if len(listing) > MOST:
        raise BundleError(f"{source}: holds {len(listing)} members, a bundle {MOST} at most; it is not used")
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
    """The zip of these members, in this order: the same members give the same bytes, with every Python."""
    bodies, directory, offset = [], [], 0
    for name, content in members.items():
        encoded, size = name.encode(), len(content)
        shared = (UTF8 * (not name.isascii()), STORED, 0, DATE, zlib.crc32(content), size, size, len(encoded), 0)
        local = LOCAL.pack(b"PK\3\4", VERSION, *shared) + encoded
        made_by = VERSION | UNIX << 8
        directory.append(CENTRAL.pack(b"PK\1\2", made_by, VERSION, *shared, 0, 0, 0, MODE, offset) + encoded)
        bodies += [local, content]
        offset += len(local) + size
    listing = b"".join(directory)
    end = END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(listing), offset, 0)
    return b"".join([*bodies, listing, end])

"""Named arrays in memory as npz bytes, read without pickle and within a limit."""

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import BundleError

__all__ = ["dump", "load"]

LIMIT_BYTES = 256 * 1024 * 1024  # of all arrays together once decompressed
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others do not stop unpacking at a limit
# What NumPy writes before an array of plain numbers; its own reader evaluates this text, and allocates what it claims
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|](?:[iu][1248]|f[248]))', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9, ]{0,99})\), \} *\n",
    re.DOTALL,
)


def dump(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Compressed npz of the arrays, by name; NumPy stamps no time into it, so equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def load(data: bytes, member: str) -> dict[str, NDArray[Any]]:
    """The arrays of `dump`. Raises BundleError naming `member` when they are broken, no numbers, or too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listing = archive.infolist()
            claimed = sum(info.file_size for info in listing)
            if claimed > LIMIT_BYTES:
                raise BundleError(f"{member}: unpacks to {claimed} bytes, more than {LIMIT_BYTES}; it is not used")
            if any(info.compress_type not in PACKINGS for info in listing):
                raise ValueError("packed with something else than deflate")
            return {info.filename.removesuffix(".npy"): _array(_read(archive, info)) for info in listing}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
        raise BundleError(f"{member}: its arrays cannot be read ({error}); build the bundle again") from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as stream:
        return stream.read(info.file_size)  # without a number, all that is packed is unpacked, whatever was claimed


def _array(content: bytes) -> NDArray[Any]:
    """The array of an npy file, if it is of plain numbers and exactly as long as its header says. Raises ValueError."""
    header = HEADER.match(content)
    if header is None:
        raise ValueError("one is not of plain numbers as NumPy writes them")
    kind, turned, sides = (part.decode() for part in header.groups())
    shape = tuple(int(side) for side in sides.split(",") if side.strip())
    dtype, values = np.dtype(kind), bytearray(memoryview(content)[header.end() :])
    if prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"one claims {shape} of {dtype}, and has {len(values)} bytes")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if turned == "True" else "C")

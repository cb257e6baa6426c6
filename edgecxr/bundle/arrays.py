"""Named arrays in memory as npz bytes, read without pickle and within a limit."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import BundleError

__all__ = ["dump", "load"]

LIMIT_BYTES = 256 * 1024 * 1024  # of all arrays together once decompressed


def dump(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Compressed npz of the arrays, by name; NumPy stamps no time into it, so equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def load(data: bytes, member: str) -> dict[str, NDArray[Any]]:
    """The arrays of `dump`. Raises BundleError naming `member` when they are broken, hold objects, or are too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            claimed = sum(info.file_size for info in archive.infolist())
        if claimed > LIMIT_BYTES:
            raise BundleError(f"{member}: unpacks to {claimed} bytes, more than {LIMIT_BYTES}; it is not used")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, OSError, NotImplementedError) as error:
        raise BundleError(f"{member}: its arrays cannot be read ({error}); build the bundle again") from error

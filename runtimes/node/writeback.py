"""Bytes that begin their way to the disk before anybody waits for them. What makes them durable is fsync, as ever.

Linux only: sync_file_range(2) with SYNC_FILE_RANGE_WRITE, which waits for nothing and takes no error from fsync.
"""

import ctypes
import sys

__all__ = ["write_back"]

SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h

_call = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
if _call is not None:
    _call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def write_back(descriptor: int, start: int, count: int) -> bool:
    """Let the system begin with `count` bytes from `start`; whether it has. Where it has not, fsync does all of it."""
    return _call is not None and _call(descriptor, start, count, SYNC_FILE_RANGE_WRITE) == 0

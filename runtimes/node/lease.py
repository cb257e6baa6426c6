"""Whether a program has a file open for writing, as far as the system tells: Linux, by a read lease (fcntl(2))."""

import fcntl
import re
import signal
from pathlib import Path

__all__ = ["CAP_LEASE", "is_written", "tells_of_others"]

CAP_LEASE = 28  # capabilities(7): to take leases on files of other users
STATUS = Path("/proc/self/status")


def is_written(descriptor: int) -> bool | None:
    """Whether a program has the file of this read-only descriptor open for writing; None where it cannot be told.

    It cannot of another user's file without CAP_LEASE, on many network shares, and on systems without leases.

    A read lease is granted only on what nobody writes. A writer that comes within the microseconds of the lease waits
    for its end; it would be announced by SIGIO, which ends a process, so by SIGURG, which does nothing.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def tells_of_others() -> bool:
    """Whether this process may ask about files of other users: whether it has CAP_LEASE."""
    try:
        effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return False
    return effective is not None and bool(int(effective[1], 16) >> CAP_LEASE & 1)

"""Whether something keeps this machine's clock right, as the kernel knows it (adjtimex(2), Linux)."""

import ctypes
import sys

__all__ = ["UNSYNCHRONISED", "synchronised"]

TIME_ERROR = 5  # state of a clock that nobody keeps
STA_UNSYNC = 0x40  # status
UNSYNCHRONISED = "the clock of this node was not synchronised: dates and times of the result may be wrong"


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`, with room for its rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("largest_error", ctypes.c_long),
        ("estimated_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 64),
    )


def synchronised() -> bool | None:
    """Whether the clock is kept by a reference (NTP, PTP, GPS …); None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None
    timex = _Timex()  # modes 0: only read
    return _said(adjtimex(ctypes.byref(timex)), timex.status)


def _said(state: int, status: int) -> bool | None:
    """What the returned state (-1: not allowed) and the status bits mean."""
    return None if state < 0 else state != TIME_ERROR and not status & STA_UNSYNC

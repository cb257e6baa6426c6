"""What the kernel says of its clock."""

import ctypes
import sys

import pytest

from edgecxr.runtimes.node import clock


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [(0, 0x2001, True), (1, 0x10, True), (0, 0x40, False), (5, 0x40, False), (5, 0, False), (-1, 0, None)],
)
def test_what_state_and_status_mean(state: int, status: int, said: bool | None) -> None:
    assert clock._said(state, status) is said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="adjtimex is Linux's")
def test_it_is_what_the_kernel_says() -> None:
    """Asked by the other call for it, and read by offset."""
    buffer = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None).clock_adjtime(0, buffer)
    long = ctypes.sizeof(ctypes.c_long)
    status = int.from_bytes(buffer.raw[5 * long : 5 * long + 4], sys.byteorder)
    assert clock.synchronised() is (None if state < 0 else state != 5 and not status & 0x40)

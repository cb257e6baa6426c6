"""How tests wait for what other threads and processes do."""

import time
from collections.abc import Callable

LONG_S = 120.0  # after which a test fails instead of hanging


def until(true: Callable[[], object], what: str = "it never came about") -> None:
    end = time.monotonic() + LONG_S
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)

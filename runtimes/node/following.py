"""What a screening process tells, unasked, of engines that are to take over in it, and what the node makes of that.

It has a pipe of its own: a request may be under way on the other one.
"""

import contextlib
import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.runtimes.compiler import Attempt, Candidate
    from edgecxr.runtimes.node.screening_process import Origin

__all__ = ["Following", "Teller", "nobody", "problems"]

logger = logging.getLogger(__name__)
EVERY_S = 2.0  # a step of a builder is told this often; a change of state at once


def nobody(bundle: "Bundle") -> "Sequence[Candidate]":
    """No engine is to follow: after one has ended a process."""
    return ()


class Teller:
    """The child's end: what `Screener` tells goes to the parent. Any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()  # what is told of in two threads goes one after the other
        self._told, self._when = ("", ""), 0.0

    def __call__(self, attempt: "Attempt") -> None:
        """Send it, unless the same was sent a moment ago."""
        told = (attempt.name, attempt.state)
        with self._lock:
            if told != self._told or monotonic() - self._when >= EVERY_S:
                self._told, self._when = told, monotonic()
                with contextlib.suppress(OSError):  # the parent is gone
                    self._pipe.send(attempt)


class Following:
    """The parent's end. One thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._attempts: dict[str, Attempt] = {}
        self._untold: list[Attempt] = []  # heard, and not logged yet
        self._fallen = ""

    def hear(self) -> "list[Attempt]":
        """What has come since; does not wait."""
        heard: list[Attempt] = []
        with contextlib.suppress(EOFError, OSError):  # the child is gone
            while self._pipe.poll():
                heard.append(self._pipe.recv())
        for attempt in heard:
            before = self._attempts.get(attempt.name)
            if attempt.state == "dropped" and before is not None and before.state == "serving":
                self._fallen = str(attempt)
            self._attempts[attempt.name] = attempt
        self._untold += heard
        return heard

    def fallen(self) -> str:
        """Why an engine that had decided films was dropped since this was last asked; "" where none was.

        It is told before the child answers the request in which it failed.
        """
        self.hear()
        fallen, self._fallen = self._fallen, ""
        return fallen

    def tell(self, worker: str) -> bool:
        """Log what has come since this was last asked, whoever has heard it; whether anything has."""
        self.hear()
        untold, self._untold = self._untold, []
        for attempt in untold:
            level = logging.WARNING if attempt.state == "dropped" else logging.INFO
            logger.log(level, "an engine that is to take over", extra={"worker": worker, "told": str(attempt)})
        return bool(untold)

    def origin(self, first: "Origin") -> "Origin":
        """What serves now, where `first` served at first."""
        if not self._attempts:
            return first
        now = replace(first, attempts=tuple(self._attempts.values()))
        for attempt in now.attempts:
            if attempt.state == "serving":
                now = replace(now, engine=attempt.engine, precision=attempt.precision, kernel=attempt.kernel)
        return now

    def at_work(self) -> str:
        """The engine that has taken over, or is just being opened for it; "" where it cannot have ended the process."""
        self.hear()
        return next((item.name for item in self._attempts.values() if item.state in ("proving", "serving")), "")

    def close(self) -> None:
        """Hear no more."""
        self._pipe.close()


def problems(origins: "Iterable[Origin | None]") -> list[str]:
    """Why engines that were to take over did not, where none did and none is on its way; each reason once."""
    found: dict[str, None] = {}
    for origin in origins:
        attempts = () if origin is None else origin.attempts
        if all(attempt.state == "dropped" for attempt in attempts):
            found.update(dict.fromkeys(str(attempt) for attempt in attempts))
    return list(found)

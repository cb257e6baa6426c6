"""Server-sent events: every open page hears of every change, at the price of one thread for all of them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["HEARTBEAT_S", "Changes", "events"]

HEARTBEAT_S = 15.0  # a silent connection is dropped by some proxies after 30 s
RETRY_MS = 2000  # what a browser waits before it connects again
POLL_S = 0.5  # how soon the thread notices that it should end


class Changes:
    """The spool's change counter for any number of waiting tasks of one event loop."""

    def __init__(self, spool: "Spool") -> None:
        self._spool = spool
        self._count = spool.change()
        self._moved = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @property
    def count(self) -> int:
        """The spool's counter as last seen."""
        return self._count

    @property
    def closed(self) -> bool:
        """Whether the server is stopping: nobody should wait any longer."""
        return self._ended.is_set()

    async def wait(self, after: int, timeout_s: float) -> int:
        """Return the counter once it is another than `after`, at the latest after `timeout_s` or when closed."""
        self._start()
        if self._count == after and not self.closed:
            moved = self._moved
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(moved.wait(), timeout_s)
        return self._count

    def close(self) -> None:
        """Wake everybody who waits, and end the thread. From any thread; twice is harmless."""
        self._ended.set()
        if self._thread is not None and self._loop is not None:
            self._tell()
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None and not self.closed:
            self._loop = asyncio.get_running_loop()
            self._count = self._spool.change()
            self._thread = threading.Thread(target=self._watch, name="edgecxr-changes", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        seen = self._count
        while not self.closed:
            now = self._spool.wait(seen, POLL_S)
            if now != seen:
                seen = now
                self._tell()

    def _tell(self) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop was closed before us: nobody waits there
            self._ended.set()

    def _wake(self) -> None:
        self._count = self._spool.change()
        self._moved.set()
        self._moved = asyncio.Event()


async def events(changes: Changes, heartbeat_s: float = HEARTBEAT_S) -> AsyncIterator[str]:
    """``text/event-stream``: an event `change` with the counter at once and at each move, a comment while nothing does.

    The counter is the event's id. Several moves between two reads are one event: a page asks for what it shows.
    """
    yield f"retry: {RETRY_MS}\n\n"
    seen = changes.count - 1
    while not changes.closed:
        if changes.count != seen:
            seen = changes.count
            yield f"event: change\nid: {seen}\ndata: {seen}\n\n"
        elif await changes.wait(seen, heartbeat_s) == seen and not changes.closed:
            yield ": still here\n\n"

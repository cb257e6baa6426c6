"""The pictures of a node's films, drawn one at a time: one of 60 megapixels takes 300 MB to decode.

Any film is drawn, also one that screening gave up. One whose drawing fails is given up here as there, see `undrawn`.
"""

import logging
import threading

from edgecxr.errors import DrawingError, Refusal
from edgecxr.runtimes.node.child import Fault
from edgecxr.runtimes.node.drawing_process import DrawingProcess, Picture, Unread
from edgecxr.runtimes.node.spool import Image, Spool

__all__ = ["Drawings"]

CACHED = 4  # pictures kept: a page asks for the film and its maps one after the other
logger = logging.getLogger(__name__)


class Drawings:
    """Any thread may ask. The process starts with the first film, and is replaced when one ends it."""

    def __init__(self, spool: Spool, timeout_s: float) -> None:
        """A film that takes longer than `timeout_s` is stuck."""
        self._spool = spool
        self._timeout_s = timeout_s
        self._child: DrawingProcess | None = None
        self._kept: dict[tuple[str, int, int], Picture] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        child = self._child
        return 0 if child is None else child.pid

    def draw(self, image: Image, tallest: int, longest: int) -> Picture:
        """As `draw_film`. Raises Refusal, OSError (it is no longer kept) and DrawingError."""
        asked = (image.file, tallest, longest)
        with self._lock:
            if asked not in self._kept:
                self._kept[asked] = self._drawn(image, tallest, longest)
                for oldest in list(self._kept)[:-CACHED]:
                    del self._kept[oldest]
            return self._kept[asked]

    def close(self) -> None:
        """End the process, whatever it does; nothing is drawn any more. Twice is harmless."""
        self._closed = True
        if (child := self._child) is not None:
            child.interrupt()
        with self._lock:
            self._end()

    def _drawn(self, image: Image, tallest: int, longest: int) -> Picture:
        undrawn = self._spool.undrawn
        if why := undrawn.given_up(image.id):
            raise DrawingError(f"its drawing failed twice: {why}", given_up=True)
        child = self._opened()
        undrawn.begin(image.id)
        said = child.draw(self._spool.path(image), tallest, longest, self._timeout_s)
        if isinstance(said, Fault):
            raise self._failed(image, said)
        undrawn.settle(image.id)
        if isinstance(said, Unread):
            raise OSError(said.detail) if said.reason is None else Refusal(said.reason, said.detail)
        return said

    def _opened(self) -> DrawingProcess:
        """The process, ready to draw. That it cannot be opened is no film's fault."""
        if self._child is None:
            self._child = DrawingProcess()
            if self._closed:  # since before `close` could see what to interrupt
                self._child.interrupt()
            fault = self._child.open()
            if fault is not None:
                self._end()
                raise DrawingError("the node is stopping" if self._closed else f"nothing can be drawn: {fault.detail}")
        return self._child

    def _failed(self, image: Image, fault: Fault) -> DrawingError:
        if fault.kind != "film":
            self._end()
        if self._closed:
            self._spool.undrawn.settle(image.id)
            return DrawingError("the node is stopping")
        self._spool.undrawn.fail(image.id, fault.detail)
        logger.error("a film was not drawn", extra={"image": image.id, "fault": fault.kind, "error": fault.detail})
        return DrawingError(f"its drawing failed: {fault.detail}")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

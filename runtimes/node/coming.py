"""Films whose last byte has come and that are being made durable: shown to workers that have nothing to do meanwhile.

What screening makes of a film follows from its bytes alone, and they are all there. So an idle worker may have its
process begin, and keep what it says until the film is committed and claimed: nothing is decided before. Whoever
receives waits for nobody, and a film that nobody took is screened as ever.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Coming", "Film"]


@dataclass(eq=False)
class Film:
    """A film that is being committed."""

    name: str  # of its file in the index; no other film ever has it
    part: Path  # where its bytes are until they are durable
    place: Path  # where they are from then on
    over: bool = False  # the commit, whatever came of it


class Coming:
    """The films of one spool that are being committed, and which of them are in whose hands already."""

    def __init__(self, nudge: Callable[[], None]) -> None:
        """`nudge` wakes the workers that wait."""
        self._nudge = nudge
        self._offered: list[Film] = []
        self._taken: dict[Film, object] = {}  # film -> worker
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there is one to take."""
        return bool(self._offered)

    @contextmanager
    def film(self, name: str, part: Path, place: Path) -> Iterator[None]:
        """Offer a film for as long as its commit takes."""
        film = Film(name, part, place)
        with self._lock:
            self._offered.append(film)
        self._nudge()
        try:
            yield
        finally:
            film.over = True
            with self._lock:
                taken = film not in self._offered
                if not taken:
                    self._offered.remove(film)
            if taken:
                self._nudge()

    def take(self, worker: object) -> Film | None:
        """One to begin with, from now on kept for this worker; None where there is none."""
        with self._lock:
            film = self._offered.pop(0) if self._offered else None
            if film is not None:
                self._taken[film] = worker
            return film

    def let_go(self, film: Film) -> None:
        """The worker has claimed it, or does not keep it any more."""
        with self._lock:
            self._taken.pop(film, None)

    def kept_from(self, worker: object) -> list[str]:
        """Names of the films that other workers keep."""
        with self._lock:
            return [film.name for film, keeper in self._taken.items() if keeper is not worker]

"""What the process of one worker screens before its film may be claimed (see `coming`): one film at most."""

from edgecxr.runtimes.node.coming import Coming, Film
from edgecxr.runtimes.node.screening_process import Fault, Reply, ScreeningProcess

__all__ = ["Ahead"]


class Ahead:
    """The film that was begun, the process that it was given to, and what that said once it has been heard.

    Used by the thread of its worker alone.
    """

    def __init__(self, coming: Coming) -> None:
        self._coming = coming
        self._film: Film | None = None
        self._child: ScreeningProcess | None = None
        self._said: Reply | Fault | None = None

    @property
    def name(self) -> str:
        """Of the film's file in the index; "" where there is none."""
        return "" if self._film is None else self._film.name

    @property
    def over(self) -> bool:
        """Whether the commit of the film is over: from then on it can be claimed, or never will be."""
        return self._film is not None and self._film.over

    @property
    def said(self) -> Reply | Fault | None:
        """What the process said of the film; None where it has not been heard, or could not begin."""
        return self._said

    @property
    def owes(self) -> bool:
        """Whether the film has ended its process, and is to pay for that as soon as it can be claimed."""
        return isinstance(self._said, Fault)

    def owed(self, file: str) -> Fault | None:
        """What the film of this file has to pay for."""
        return self._said if isinstance(self._said, Fault) and self.name == file else None

    def others(self) -> list[str]:
        """Names of the films that other workers have begun."""
        return self._coming.kept_from(self)

    def awaited(self) -> bool:
        """Whether there is something to look at again: a film to begin with, or the end of the commit of this one."""
        return bool(self._coming) if self._film is None else self._film.over

    def begin(self, child: ScreeningProcess) -> bool:
        """Give a film that is being committed to a process that has nothing to do; whether there was one."""
        film = self._coming.take(self)
        if film is not None:
            self._film, self._child = film, child
            child.begin(film.part, film.place)
        return film is not None

    def hear(self, timeout_s: float) -> Reply | Fault | None:
        """Wait for what the process says, and keep it as `said`. None where there is nothing to wait for any more.

        Afterwards the process can be asked again; after a fault it is lost.
        """
        if self._child is None:
            return None
        child, self._child = self._child, None
        self._said = child.hear(timeout_s)
        return self._said

    def forget(self) -> None:
        """The film is claimed, or nobody keeps it any more. The process must have been heard, or be closed."""
        film, self._film, self._child, self._said = self._film, None, None, None
        if film is not None:
            self._coming.let_go(film)

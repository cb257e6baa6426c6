"""How long work says where it is: a two-line protocol, and a terminal bar that fulfils it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "Silent", "bar"]


class Progress(Protocol):
    """Anything that can show work done."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """`done` of `total` steps are finished; `text` says what was reached (loss, metric, file)."""


class Silent:
    """Shows nothing."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """Nothing."""


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A terminal progress bar with the time left, on stderr: ``with bar("teacher a") as progress: train(…)``."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
    with Rich(*shown, *left, console=Console(stderr=True)) as rich:
        task = rich.add_task(title, text="", total=None)

        def show(done: int, total: int, text: str) -> None:
            rich.update(task, completed=done, total=total, text=text)

        yield show

"""Films drawn for people in a process of their own (see `child`): what stalls or crashes a decoder ends only that."""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.heatmap import display_gray
from edgecxr.kernels import preprocess
from edgecxr.read import read_radiograph
from edgecxr.runtimes.node.child import Child, Fault, fault_on_film, prepare, receive, send
from edgecxr.spec import PreprocessSpec

__all__ = ["LARGEST", "Draw", "DrawingProcess", "Picture", "Unread", "draw_film"]

LARGEST = 1024  # pixels of a picture's longer side
SMALLEST = 16  # side of the chain's smallest square
OPEN_TIMEOUT_S = 300.0  # of a fresh interpreter on a small, busy machine


@dataclass(frozen=True)
class Picture:
    """A film as it is displayed, windowed and turned as its header says, and its own size in pixels."""

    gray: NDArray[np.uint8]  # (H, W)
    rows: int
    columns: int


Draw = Callable[[int, int], Picture]  # `draw_film` of one film


def draw_film(path: Path, tallest: int, longest: int) -> Picture:
    """At most `tallest` rows and LARGEST columns; enlarged only where its longer side is shorter than `longest`.

    Raises Refusal (it cannot be read or has no contrast) and OSError.
    """
    film = read_radiograph(path)
    rows, columns = film.shape
    most = min(tallest if rows >= columns else LARGEST, int(tallest * max(1.0, columns / rows)))
    spec = PreprocessSpec(size=max(SMALLEST, min(most, max(rows, columns, longest))))
    return Picture(display_gray(preprocess([film], spec)[0, 0], spec.placement(rows, columns)), rows, columns)


@dataclass(frozen=True)
class Unread:
    """What `draw_film` raised in the child: a Refusal, or an OSError, which has no reason."""

    reason: RefusalReason | None
    detail: str


def _answer(path: str, tallest: int, longest: int) -> Picture | Unread | Fault:
    try:
        return draw_film(Path(path), tallest, longest)
    except Refusal as error:
        return Unread(error.reason, error.detail)
    except OSError as error:
        return Unread(None, error.strerror or type(error).__name__)
    except Exception as error:
        return fault_on_film(error)


def _main(pipe: Connection) -> None:
    prepare()
    send(pipe, "ready")
    while (request := receive(pipe)) is not None:
        send(pipe, _answer(*request))


class DrawingProcess(Child):
    """The parent's end: start, `open`, then one film at a time."""

    def __init__(self) -> None:
        """Start a child; `open` says what came of it."""
        super().__init__("drawing", _main)

    def open(self, timeout_s: float = OPEN_TIMEOUT_S) -> Fault | None:
        """Wait until the child can draw. After a fault it is gone."""
        said = self._await(timeout_s)
        return said if isinstance(said, Fault) else None

    def draw(self, path: Path, tallest: int, longest: int, timeout_s: float) -> Picture | Unread | Fault:
        """As `draw_film`. After a fault, but one of kind `film`, the child is gone: open another."""
        said = self._ask((str(path), tallest, longest), timeout_s)
        return said if isinstance(said, (Picture, Unread, Fault)) else Fault("crashed", f"the child said {said!r}")

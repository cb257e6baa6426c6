"""The compiled module (src/native.cpp). Arrays are C-contiguous and of exactly the type said; no copy is made."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def levels() -> list[str]:
    """Instruction-set levels compiled in and present on this machine, best first; `baseline` is always there."""

def ramp(
    pixels: NDArray[Any],
    plane: NDArray[np.float32],
    box: tuple[int, int, int, int],
    range_low: float,
    range_width: float,
    *,
    falling: bool,
    origin: int,
    fraction: float,
    span: float,
    padding_first: int,
    padding_count: int,
    threads: int,
    level: str = "",
) -> None:
    """Fill `plane` (S, S) through a clamped straight line over stored values (src/preprocess.hpp, Ramp)."""

def table(
    pixels: NDArray[Any],
    plane: NDArray[np.float32],
    box: tuple[int, int, int, int],
    range_low: float,
    range_width: float,
    *,
    values: NDArray[np.float32],
    threads: int,
    level: str = "",
) -> None:
    """Fill `plane` (S, S) through a table of 2^bits values in [0, 1], by bit pattern of the stored value."""

def count_values(
    pixels: NDArray[Any], counts: NDArray[np.int64], first: int = 1, last: int = 0, *, threads: int
) -> None:
    """Write to `counts` (2^bits,) how often each stored value occurs, the least value of the type first.

    Values in [first, last] are counted together, at `first`: fast where those are nearly all.
    """

def any_outside(pixels: NDArray[Any], low: int, high: int) -> bool:
    """Whether some stored value is not in [low, high]."""

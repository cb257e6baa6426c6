"""How a batch is shared out among blocks of the CUDA kernel: bands of output rows by tiles of output columns.

A tile is as wide as a block can add up at once (8 source columns to a thread), bands as high as leaves enough blocks.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from edgecxr.errors import KernelError
from edgecxr.spec import Box

__all__ = ["Tiling", "plan"]

COLUMNS = 8  # kColumns of cuda/frame.hpp: source columns of a thread
MOST_ROWS = 16  # kBand of cuda/frame.hpp: output rows of a block
THREADS = (256, 224, 192, 160, 128, 96, 64)  # of a block; where two serve as well, the larger
BLOCKS = 2048  # wanted in a launch: a few times what the largest GPUs run at once
COVER_BYTES = 16  # sizeof(Cover)


class Tiling(NamedTuple):
    """The launch of a batch."""

    threads: int  # of a block
    band: int  # output rows of a block
    tiles: tuple[int, ...]  # for each film, output columns of a block
    blocks: int  # of the film that needs the most
    shared_bytes: int  # of a block, without tables


def plan(shapes: Sequence[tuple[tuple[int, int], Box]], threads: int | None = None) -> Tiling:
    """Share out films of ((H, W), box). Raises KernelError for a number of threads that no block has."""
    if threads is not None and (threads % 32 or not 32 <= threads <= max(THREADS)):
        raise KernelError(f"threads={threads}; wanted a multiple of 32, 32 to {max(THREADS)}")
    widths = [(width, box.width) for (_, width), box in shapes]
    chosen = threads or min(THREADS, key=lambda count: sum(_slots(*width, count) for width in widths))
    tiles = tuple(_tile(*width, chosen) for width in widths)
    rows = sum(box.height * -(-box.width // tile) for (_, box), tile in zip(shapes, tiles, strict=True))
    band = min(MOST_ROWS, -(-rows // BLOCKS))
    blocks = max(-(-box.height // band) * -(-box.width // tile) for (_, box), tile in zip(shapes, tiles, strict=True))
    return Tiling(chosen, band, tiles, blocks, (MOST_ROWS + chosen) * COVER_BYTES + 2 * COLUMNS * 4 * chosen)


def _slots(width: int, columns: int, threads: int) -> int:
    """Threads that one output row takes."""
    return threads * -(-columns // _tile(width, columns, threads))


@cache
def _tile(width: int, columns: int, threads: int) -> int:
    """Output columns of a block: the fewest equal tiles of which each has at most 8 source columns to a thread.

    A single output column that covers more is added up in several turns.
    """
    tiles = max(-(-width // (COLUMNS * threads)), -(-columns // threads))
    first, last = _covered(width, columns)
    while tiles < columns:
        tile = -(-columns // tiles)
        starts = np.arange(0, columns, tile)
        begins = first[starts] // COLUMNS * COLUMNS
        if int((last[np.minimum(starts + tile, columns) - 1] + 1 - begins).max()) <= COLUMNS * threads:
            return tile
        tiles += 1
    return 1


def _covered(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last source sample of each output sample, (target,) int64 each (`cover` of src/preprocess.hpp)."""
    j = np.arange(target, dtype=np.int64)
    if source > target:
        return j * source // target, ((j + 1) * source - 1) // target
    position = np.clip((2 * j + 1) * source - target, 0, 2 * target * (source - 1))
    first = position // (2 * target)
    return first, first + (position % (2 * target) > 0)

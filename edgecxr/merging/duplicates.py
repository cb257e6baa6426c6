"""Films that are there more than once, whatever their format, size, depth and window: perceptual hash, then detail.

The hash is the usual one of 64 bits (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions"; the `phash` of ImageHash): the 8 × 8 lowest frequencies of a cosine transform, each above or below their
median. It is taken of the film after our own reader and chain, stretched to a square as public sets do it. Chest films
of different people are alike in these frequencies, so a pair counts only when the detail that is left after a blur
agrees as well; `docs/data.md` has the figures.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal
from edgecxr.kernels import preprocess
from edgecxr.read import read_radiograph
from edgecxr.spec import PreprocessSpec

__all__ = ["CORRELATION", "HAMMING", "Pair", "find_duplicates", "thumbnails"]

SPEC = PreprocessSpec(size=64, aspect="stretch")
HAMMING = 8  # bits of 64 in which two hashes of one film may differ
CORRELATION = 0.8  # of the details of one film, at least
BLUR = 2.0  # pixels of 64: what is finer is detail
ROWS = 256  # films that are hashed, or compared with all others, at once: 1 kB for each film there is
PAIRS = 2048  # that are verified at once: at most 4096 films, 16 kB each in float32, and copies

Thumbnails = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """Two films (by number, the first the smaller) that are one."""

    first: int
    second: int
    hamming: int
    correlation: float


def thumbnails(
    paths: Sequence[Path], *, workers: int, step: Callable[[str], None]
) -> tuple[Thumbnails, dict[int, Refusal]]:
    """(N, 64, 64) of the films after the chain, 4 kB a film, and the refusals by number; `step` is told each name."""
    found = np.zeros((len(paths), SPEC.size, SPEC.size), np.uint8)
    refused: dict[int, Refusal] = {}

    def see(number: int) -> None:
        try:
            film = preprocess([read_radiograph(paths[number])], SPEC, threads=1)[0, 0]
            found[number] = np.rint(film * 255)
        except Refusal as refusal:
            refused[number] = refusal

    with ThreadPoolExecutor(workers) as pool:
        for number, _ in enumerate(pool.map(see, range(len(paths)))):
            step(paths[number].name)
    return found, dict(sorted(refused.items()))


def find_duplicates(films: Thumbnails) -> list[Pair]:
    """Every pair of films (N, 64, 64) that are one: all hashes against all, by matrix products of ±1."""
    signs = np.where(_bits(films), np.float32(1), np.float32(-1))
    found = []
    for firsts, seconds, distances in _near(signs):
        for part in range(0, len(firsts), PAIRS):
            window = slice(part, part + PAIRS)
            agreement = _agreement(films, firsts[window], seconds[window])
            for place in np.flatnonzero(agreement >= CORRELATION):
                first, second = int(firsts[part + place]), int(seconds[part + place])
                found.append(Pair(first, second, int(distances[part + place]), float(agreement[place])))
    return found


def _bits(films: Thumbnails) -> NDArray[np.bool_]:
    """(N, 64): whether each of the 8 × 8 lowest frequencies lies above their median."""
    from scipy.fft import dct

    found = np.zeros((len(films), 64), bool)
    for start in range(0, len(films), ROWS):
        part = films[start : start + ROWS].astype(np.float32)
        low = dct(dct(part, axis=2)[:, :, :8], axis=1)[:, :8].reshape(len(part), 64)
        found[start : start + ROWS] = low > np.median(low, axis=1, keepdims=True)
    return found


def _near(signs: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs whose hashes differ in at most HAMMING bits, block by block: first, second, distance."""
    for start in range(0, len(signs), ROWS):
        agreeing = signs[start : start + ROWS] @ signs[start:].T
        rows, columns = np.nonzero(agreeing >= 64 - 2 * HAMMING)
        later = columns > rows
        rows, columns = rows[later], columns[later]
        distances = (64 - agreeing[rows, columns]).astype(np.intp) // 2
        yield rows + start, columns + start, distances


def _agreement(films: Thumbnails, firsts: NDArray[np.intp], seconds: NDArray[np.intp]) -> NDArray[np.float32]:
    """Correlation of the details of pairs of films."""
    numbers, places = np.unique(np.concatenate([firsts, seconds]), return_inverse=True)
    details = _details(films[numbers])
    return np.asarray((details[places[: len(firsts)]] * details[places[len(firsts) :]]).sum(axis=1), np.float32)


def _details(films: Thumbnails) -> NDArray[np.float32]:
    """(N, 4096) what a blur takes away, of mean 0 and length 1."""
    from scipy.ndimage import gaussian_filter

    values = films.astype(np.float32)
    values -= gaussian_filter(values, (0, BLUR, BLUR))
    flat = values.reshape(len(films), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))

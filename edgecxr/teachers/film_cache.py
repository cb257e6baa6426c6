"""Films preprocessed once, by the kernel that deployment uses, and kept on disk for every epoch after."""

import errno
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.dataset import Dataset
from edgecxr.errors import DatasetError, Refusal, StageError
from edgecxr.kernels import active, preprocess
from edgecxr.radiograph import Radiograph
from edgecxr.read import read_radiograph
from edgecxr.spec import IN_FULL, PreprocessSpec, ReadingSpec
from edgecxr.teachers.progress import Progress, Silent

__all__ = ["FilmCache", "build_film_cache", "film_batch"]

IN_FLIGHT = 4  # films read ahead per thread: bounds the memory


@dataclass(frozen=True)
class FilmCache:
    """`images` (N, 1, S, S) float16, memory-mapped, in the order of `dataset.films`; one cache per PreprocessSpec.

    float16 rounds a value of [0, 1] by at most 2^-12, a sixteenth of one step of an 8-bit film.
    """

    dataset: Dataset
    spec: PreprocessSpec
    images: NDArray[np.float16]

    def rows(self, part: Dataset) -> NDArray[np.intp]:
        """The rows of the films of `part`, a selection of this cache's data set, in its order."""
        places = {film.path: row for row, film in enumerate(self.dataset.films)}
        absent = [str(film.path) for film in part.films if film.path not in places]
        if absent:
            raise StageError(
                f"{len(absent)} film(s) are not in the cache, the first {absent[0]}; build it from the whole set"
            )
        return np.array([places[film.path] for film in part.films], dtype=np.intp)


def build_film_cache(
    dataset: Dataset,
    spec: PreprocessSpec,
    folder: Path,
    *,
    reading: ReadingSpec = IN_FULL,
    threads: int = 0,
    progress: Progress | None = None,
) -> FilmCache:
    """The cache of `dataset`, read as `reading` says, under `spec`; from `folder` if it is there, else made now.

    `threads` readers work at once (0: one per core). Raises DatasetError naming every film that is refused, OSError
    where the disk has no room; then nothing is kept.
    """
    path = folder / f"{_key(dataset, spec, reading)[:24]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _fill(path, dataset, (spec, reading), (threads or os.cpu_count() or 1, progress or Silent()))
    images = np.load(path, mmap_mode="r")
    return FilmCache(dataset, spec, images)


def film_batch(films: Sequence[Radiograph], spec: PreprocessSpec) -> NDArray[np.float32]:
    """(N, 1, S, S) float32 of films under `spec`, by the same function and with the same rounding as the cache."""
    return preprocess(films, spec).astype(np.float16).astype(np.float32)


def _key(dataset: Dataset, spec: PreprocessSpec, reading: ReadingSpec) -> str:
    """SHA-256 (hex) of everything that the images depend on."""
    text = f"{dataset.digest} {spec.digest} {[str(film.path) for film in dataset.films]}"
    told = "" if reading == IN_FULL else f" {reading.model_dump_json()}"
    return hashlib.sha256(f"{text}{told}".encode()).hexdigest()


def _fill(path: Path, dataset: Dataset, chain: tuple[PreprocessSpec, ReadingSpec], work: tuple[int, Progress]) -> None:
    (spec, reading), (threads, progress) = chain, work
    reduced_for = reading.reduced_for(spec)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.npy")
    shape = (len(dataset.films), 1, spec.size, spec.size)
    try:
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        _reserve(partial)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    problems: list[str] = []

    def load(row: int) -> str | None:
        try:
            radiograph = read_radiograph(dataset.films[row].path, reduced_for=reduced_for)
            images[row] = preprocess([radiograph], spec, threads=1)[0]
        except Refusal as refusal:
            return f"{dataset.films[row].path}: {refusal}"
        return None

    for done, problem in enumerate(_ordered(load, range(shape[0]), threads), start=1):
        problems += [problem] if problem else []
        progress(done, shape[0], f"preprocessing ({active()})")
    images.flush()
    if problems:
        partial.unlink()
        raise DatasetError(problems)
    partial.replace(path)
    path.with_suffix(".json").write_text(json.dumps({"dataset": dataset.digest, "spec": spec.model_dump()}, indent=1))


def _reserve(path: Path) -> None:
    """Take all of the file's room now: a hole in a mapped file that the disk cannot fill ends the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # what file systems without it say
                raise


def _ordered(load: Callable[[int], str | None], rows: Iterable[int], threads: int) -> Iterator[str | None]:
    """`load` of each row, in order, with a bounded number under way."""
    waiting: deque[Future[str | None]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for row in rows:
            waiting.append(pool.submit(load, row))
            if len(waiting) >= IN_FLIGHT * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

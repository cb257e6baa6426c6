"""The screener: radiograph in, decision out. The one object that a portable unit embeds."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType

from edgecxr.bundle import Bundle, default_bundle_path
from edgecxr.errors import EdgeCxrError, EngineError, Refusal, RefusalReason
from edgecxr.radiograph import Radiograph
from edgecxr.read import file_stamp, find_files, read_radiograph
from edgecxr.runtimes.compiler import Attempt, Succession, Successors, tensorrt_candidates
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.judge import Judge, Milliseconds
from edgecxr.runtimes.lending import prove_in_use
from edgecxr.runtimes.registry import open_engine
from edgecxr.runtimes.screening import Screening

__all__ = ["Screener", "Screening"]

AHEAD = 2  # films that may wait, read, for the engine, beside one in each worker's hands
Stamp = tuple[int, int] | None
Reading = tuple[Radiograph | Refusal, Milliseconds, Stamp]
logger = logging.getLogger("edgecxr")


class Screener:
    """A bundle on the best engine of this machine. A context manager; one film at a time, from any thread.

    With `auto` the best engine of the CPU serves at once. Where a better one has to be compiled (TensorRT on a GPU),
    that happens in the background; it takes over between two films once it has proved itself, and hands back for good
    when it fails, beginning with the film on which it failed. A result names the engine that made it.

    Opening raises BundleError (the file cannot be trusted) or EngineError (no engine proves itself here).
    """

    def __init__(
        self,
        bundle: Bundle | str | Path | None = None,
        engine: str = "auto",
        precision: str = "auto",
        point: str | None = None,
        *,
        threads: int = 0,
        successors: Successors | None = None,
        tell: Callable[[Attempt], None] | None = None,
    ) -> None:
        """`bundle` None is the model shipped with the package; `point` None is the bundle's first operating point.

        `successors` names what may follow the engine of `auto` (None: TensorRT, where there is a GPU); `tell` hears how
        far each has come, in any thread.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(default_bundle_path() if bundle is None else bundle)
        self.bundle = bundle
        self.point = _first_point(bundle) if point is None else point
        first = open_engine(bundle, engine, precision, point=self.point, threads=threads)
        follow = successors or tensorrt_candidates
        following = follow(bundle) if engine == "auto" and first.device == "cpu" else ()
        following = [item for item in following if precision in ("auto", item.precision)]
        self._judges: dict[Engine, Judge] = {}
        self._judging = threading.Lock()  # one judge for each engine: it counts the films
        self._engines = Succession(bundle, first, following, point=self.point, tell=tell)

    @property
    def engine(self) -> Engine:
        """The engine of the moment; with `auto` another may follow it between two films."""
        return self._engines.current

    def engines(self) -> list[Engine]:
        """What results were and may be made by: the engine of the moment first, then those that it can hand over to."""
        return self._engines.engines()

    def successors(self) -> list[Attempt]:
        """How far the engines have come that may follow, or followed, the one that served first."""
        return self._engines.attempts()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no engine is being compiled any more; whether that is so. Screening never needs this."""
        return self._engines.wait(timeout_s)

    def prove(self) -> None:
        """Hold the engine of the moment against the golden set, as it screens: with its own kernel, and with the
        reference whose thresholds it borrows. One that had taken over and fails is dropped, as `successors` and `tell`
        say; raises EngineError where the first one fails."""
        self._engines.run(lambda engine: prove_in_use(self.bundle, engine))

    def screen(self, film: Radiograph | str | Path) -> Screening:
        """Decide on one film, or refuse it with a reason.

        Raises EngineError, KernelError: the machine is at fault, not the film, and there is no result.
        """
        if isinstance(film, Radiograph):
            return self._decide(film, film.source, {})
        return self._judged(str(film), *self._read(film))

    def screen_folder(self, paths: Iterable[str | Path] | str | Path, workers: int = 0) -> Iterator[Screening]:
        """Screen files and folders (recursively), in the order of `find_files`; one result for each file.

        `workers` threads (0: one per core, 4 at most) read and decode ahead of the engine; at most workers + 2 films
        are in memory. A fault of our own in one film is logged with its traceback and recorded as a refusal
        (`unreadable`, "internal error"), and the folder goes on; EngineError and KernelError stop everything.
        """
        paths = [paths] if isinstance(paths, (str, Path)) else paths
        return self.screen_files(find_files(Path(path) for path in paths), workers)

    def screen_files(self, files: Iterable[Path], workers: int = 0) -> Iterator[Screening]:
        """Screen exactly these files, as `screen_folder` does; no folder is entered, a folder is refused by name."""
        if workers < 0:
            raise ValueError(f"workers is {workers}; wanted 0 (one per core, 4 at most) or more")
        return self._ahead(files, workers or min(4, os.cpu_count() or 1))

    def _ahead(self, files: Iterable[Path], workers: int) -> Iterator[Screening]:
        waiting: deque[tuple[Path, Future[Reading]]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="edgecxr-read")
        try:
            for file in files:
                waiting.append((file, pool.submit(self._read, file)))
                if len(waiting) >= workers + AHEAD:
                    yield self._screen_one(*waiting.popleft())
            while waiting:
                yield self._screen_one(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _screen_one(self, file: Path, reading: "Future[Reading]") -> Screening:
        """The per-file boundary: the only place where a fault of our own ends in a record instead of an exception."""
        try:
            return self._judged(str(file), *reading.result())
        except EdgeCxrError:
            raise  # the machine is at fault: the next film would fare no better
        except Exception as error:
            logger.exception("internal error on %s; it is refused and the folder goes on", file)
            detail = f"internal error: {type(error).__name__}: {error}"
            return self._refused(str(file), Refusal(RefusalReason.UNREADABLE, detail), {})

    def _read(self, file: str | Path) -> Reading:
        start = perf_counter_ns()
        stamp = file_stamp(file)  # before: what is written in its place from now on is another file
        try:
            film: Radiograph | Refusal = read_radiograph(file, reduced_for=self.bundle.spec.reduced_for)
        except Refusal as error:
            film = error
        return film, {"read": (perf_counter_ns() - start) / 1e6}, stamp

    def _judged(self, file: str, film: Radiograph | Refusal, spent: Milliseconds, stamp: Stamp) -> Screening:
        if isinstance(film, Refusal):
            return self._refused(file, film, spent)
        return replace(self._decide(film, file, spent), stamp=stamp)

    def _decide(self, radiograph: Radiograph, file: str, spent: Milliseconds) -> Screening:
        return self._engines.run(lambda engine: self._judge(engine).screen(radiograph, file, spent))

    def _refused(self, file: str, error: Refusal, spent: Milliseconds) -> Screening:
        return self._judge(self.engine).refused(file, error, spent)

    def _judge(self, engine: Engine) -> Judge:
        with self._judging:
            if engine not in self._judges:
                self._judges[engine] = Judge(self.bundle, engine, self.point)
            return self._judges[engine]

    def close(self) -> None:
        """Stop compiling, and give the engines' memory back; twice is harmless."""
        self._engines.close()

    def __enter__(self) -> "Screener":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_point(bundle: Bundle) -> str:
    points = bundle.spec.operating_points
    if not points:
        raise EngineError(f"{bundle.spec.name} has no operating point: nothing can be decided; build it with one")
    return points[0].name

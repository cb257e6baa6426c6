"""A better engine is compiled in the background while another serves; it proves itself, and only then takes over.

One that has no thresholds, cannot be compiled, or does not reproduce the golden set is dropped with its reason. One
that took over and fails later is dropped too, and the first engine, which is kept, serves again, beginning with the
film on which it failed.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

from edgecxr.bundle import Bundle
from edgecxr.errors import EdgeCxrError, EngineError, KernelError
from edgecxr.runtimes.compile_apart import compile_apart
from edgecxr.runtimes.driver import probe
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.registry import check_thresholds, referred
from edgecxr.runtimes.tensorrt_api import Progress
from edgecxr.spec import Precision

__all__ = ["Attempt", "Candidate", "Succession", "Successors", "tensorrt_candidates"]

T = TypeVar("T")
State = Literal["waiting", "compiling", "proving", "serving", "dropped"]
logger = logging.getLogger("edgecxr")


class Candidate(NamedTuple):
    """An engine that might serve better. What may end this process belongs into `open`, where it is answered for."""

    family: type[Engine]
    precision: Precision
    open: Callable[[], Engine]  # unproven: that is done here
    compile: Callable[[Progress], object] = lambda _: None  # before `open`, apart; stops where progress gives False

    @property
    def name(self) -> str:
        """E.g. "tensorrt int8"."""
        return f"{self.family.graph.library} {self.precision}"


Successors = Callable[[Bundle], Sequence[Candidate]]


@dataclass(frozen=True)
class Attempt:
    """How far a candidate has come."""

    name: str
    state: State = "waiting"
    phase: str = ""  # of the builder, in its words
    step: int = 0
    of: int = 0
    reason: str = ""  # why it was dropped
    engine: str = ""  # family, once it has served
    precision: str = ""
    kernel: str = ""

    def __str__(self) -> str:
        """E.g. "tensorrt fp16: compiling, tactics 3 of 40"."""
        told = f"{self.name}: {self.state}"
        if self.reason:
            return f"{told} ({self.reason})"
        if self.state != "compiling" or not self.phase:
            return told
        return f"{told}, {self.phase} {self.step}{f' of {self.of}' if self.of else ''}"


class Succession:
    """The engine in use, and those that may follow it. A context manager; any thread may take the engine."""

    def __init__(
        self,
        bundle: Bundle,
        first: Engine,
        candidates: Sequence[Candidate],
        *,
        point: str | None = "screening",
        tell: Callable[[Attempt], None] | None = None,
    ) -> None:
        """Serve with `first` (this object closes it), try the candidates in their order, stop at one that serves.

        `tell` is called at each change, mostly in the background thread.
        """
        self._bundle, self._point, self._tell = bundle, point, tell
        self._first = self._current = first
        self._leases: dict[int, int] = {}
        self._lock = threading.Condition()
        self._telling = threading.RLock()  # so that what is told of comes in the order in which it happened
        self._closing = False
        self._attempts = [Attempt(item.name) for item in candidates]
        self._thread = threading.Thread(target=self._try, args=(list(candidates),), name="edgecxr-compile", daemon=True)
        self._thread.start()

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The engine of the moment; it stays open until the block ends, whoever follows it.

        An EngineError or KernelError in the block, of an engine that had taken over, ends that engine: the first one
        serves again.
        """
        with self._lock:
            if self._closing:
                raise EngineError("this engine is closed; open another")
            taken = self._current
            self._leases[id(taken)] = self._leases.get(id(taken), 0) + 1
        try:
            yield taken
        except (EngineError, KernelError) as error:
            self._fall_back(taken, str(error))
            raise
        finally:
            self._give_back(taken)

    def run(self, work: Callable[[Engine], T]) -> T:
        """The result of `work` on the engine of the moment; where one that had taken over fails, on the first one.

        Raises what `work` raises on the first engine; what it raises of another kind than EngineError and KernelError.
        """
        while True:
            taken: Engine | None = None
            try:
                with self.engine() as taken:
                    return work(taken)
            except (EngineError, KernelError):
                if taken is None or taken is self._first:
                    raise

    @property
    def current(self) -> Engine:
        """What serves at this moment, to describe it; to use it, take `engine`."""
        with self._lock:
            return self._current

    def engines(self) -> list[Engine]:
        """What serves, the reference whose thresholds it borrows, and the first one: each once."""
        with self._lock:
            found = (self._current, self._current.reference, self._first)
        return list(dict.fromkeys(item for item in found if item is not None))

    def attempts(self) -> list[Attempt]:
        """Every candidate, as far as it has come."""
        with self._lock:
            return list(self._attempts)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no candidate is left to try; whether that is so."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop compiling, wait for those who use the engine, close what is open; twice is harmless."""
        with self._lock:
            self._closing = True
        self._thread.join()
        with self._lock:
            self._lock.wait_for(lambda: not self._leases)
        self._first.close()
        self._current.close()

    def _give_back(self, taken: Engine) -> None:
        with self._lock:
            self._leases[id(taken)] -= 1
            if not self._leases[id(taken)]:
                del self._leases[id(taken)]
            retired = taken not in (self._first, self._current) and id(taken) not in self._leases
            self._lock.notify_all()
        if retired:
            taken.close()

    def _fall_back(self, failed: Engine, reason: str) -> None:
        with self._telling:
            with self._lock:
                if failed is self._first or failed is not self._current:
                    return
                self._current = self._first
                index = next(i for i, item in enumerate(self._attempts) if item.state == "serving")
                noted = self._change(index, state="dropped", reason=reason)
            self._say(noted)

    def _try(self, candidates: list[Candidate]) -> None:
        for index, candidate in enumerate(candidates):
            if self._closing:
                return
            try:
                made = self._make(index, candidate)
            except EdgeCxrError as error:
                self._note(index, state="dropped", reason=str(error))
            except Exception as error:  # of a library: what serves goes on serving
                logger.exception("compiling %s failed", candidate.name)
                self._note(index, state="dropped", reason=f"internal error: {type(error).__name__}: {error}")
            else:
                self._swap(index, made)
                return

    def _make(self, index: int, candidate: Candidate) -> Engine:
        def advance(phase: str, step: int, of: int) -> bool:
            self._note(index, state="compiling", phase=phase, step=step, of=of)
            return not self._closing

        references = check_thresholds(self._bundle, candidate.family, candidate.precision, self._point)
        self._note(index, state="compiling")
        candidate.compile(advance)
        self._note(index, state="proving")  # from here on it is in this process, and can end it
        made = candidate.open()
        try:
            made.prove(self._bundle)
            if references:
                referred(self._bundle, made, references)
            if self._closing:
                raise EngineError("closed before it could serve")
        except BaseException:
            made.close()
            raise
        return made

    def _swap(self, index: int, made: Engine) -> None:
        made.passed_over = [(item.name, item.reason) for item in self.attempts() if item.state == "dropped"]
        with self._telling:
            with self._lock:
                self._current = made
                origin = {"engine": made.family, "precision": made.precision, "kernel": made.kernel}
                noted = self._change(index, state="serving", **origin)
            self._say(noted)

    def _note(self, index: int, **changes: Any) -> None:
        with self._telling:
            self._say(self._change(index, **changes))

    def _change(self, index: int, **changes: Any) -> Attempt | None:
        """The attempt as it is from now on; None where that changes nothing."""
        with self._lock:
            before = self._attempts[index]
            self._attempts[index] = after = replace(before, **changes)
        return None if after == before else after

    def _say(self, noted: Attempt | None) -> None:
        if noted is not None and self._tell is not None:
            try:
                self._tell(noted)
            except Exception:  # who listens does not stop who works
                logger.exception("telling of %s failed", noted.name)

    def __enter__(self) -> "Succession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tensorrt_candidates(bundle: Bundle) -> list[Candidate]:
    """TensorRT in each packed precision, the fastest first; none where there is no GPU."""
    from edgecxr.runtimes.trt import TensorRt

    if probe().reason:
        return []

    def candidate(precision: Precision) -> Candidate:
        return Candidate(
            TensorRt,
            precision,
            lambda: TensorRt.open(bundle, precision, golden=False),
            lambda progress: compile_apart(bundle.model(precision), kept=True, progress=progress),
        )

    return [candidate(item) for item in TensorRt.preference if item in bundle.precisions]

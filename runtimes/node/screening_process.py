"""A `Screener` in a process of its own (see `child`): what stalls or crashes in there can be killed and replaced."""

import contextlib
import multiprocessing
import os
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.errors import BundleError, EngineError, KernelError, RefusalReason
from edgecxr.runtimes.node.child import Child, Fault, FaultKind, fault_on_film, prepare, receive, send
from edgecxr.runtimes.node.following import Following, Teller

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.runtimes.compiler import Attempt, Successors
    from edgecxr.runtimes.screener import Screener
    from edgecxr.runtimes.screening import Screening
    from edgecxr.spec import ModelSpec

__all__ = ["Fault", "Origin", "Reply", "ScreeningProcess", "Setup", "answer"]

OPEN_TIMEOUT_S = 300.0  # a first compilation on a small machine, with the golden set behind it


@dataclass(frozen=True)
class Setup:
    """What a child opens: the bundle that was checked, and no other that was put in its place since."""

    bundle: Path
    engine: str = "auto"
    precision: str = "auto"
    point: str | None = None
    threads: int = 0
    successors: "Successors | None" = None  # None: those that this machine can have
    digest: str | None = None  # of the bundle that was checked; None: whatever lies there


@dataclass(frozen=True)
class Origin:
    """What a child opened, after it proved itself on the bundle's golden set."""

    engine: str  # family, e.g. "openvino-cpu"
    precision: str
    kernel: str
    bundle: str  # digest
    point: str
    spec: "ModelSpec"
    passed_over: tuple[tuple[str, str], ...] = ()  # engines that did not prove themselves, with the reason
    attempts: "tuple[Attempt, ...]" = ()  # engines that are to take over, as far as they have come


@dataclass(frozen=True)
class Reply:
    """One film: the decision or refusal, and whose it is."""

    screening: "Screening"
    identity: dict[str, str]


def answer(screener: "Screener", request: tuple[str, Any]) -> Reply | Fault | None:
    """One request: ``("screen", path)``, ``("begin", (part, place))`` or ``("prove", None)``.

    None says that the golden set was reproduced, or that screening could not be begun.
    """
    verb, subject = request
    try:
        if verb == "prove":
            screener.prove()
            return None
        return _begin(screener, *subject) if verb == "begin" else _screen(screener, subject)
    except (EngineError, KernelError, BundleError) as error:
        return Fault("machine", str(error))
    except Exception as error:
        return fault_on_film(error)


def _screen(screener: "Screener", path: str) -> Reply:
    from edgecxr.runtimes.node.identity import read_identity

    return Reply(screener.screen(path), read_identity(Path(path)))


def _begin(screener: "Screener", part: str, place: str) -> Reply | None:
    """Screen what lies at `part` and may move to `place` at any moment: read by descriptor, told by its place.

    None where it has moved already, where descriptors have no names here, and where it could not be read: what is
    wrong there is told when the film is screened in its place.
    """
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        path = f"/dev/fd/{descriptor}"
        if not _is_same_file(descriptor, path):
            return None
        reply = _screen(screener, path)
    finally:
        os.close(descriptor)
    if reply.screening.reason is RefusalReason.UNREADABLE:
        return None
    return replace(reply, screening=replace(reply.screening, file=place))


def _is_same_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _child(pipe: Connection, news: Connection, setup: Setup) -> None:
    """Main of the child."""
    prepare()
    from edgecxr.runtimes.screener import Screener

    options: dict[str, Any] = {"threads": setup.threads, "successors": setup.successors, "tell": Teller(news)}
    try:
        screener = Screener(_bundle(setup), setup.engine, setup.precision, setup.point, **options)
    except Exception as error:
        send(pipe, Fault("machine", str(error) or type(error).__name__))
        return
    with screener:
        send(pipe, _origin(screener))
        while (request := receive(pipe)) is not None:
            send(pipe, answer(screener, request))


def _bundle(setup: Setup) -> "Bundle":
    """What was checked, and nothing that has been put in its place since. Raises BundleError."""
    from edgecxr.bundle import Bundle

    bundle = Bundle.open(setup.bundle)
    if setup.digest not in (None, bundle.digest):
        raise BundleError(
            f"{setup.bundle}: holds bundle {bundle.digest[:12]}, wanted {str(setup.digest)[:12]}, which was checked: "
            "the file was overwritten; put that one back, or a signed one, which the node takes into use by itself"
        )
    return bundle


def _origin(screener: "Screener") -> Origin:
    engine, bundle = screener.engines()[-1], screener.bundle  # that served first; `Following` tells what came then
    return Origin(
        engine.family,
        engine.precision,
        engine.kernel,
        bundle.digest,
        screener.point,
        bundle.spec,
        tuple(engine.passed_over),
    )


class ScreeningProcess(Child):
    """The parent's end: start, `open`, then one request at a time. `interrupt` alone may come from another thread."""

    def __init__(self, setup: Setup) -> None:
        """Start a child; `open` says what came of it."""
        self.setup = setup
        news, told = multiprocessing.get_context("spawn").Pipe(duplex=False)
        self.following = Following(news)
        super().__init__("screening", _child, told, setup)
        told.close()
        self._origin: Origin | None = None
        self.lost: Fault | None = None  # why its end was not expected

    def open(self, timeout_s: float = OPEN_TIMEOUT_S) -> Origin:
        """Wait until the child has opened the bundle and proved its engine. Raises EngineError; the child is gone."""
        said = self._await(timeout_s)
        if not isinstance(said, Origin):
            self.kill()
            raise EngineError(said.detail if isinstance(said, Fault) else f"the child said {said!r}")
        self._origin = said
        return said

    @property
    def origin(self) -> Origin:
        """What `open` returned, with the engine that has taken over since. Raises EngineError before that."""
        if self._origin is None:
            raise EngineError("the screening process has not been opened")
        return self.following.origin(self._origin)

    def screen(self, path: Path, timeout_s: float) -> Reply | Fault:
        """Screen one file. After a fault of kind `crashed` or `stuck` the child is gone: open another."""
        said = self._ask(("screen", str(path)), timeout_s)
        return said if isinstance(said, (Reply, Fault)) else Fault("crashed", f"the child said {said!r}")

    def begin(self, part: Path, place: Path) -> None:
        """Ask for the film at `part`, which is about to move to `place`, and return at once; `hear` before all else."""
        with contextlib.suppress(OSError):  # the child is gone, as `hear` will say
            self._pipe.send(("begin", (str(part), str(place))))

    def hear(self, timeout_s: float) -> Reply | Fault | None:
        """What came of the film of `begin`, as from `screen`; None where the child could not begin: `screen` it."""
        said = self._await(timeout_s)
        if said is None or isinstance(said, (Reply, Fault)):
            return said
        return Fault("crashed", f"the child said {said!r}")

    def prove(self, timeout_s: float) -> Fault | None:
        """Hold the live engine against the golden set; None when it is reproduced."""
        said = self._ask(("prove", None), timeout_s)
        return said if said is None or isinstance(said, Fault) else Fault("crashed", f"the child said {said!r}")

    def _lost(self, kind: FaultKind, detail: str) -> Fault:
        """An engine that takes over in it is blamed before a film is."""
        follower = "" if self.interrupted else self.following.at_work()
        self.lost = super()._lost(kind, detail)
        if follower:
            told = f"{self.lost.detail}; {follower} was open in it, and is not used any more"
            self.lost = Fault("machine", told, follower)
        return self.lost

    def kill(self) -> None:
        """End the child at once; twice is harmless."""
        self.following.close()
        super().kill()

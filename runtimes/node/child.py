"""A process of its own for what may stall or crash on a film: it can be killed and replaced, and the node goes on.

The parent asks, one request at a time, over a pipe; the child ends when the pipe closes, so it never outlives the node
for longer than the film in its hands. A fault is a value (`Fault`) that tells whose it is: the film's, the machine's.
"""

import logging
import multiprocessing
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

__all__ = ["CLOSE_TIMEOUT_S", "Child", "Fault", "FaultKind", "fault_on_film", "prepare", "receive", "send"]

FaultKind = Literal["machine", "film", "crashed", "stuck"]
CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Fault:
    """No result. `machine`: engine or kernel; `film`: an error of ours on it; `crashed`, `stuck`: it is lost."""

    kind: FaultKind
    detail: str
    follower: str = ""  # the engine that had taken over, or was being opened, when it was lost: it is blamed


def fault_on_film(error: Exception) -> Fault:
    """An error of ours, by its kind and place: its words may name a patient."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Fault("film", f"internal error: {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}")


def prepare() -> None:
    """The first that a child does. A Ctrl-C in a terminal reaches the whole group, and is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.WARNING)  # libraries quote what they cannot read
    warnings.simplefilter("ignore")


def receive(pipe: Connection) -> Any:
    """The next request in a child; None where the parent is gone."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def send(pipe: Connection, value: object) -> None:
    """An answer of a child, which ends where the parent is gone."""
    try:
        pipe.send(value)
    except OSError:
        os._exit(0)  # there is nobody to tell


class Child:
    """The parent's end: one request at a time. `interrupt` alone may come from another thread."""

    def __init__(self, name: str, main: Callable[..., None], *arguments: object) -> None:
        """Start ``main(pipe, *arguments)`` in a fresh interpreter."""
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=main, args=(far, *arguments), name=f"edgecxr-{name}", daemon=True)
        self._process.start()
        self.interrupted = False  # ended by us: that speaks against nothing in it
        far.close()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid or 0

    def _ask(self, request: object, timeout_s: float) -> object:
        try:
            self._pipe.send(request)
        except OSError:
            return self._gone()
        return self._await(timeout_s)

    def _await(self, timeout_s: float) -> object:
        try:
            if not self._pipe.poll(timeout_s):
                return self._lost("stuck", f"no answer within {timeout_s:g} s; the {self._name} process was killed")
            return self._pipe.recv()
        except (EOFError, OSError):
            return self._gone()

    def _gone(self) -> Fault:
        self._process.join(CLOSE_TIMEOUT_S)  # a closed pipe comes a moment before the end: keep its own exit code
        if self._process.exitcode == -signal.SIGTERM:  # by an administrator or a shutdown: not the film's fault
            self.kill()
            return Fault("machine", f"the {self._name} process died (SIGTERM)")
        return self._lost("crashed", f"the {self._name} process died")

    def _lost(self, kind: FaultKind, detail: str) -> Fault:
        """End what is left of the child."""
        self.kill()
        return Fault(kind, f"{detail} ({_ending(self._process.exitcode)})" if kind == "crashed" else detail)

    def close(self) -> None:
        """Let the child end by itself; kill it when it does not."""
        self._pipe.close()
        self._process.join(CLOSE_TIMEOUT_S)
        self.kill()

    def interrupt(self) -> None:
        """End the child at once; whoever waits for it is told that it crashed."""
        self.interrupted = True
        self._process.kill()

    def kill(self) -> None:
        """End the child at once; twice is harmless."""
        self._pipe.close()
        self._process.kill()  # SIGKILL ends a stopped process too
        self._process.join()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"

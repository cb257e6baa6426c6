"""What every verb shares: exit codes, errors as one sentence, progress on standard error, JSON on standard output."""

import errno
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

import typer

from edgecxr.errors import BundleError, ChoiceError, ConfigError, DatasetError, EdgeCxrError, EngineError, RecipeError

__all__ = [
    "ExitCode",
    "counted",
    "guarded",
    "lacking_train",
    "note",
    "print_json",
    "progress",
    "require_node",
    "require_train",
    "safe",
    "shown",
]

# The modules that a build or the demo imports, each with the name of its package.
TRAIN = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "onnx": "onnx",
    "onnxconverter_common": "onnxconverter-common",
    "onnxscript": "onnxscript",
    "rle": "pylibjpeg-rle",
}

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # the medium's fault, whatever was written

P = ParamSpec("P")
R = TypeVar("R")


class ExitCode(IntEnum):
    """What a verb ends with."""

    DONE = 0
    SOME_REFUSED = 1  # of the inputs; the rest was screened
    MISUSE = 2  # a wrong argument, recipe, configuration, data set or bundle
    CANNOT = 3  # the machine cannot: an engine, a library or a gate that failed
    FAULT = 70  # of our own: a stack trace to report
    INTERRUPTED = 130
    CLOSED_PIPE = 141


MISUSES = (RecipeError, DatasetError, BundleError, ConfigError, ChoiceError)


def guarded(verb: Callable[P, R]) -> Callable[P, R]:
    """The verb, with each of our errors as one sentence on standard error and the exit code that belongs to it."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            try:
                return verb(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here, where a failure is told: when Python ends, it is a trace and another code
        except EdgeCxrError as error:
            note(f"edgecxr: {error}")
            raise typer.Exit(ExitCode.MISUSE if isinstance(error, MISUSES) else ExitCode.CANNOT) from None
        except KeyboardInterrupt:
            note("edgecxr: interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            _drop_output()  # nobody reads on: end in silence
            raise typer.Exit(ExitCode.CLOSED_PIPE) from None
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            _drop_output()
            what = error.filename or "the output"
            note(f"edgecxr: cannot write {what}: {error.strerror}; make room, or name another place")
            raise typer.Exit(ExitCode.MISUSE) from None

    return run


def _drop_output() -> None:
    """What standard output does not take is not tried again when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """One line for a person, on standard error."""
    print(text, file=sys.stderr, flush=True)


def shown(name: str) -> str:
    """A name on one line, whatever is in it: what cannot be printed, such as a line break, is escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def safe(name: str) -> str:
    """A name as part of a file's name: that of a finding may hold a slash."""
    return re.sub(r"[^\w.-]+", "_", name)


def counted(number: int, noun: str = "film") -> str:
    """``1 film``, ``2 films``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def lacking_train() -> list[str]:
    """Packages of the `train` extra that a build imports and that are not installed."""
    return [package for module, package in TRAIN.items() if find_spec(module) is None]


def require_train() -> None:
    """Raises EngineError with the command to type when the `train` extra is not installed."""
    if lacking := lacking_train():
        raise EngineError(f'building needs {", ".join(lacking)}: pip install "edgecxr[train]"')


def require_node(*modules: str) -> None:
    """Raises EngineError with the command to type when modules of the `node` extra are not installed."""
    if lacking := [module for module in modules if find_spec(module) is None]:
        raise EngineError(f'this needs {", ".join(lacking)}: pip install "edgecxr[node]"')


@contextmanager
def progress(title: str, total: int | None, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A bar on standard error (none where that is not a terminal); call it with a word for each step done.

    What is printed meanwhile goes above the bar only where it is for a terminal, too: elsewhere it stays where it was.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # else rich would send results that are kept in a file to the terminal
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda step: bar.update(task, advance=1, description=f"{title} {step}"[:60])

"""What a user chose, checked before any film is read: each wrong choice is one sentence and `ExitCode.MISUSE`."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from edgecxr.commands.terminal import ExitCode, note

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle

BUNDLE_START = slice(30, 43)  # of a zip: the name of its first member
ENGINE_HELP = "auto, openvino or onnxruntime; on an NVIDIA GPU tensorrt, torch-tensorrt or onnxruntime-cuda."
PRECISION_HELP = "auto, int8, fp16 or fp32."

__all__ = [
    "check_bundle",
    "check_choices",
    "check_inputs",
    "check_page",
    "check_results",
    "make_folder",
    "misuse",
    "writing",
]


def misuse(sentence: str) -> NoReturn:
    """End with a sentence on standard error."""
    note(f"edgecxr: {sentence}")
    raise typer.Exit(ExitCode.MISUSE)


def check_choices(bundle: "Bundle", engine: str, precision: str, point: str | None = None) -> None:
    """End when no engine, precision or operating point has the name given."""
    from edgecxr.runtimes.registry import choice_problem

    if problem := choice_problem(bundle, engine, precision, point):
        misuse(problem)


def check_inputs(paths: Iterable[Path]) -> None:
    """End when a path that the user named does not exist."""
    absent = [str(path) for path in paths if not os.path.exists(path)]
    if absent:
        misuse(f"there is no {', no '.join(absent)}; give films or folders of films that exist")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """End when the operating system refuses to write `path`; a reader that has gone is not misuse."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        misuse(f"cannot write {path}: {error.strerror or error}; name a place that can be written")


def check_results(path: Path, start: bytes) -> None:
    """End when the file holds something else than earlier results, which begin with `start` in whatever case.

    A film whose name was given in the wrong place is lost when results are written over it.
    """
    if not path.is_file():
        return
    with writing(path), path.open("rb") as file:
        found = file.read(1024).lstrip()
    if found and not found.lower().startswith(start):
        misuse(f"{path} holds something else than results of this kind, and is not written over; name another file")


def _check_no_device(path: Path) -> None:
    """End when something is there that a file must not replace, such as a device or a pipe."""
    with writing(path):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # that it is a folder is told in other words
        misuse(f"{path} is no file but a device, a pipe or a socket, and is not replaced by one; name a file")


def check_bundle(path: Path, source: Path) -> None:
    """End when a bundle cannot be written to `path`, or would be written over anything but another bundle."""
    if path.is_dir():
        misuse(f"{path} is a folder; name the file to write")
    _check_no_device(path)
    if path.exists() and path.samefile(source):
        misuse(f"{path} is the bundle that was given, and stays as it is; name another file")
    if path.exists():
        with writing(path), path.open("rb") as file:
            found = file.read(BUNDLE_START.stop)
        if found and found[BUNDLE_START] != b"manifest.json":
            misuse(f"{path} holds something else than a bundle, and is not written over; name another file")
    make_folder(path.parent)


def check_page(path: Path) -> None:
    """End when a file cannot be written, or is no page; what it holds is kept, and none is left where none was."""
    _check_no_device(path)
    check_results(path, b"<!doctype html")
    there = path.exists()
    with writing(path):
        path.open("ab").close()
        if not there:
            os.unlink(os.path.realpath(path))  # a link to a file to come stays


def make_folder(path: Path) -> None:
    """Make a folder for files, or end when it cannot be made or nothing can be written in it."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".edgecxr-probe"
        probe.touch()
        probe.unlink()

"""The command line: ``edgecxr VERB``. Each verb is a function of its own module in `edgecxr.commands`."""

import io
import os
import sys
import traceback
from typing import Annotated

import typer

from edgecxr import __version__
from edgecxr.commands.bench import bench
from edgecxr.commands.build import build
from edgecxr.commands.calibrate import calibrate
from edgecxr.commands.compile import compile_engines
from edgecxr.commands.demo import demo
from edgecxr.commands.doctor import doctor
from edgecxr.commands.evaluate import evaluate
from edgecxr.commands.explain import explain
from edgecxr.commands.inspection import inspect
from edgecxr.commands.install import install, rollback
from edgecxr.commands.merge import merge
from edgecxr.commands.queue import queue
from edgecxr.commands.screen import screen
from edgecxr.commands.send import send
from edgecxr.commands.serve import serve
from edgecxr.commands.sign import keygen, sign
from edgecxr.commands.terminal import ExitCode, guarded, note
from edgecxr.commands.verify import verify

__all__ = ["app", "main"]

app = typer.Typer(
    name="edgecxr",
    help="Chest X-ray screening where the X-ray is taken. Research software: not for diagnosis.",
    epilog="Exit codes: 0 done, 1 some inputs refused, 2 misuse, 3 the machine cannot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for verb in (build, merge, inspect, verify, screen, evaluate, calibrate, explain, bench, doctor, demo):
    app.command()(guarded(verb))
for service in (keygen, sign, install, rollback, send, serve):
    app.command()(guarded(service))
app.command("compile")(guarded(compile_engines))
app.add_typer(queue)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgecxr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


class _Fault:
    """A fault of our own ends with a stack trace and `ExitCode.FAULT`: Python's 1 would read as "some refused"."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error)
            raise SystemExit(ExitCode.FAULT) from None


def main() -> None:
    """Entry point of the `edgecxr` command."""
    if not sys.stderr:  # closed: files that are opened must not get its number, nor standard output its lines
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # that libraries write to, whatever Python has
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if not sys.stdout:
        note("edgecxr: standard output is closed, so that no result can be written; send it to a file, or to /dev/null")
        raise SystemExit(ExitCode.MISUSE)
    if isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8, and names of files need not be text at all
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    with _Fault():
        app()

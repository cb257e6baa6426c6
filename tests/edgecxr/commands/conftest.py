"""The command line in an empty folder. The whole command as a process of its own is in tests/edgecxr/test_cli.py."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edgecxr.cli import app


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def _log() -> Iterator[None]:
    """`serve` sends the log of its process to standard error, which is one test's own here and closed after it."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], _log: None
) -> Callable[..., Done]:
    """``run("sign", …)``: a `Done`; keywords are added to the environment of this one command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("EDGECXR_PASSPHRASE", raising=False)

    def call(*arguments: str | Path, **environment: str) -> Done:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                app([str(argument) for argument in arguments], prog_name="edgecxr")
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call

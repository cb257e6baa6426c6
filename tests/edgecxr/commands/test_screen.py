"""`edgecxr screen` where another engine is being compiled: it is told of, and never waited for."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.compiler import Candidate
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.ort import OrtCpu
from edgecxr.runtimes.screener import Screener
from edgecxr.runtimes.tensorrt_api import Progress

Run = Callable[..., Any]


def never_done(bundle: Bundle) -> Sequence[Candidate]:
    def make(progress: Progress) -> Engine:
        while progress("tactics", 3, 40):
            threading.Event().wait(0.01)
        raise EngineError("compiling was cancelled")

    return [Candidate(OrtCpu, "fp16", make)]


def test_what_is_being_compiled_is_told_of_and_not_waited_for(
    run: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(chest(1, size=128), tmp_path / "a.dcm")
    monkeypatch.setitem(Screener.__init__.__kwdefaults__, "successors", never_done)
    done = run("screen", "a.dcm", "--bundle", tiny_bundle)
    assert done.returncode == 0
    assert "onnxruntime fp16: compiling" in done.stderr
    assert "onnxruntime fp16: dropped (compiling was cancelled)" in done.stderr
    assert "1 film: " in done.stderr
    assert "; openvino-cpu int8, bundle " in done.stderr


def test_a_machine_that_reads_the_output_is_told_nothing_of_it(
    run: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(chest(1, size=128), tmp_path / "a.dcm")
    monkeypatch.setitem(Screener.__init__.__kwdefaults__, "successors", never_done)
    done = run("screen", "a.dcm", "--bundle", tiny_bundle, "--json")
    assert done.returncode == 0
    assert done.stderr == ""

"""Engines that follow OpenVINO in a screening process: real ones, named by functions that a child can import."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.compiler import Candidate
from edgecxr.runtimes.engine import Engine, Output
from edgecxr.runtimes.ort import OrtCpu
from edgecxr.runtimes.tensorrt_api import Progress

STEPS = 20


class Deadly(OrtCpu):
    """A driver that takes the process with it, on every film that it is given beside the golden ones."""

    def _run(self, frame: Radiograph) -> Output:
        os.kill(os.getpid(), signal.SIGSEGV)
        return super()._run(frame)


def onnxruntime(bundle: Bundle) -> Sequence[Candidate]:
    """ONNX Runtime in FP16, which takes half a second to be compiled."""

    def compile_slowly(progress: Progress) -> None:
        for step in range(STEPS):
            time.sleep(0.5 / STEPS)
            if not progress("tactics", step + 1, STEPS):
                raise EngineError("compiling was cancelled")

    return [_candidate(OrtCpu, bundle, compile_slowly)]


def called(bundle: Bundle) -> Sequence[Candidate]:
    """As `onnxruntime`, once there is the file that EDGECXR_TEST_FOLLOW names."""

    def wait(progress: Progress) -> None:
        while not Path(os.environ["EDGECXR_TEST_FOLLOW"]).exists():
            time.sleep(0.02)
            if not progress("waiting", 0, 0):
                raise EngineError("compiling was cancelled")

    return [_candidate(OrtCpu, bundle, wait)]


def refusing(bundle: Bundle) -> Sequence[Candidate]:
    """A builder that says no."""

    def refuse(progress: Progress) -> None:
        raise EngineError("tensorrt 10.3.0 refuses the model: no kernel image")

    return [_candidate(OrtCpu, bundle, refuse)]


def deadly(bundle: Bundle) -> Sequence[Candidate]:
    """`Deadly` in FP16; it reproduces the golden set, which is inferred and not run."""
    return [_candidate(Deadly, bundle)]


def _candidate(
    family: type[Engine], bundle: Bundle, compile_it: Callable[[Progress], object] = lambda _: None
) -> Candidate:
    return Candidate(family, "fp16", lambda: family(bundle, "fp16", threads=1), compile_it)

"""Engines that follow OpenVINO in a screening process: real ones, named by functions that a child can import."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.compiler import Candidate
from edgecxr.runtimes.cuda import DeviceFault
from edgecxr.runtimes.engine import Engine, Output
from edgecxr.runtimes.graph import Answer
from edgecxr.runtimes.ort import OrtCpu
from edgecxr.runtimes.tensorrt_api import Progress

STEPS = 20


class Deadly(OrtCpu):
    """A driver that takes the process with it, on every film that it is given beside the golden ones."""

    def _run(self, frame: Radiograph) -> Output:
        signal.raise_signal(signal.SIGSEGV)  # in this thread: nothing of it goes on
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


def stillborn(bundle: Bundle) -> Sequence[Candidate]:
    """A driver that takes the process with it while an engine is opened."""

    def fall() -> Engine:
        signal.raise_signal(signal.SIGSEGV)  # in this thread: nothing of it goes on
        raise EngineError("the process goes on")

    return [Candidate(OrtCpu, "fp16", fall)]


def late(bundle: Bundle) -> Sequence[Candidate]:
    """As `stillborn`, once there is the file that EDGECXR_TEST_FOLLOW names; by the signal that it holds."""

    def fall() -> Engine:
        while not (told := Path(os.environ["EDGECXR_TEST_FOLLOW"])).exists():
            time.sleep(0.01)
        signal.raise_signal(int(told.read_text()))
        raise EngineError("the process goes on")

    return [Candidate(OrtCpu, "fp16", fall)]


class Worn(OrtCpu):
    """It says something else once there is the file that EDGECXR_TEST_FOLLOW names."""

    def infer(self, batch: NDArray[Any]) -> Answer:
        answer = super().infer(batch)
        worn = Path(os.environ["EDGECXR_TEST_FOLLOW"]).exists()
        return answer._replace(logits=answer.logits[:, ::-1].copy()) if worn else answer


class Poisoned(OrtCpu):
    """It fails on a film once there is the file that EDGECXR_TEST_FOLLOW names."""

    def _run(self, frame: Radiograph) -> Output:
        if Path(os.environ["EDGECXR_TEST_FOLLOW"]).exists():
            raise DeviceFault("12 of 12 values of 'logits' were not written")
        return super()._run(frame)


def worn(bundle: Bundle) -> Sequence[Candidate]:
    """`Worn` in FP16."""
    return [_candidate(Worn, bundle)]


def poisoned(bundle: Bundle) -> Sequence[Candidate]:
    """`Poisoned` in FP16."""
    return [_candidate(Poisoned, bundle)]


def _candidate(
    family: type[Engine], bundle: Bundle, compile_it: Callable[[Progress], object] = lambda _: None
) -> Candidate:
    return Candidate(family, "fp16", lambda: family(bundle, "fp16", threads=1), compile_it)

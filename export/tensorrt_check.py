"""Whether a real TensorRT parses a graph and builds an engine from it. TensorRT-RTX needs no GPU; nothing is run."""

from dataclasses import dataclass
from typing import Literal

from edgecxr.errors import EngineError
from edgecxr.runtimes import tensorrt_api
from edgecxr.runtimes.driver import probe

__all__ = ["BuildReport", "build_with_tensorrt"]


@dataclass(frozen=True)
class BuildReport:
    """`built`: an engine came out. `refused`: the parser or the builder said no. `absent`: no TensorRT here."""

    outcome: Literal["built", "refused", "absent"]
    library: str = ""  # name and version
    engine_bytes: int = 0
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reason: str = ""  # why absent, or the first error


def build_with_tensorrt(model_bytes: bytes, *, largest_batch: int = 1) -> BuildReport:
    """Parse and build a graph of ours; for a dynamic-batch twin, with a profile of 1 to `largest_batch` films."""
    try:
        tensorrt = tensorrt_api.load()
        if not tensorrt.builds_without_gpu:
            probe().gpu()  # it measures on the GPU that it builds for
    except EngineError as error:
        return BuildReport("absent", reason=str(error))
    try:
        plan = tensorrt.build(model_bytes, largest_batch=largest_batch)
    except tensorrt_api.Refused as error:
        return BuildReport("refused", tensorrt.name, 0, error.errors, error.warnings, error.errors[0])
    return BuildReport("built", tensorrt.name, len(plan.engine), warnings=plan.warnings)

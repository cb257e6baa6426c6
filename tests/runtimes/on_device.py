"""Engines of an NVIDIA GPU, for tests on one: what this machine lacks is a skip, what an engine does wrong is none."""

import pytest

from edgecxr.errors import EngineError
from edgecxr.runtimes import tensorrt_api
from edgecxr.runtimes.driver import probe
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.registry import engine_class


def device_engine(name: str) -> type[Engine]:
    """The class of the engine; a skip where its library is not here, or does not list this GPU."""
    found = engine_class(name)
    try:
        found.graph.version()
    except EngineError as error:
        pytest.skip(f"{name}: {error}")
    if not name.startswith("onnxruntime"):
        _require_listed()
    return found


def _require_listed() -> None:
    """TensorRT-RTX names the compute capabilities that it builds for; TensorRT does not."""
    api, own = tensorrt_api.load(), probe().gpu().capability
    if api.builds_without_gpu and own not in api.capabilities():
        pytest.skip(f"{api.name} does not build for compute capability {own}")

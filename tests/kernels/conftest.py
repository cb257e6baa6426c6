"""The compiled kernel where there is one; EDGECXR_REQUIRE_NATIVE=1 makes its absence a failure instead of a skip."""

import importlib
import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def native() -> ModuleType:
    if os.environ.get("EDGECXR_REQUIRE_NATIVE"):
        return importlib.import_module("edgecxr.kernels.native")
    reason = "the C++ kernel is not compiled (a bare checkout, or no compiler)"
    module: ModuleType = pytest.importorskip("edgecxr.kernels.native", reason=reason, exc_type=ImportError)
    return module


@pytest.fixture(scope="session")
def emulation_module() -> ModuleType:
    """The module `emulation.py` beside this file."""
    spec = spec_from_file_location("cuda_emulation", Path(__file__).parent / "emulation.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("tests/kernels/emulation.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulation(emulation_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The CUDA kernel's text, compiled for the CPU: an `Emulation`."""
    return emulation_module.Emulation(tmp_path_factory.mktemp("emulation"))

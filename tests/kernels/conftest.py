"""The compiled kernel where there is one; EDGECXR_REQUIRE_NATIVE=1 makes its absence a failure instead of a skip."""

import importlib
import os
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def native() -> ModuleType:
    if os.environ.get("EDGECXR_REQUIRE_NATIVE"):
        return importlib.import_module("edgecxr.kernels.native")
    reason = "the C++ kernel is not compiled (a bare checkout, or no compiler)"
    module: ModuleType = pytest.importorskip("edgecxr.kernels.native", reason=reason, exc_type=ImportError)
    return module

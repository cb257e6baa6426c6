"""`import edgecxr` is light: a command line that only prints help must not load a training framework."""

import subprocess
import sys
from pathlib import Path

import edgecxr

ENGINES = {"torch", "onnx", "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "nncf"}
HEAVY = ENGINES | {"pydicom", "scipy", "sklearn", "matplotlib"}


def loaded_by(statement: str) -> set[str]:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(edgecxr.__file__).parents[1])!r})\n{statement}\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_heavy_library() -> None:
    assert not loaded_by("import edgecxr") & HEAVY


def test_an_engine_library_is_loaded_when_opened_not_before() -> None:
    modules = ("bundle", "telemetry", "runtimes", "runtimes.graph", "runtimes.ov", "runtimes.ort")
    statement = "; ".join(f"import edgecxr.{module}" for module in modules)
    assert not loaded_by(statement) & (ENGINES | {"matplotlib", "sklearn"})

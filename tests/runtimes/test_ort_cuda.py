"""ONNX Runtime behind the kernel of a GPU: over a stub driver it reads and writes the device's buffers themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from test_device_faults import HERE, driver, pytestmark

__all__ = ["driver", "pytestmark"]

WITHOUT_CUDA = """
from edgecxr.errors import EngineError
from edgecxr.runtimes.ort_cuda import OrtCudaGraph
try:
    OrtCudaGraph.version()
except EngineError as error:
    print(error)
"""


@pytest.mark.parametrize("integrated", [False, True])
def test_network_and_kernel_meet_in_the_buffers_of_the_device(
    integrated: bool, driver: Path, tiny_bundle: Path
) -> None:
    command = [sys.executable, str(HERE / "bound_buffers.py"), str(tiny_bundle)]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **({"INTEGRATED": "1"} if integrated else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("zero_copy") is integrated
    assert told.pop("version")
    assert told.pop("asked") == ["device_id", "use_tf32", "user_compute_stream"]
    assert told == pytest.approx(dict.fromkeys(told, 0), abs=1e-6)
    assert sorted(told) == ["fp16", "fp32", "fp32 film", "int8", "int8 film"]


def test_an_onnx_runtime_without_cuda_is_a_sentence(driver: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    command = [sys.executable, "-c", WITHOUT_CUDA]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is without CUDAExecutionProvider; pip uninstall onnxruntime, then pip install" in done.stdout

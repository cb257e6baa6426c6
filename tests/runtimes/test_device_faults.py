"""What a driver may do to us, over a stub driver and real pycuda: told in its words, no result, the CPU goes on."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CPU = ["openvino-cpu"] * 3


def lacking() -> str:
    """What keeps these tests from running here."""
    if find_spec("pycuda") is None or sys.platform != "linux":
        return "pip install edgecxr[nvidia] on Linux for this test"
    if shutil.which("cc") is None:
        return "no C compiler: apt-get install gcc"
    return ""


pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stub driver."""
    folder = tmp_path_factory.mktemp("driver")
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(HERE / "stub_device.c")], check=True)
    return folder


@pytest.fixture(scope="module")
def bundle(tiny_build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, with thresholds for the stub."""
    points = tiny_build.spec.operating_points
    own = [point.model_copy(update={"engine": "stub-gpu"}) for point in points if point.engine == "openvino-cpu"]
    spec = tiny_build.spec.model_copy(update={"operating_points": (*points, *own)})
    path: Path = tiny_build.write(tmp_path_factory.mktemp("stub") / "stub.cxr", model=spec)
    return path


def outcome(driver: Path, bundle: Path, when: str, fail: str, integrated: bool = False) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "faulty_device.py"), str(bundle), when, fail]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **({"INTEGRATED": "1"} if integrated else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("integrated", [False, True])
def test_while_nothing_fails_it_serves(integrated: bool, driver: Path, bundle: Path) -> None:
    told = outcome(driver, bundle, "never", "nothing=0", integrated)
    assert told == {"engines": ["stub-gpu"] * 3, "same": True, "reasons": [""], "kernels": ["cuda", "cuda"]}


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("cuDevicePrimaryCtxRetain=46", "CUDA-capable device(s) is/are busy or unavailable"),
        ("cuMemAlloc_v2=2", "out of memory; other programs hold the GPU's memory: end them, or screen on the CPU"),
        ("cuMemHostAlloc=2", "out of memory; other programs hold the GPU's memory"),
        ("cuStreamSynchronize=700", "an illegal memory access was encountered"),
        ("cuInit=999", "the NVIDIA driver cannot be used (cuInit: error 999, unknown error"),
    ],
)
def test_what_fails_when_it_opens_is_told_and_the_cpu_serves(fail: str, words: str, driver: Path, bundle: Path) -> None:
    told = outcome(driver, bundle, "opening", fail)
    assert told["engines"] == CPU
    assert words in told["reasons"][0]


@pytest.mark.parametrize("integrated", [False, True])
def test_what_the_kernel_leaves_out_is_found_in_copied_and_in_mapped_memory(
    integrated: bool, driver: Path, bundle: Path
) -> None:
    told = outcome(driver, bundle, "screening", "SHORT=1", integrated)
    assert told["engines"] == ["stub-gpu", "openvino-cpu", "openvino-cpu"]
    assert "were not written or are not finite; there is no result" in told["reasons"][0]


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("cuLaunchKernel=719", "cuLaunchKernel failed: unspecified launch failure"),
        ("cuStreamSynchronize=700", "cuStreamSynchronize failed: an illegal memory access was encountered"),
        ("cuMemcpyDtoHAsync_v2=46", "cuMemcpyDtoHAsync failed: CUDA-capable device(s) is/are busy or unavailable"),
        ("cuCtxPushCurrent_v2=46", "CUDA-capable device(s) is/are busy or unavailable"),
        ("SHORT=1", "values of 'logits' were not written or are not finite; there is no result"),
    ],
)
def test_what_fails_on_a_film_gives_no_result_and_the_cpu_screens_that_film(
    fail: str, words: str, driver: Path, bundle: Path
) -> None:
    told = outcome(driver, bundle, "screening", fail)
    assert told["engines"] == ["stub-gpu", "openvino-cpu", "openvino-cpu"]
    assert told["same"]
    assert words in told["reasons"][0]
    assert told["kernels"][0] == "cuda" != told["kernels"][1]


def test_a_driver_that_takes_no_form_of_the_kernel_is_told_of_both(driver: Path, bundle: Path) -> None:
    """As one does that is older than the toolkit. The kernel is loaded with the first film."""
    told = outcome(driver, bundle, "opening", "cuModuleLoadDataEx=222")
    assert told["engines"] == CPU
    assert "no preprocessing kernel for Stub 0: fatbin: " in told["reasons"][0]
    assert "nvrtc: Stub 0: " in told["reasons"][0]
    assert "the provided PTX was compiled with an unsupported toolchain" in told["reasons"][0]
    assert "the driver is older than the kernels: update it" in told["reasons"][0]

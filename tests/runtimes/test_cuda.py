"""The device: whatever the driver says, or does not, is a sentence; on a GPU, no fault gives a result."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgecxr.errors import EngineError
from edgecxr.runtimes import cuda
from edgecxr.runtimes.cuda import CudaGraph, Device, DeviceFault
from edgecxr.runtimes.driver import DeviceReport, Gpu, probe

STUB = Path(__file__).parent / "stub_driver.c"
CUDA_GRAPH_CALLS = (
    *("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch", "cuGraphDestroy"),
    *("cuGraphExecDestroy", "cuGetErrorString"),
)


def driver(folder: Path, *defined: str) -> str:
    """A compiled stub of libcuda."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: apt-get install gcc")
    path = folder / "libcuda_stub.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(path), str(STUB), *(f"-D{item}" for item in defined)]
    subprocess.run(command, check=True)
    return str(path)


def test_devices_are_listed_as_the_driver_gives_them(tmp_path: Path) -> None:
    report = probe(driver(tmp_path, "DEVICES=2"))
    assert (report.cuda, report.reason) == ("12.6", "")
    assert report.devices == (
        Gpu(0, "Orin", "8.7", 7 << 30, 12, True, True),
        Gpu(1, "NVIDIA Second", "8.7", 8 << 30, 12, False, True),
    )
    assert report.gpu(0).architecture == "sm_87"
    with pytest.raises(EngineError, match="there is no GPU 2; the driver lists 2, numbered from 0"):
        report.gpu(2)


@pytest.mark.parametrize(
    ("defined", "words"),
    [
        ("INIT=100", r"cuInit: error 100, CUDA_ERROR_NO_DEVICE, no CUDA-capable device is detected"),
        ("INIT=803", r"error 803, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, system has unsupported display driver"),
        ("INIT=999", r"the NVIDIA driver cannot be used \(cuInit: error 999\)"),
        ("DEVICES=0", r"the NVIDIA driver lists no GPU"),
        ("ANCIENT", r"the NVIDIA driver cannot be used \(.*undefined symbol: cuDriverGetVersion"),
    ],
)
def test_a_driver_that_cannot_be_used_is_a_sentence_with_its_words(defined: str, words: str, tmp_path: Path) -> None:
    report = probe(driver(tmp_path, defined))
    assert report.devices == ()
    with pytest.raises(EngineError, match=words):
        report.gpu()


def test_no_driver_is_a_sentence(tmp_path: Path) -> None:
    report = probe(str(tmp_path / "libcuda.so.1"))
    assert report.devices == ()
    assert "no NVIDIA driver here (" in report.reason
    assert "install the driver of the GPU, or use OpenVINO on the CPU" in report.reason


def test_a_file_that_is_no_library_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("not a library")
    assert "no NVIDIA driver here (" in probe(str(tmp_path / "libcuda.so.1")).reason


@pytest.mark.skipif(not probe().reason, reason="there is a GPU here")
def test_a_device_is_not_opened_without_a_driver_and_nothing_is_imported() -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA driver here|the NVIDIA driver"):
        Device()
    assert "pycuda" not in sys.modules


def test_without_pycuda_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setattr(
        cuda, "probe", lambda: DeviceReport("13.0", "", (Gpu(0, "Orin", "8.7", 1 << 33, 12, True, True),))
    )
    with pytest.raises(EngineError, match=r"pycuda cannot be imported .*pip install 'edgecxr\[nvidia\]'"):
        Device()


def test_the_calls_that_capture_are_in_cuda_bindings() -> None:
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        pytest.skip("pip install cuda-bindings for this test")
    from cuda.bindings import driver as bindings

    assert [name for name in CUDA_GRAPH_CALLS if not hasattr(bindings, name)] == []
    assert hasattr(bindings.CUstreamCaptureMode, "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")


@pytest.fixture
def device() -> Device:
    pytest.importorskip("pycuda", reason="pip install edgecxr[nvidia] for this test")
    return Device()


@pytest.mark.gpu
def test_what_is_uploaded_comes_back(device: Device) -> None:
    source = device.buffer(1000)
    source.host[:] = np.arange(1000) % 251
    with device.use():
        source.upload()
    device.synchronize()
    wanted = source.host.copy()
    source.poison_host()
    with device.use():
        source.download()
    device.synchronize()
    if not source.mapped:
        np.testing.assert_array_equal(source.host, wanted)
    device.close()
    device.close()
    with pytest.raises(EngineError, match="this device is closed"):
        device.buffer(1)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_poison_is_nan(dtype: type, device: Device) -> None:
    buffer = device.buffer(64)
    with device.use():
        buffer.poison()
        buffer.download()
    device.synchronize()
    assert np.isnan(buffer.array((64 // np.dtype(dtype).itemsize,), dtype)).all()
    device.close()


@pytest.mark.gpu
def test_a_captured_graph_does_again_what_was_captured(device: Device) -> None:
    buffer = device.buffer(256)

    def work() -> None:
        buffer.upload()
        buffer.download()

    with device.use():
        work()
    device.synchronize()
    graph = CudaGraph(device, work)
    buffer.host[:] = 7
    with device.use():
        graph.launch()
    device.synchronize()
    assert (buffer.host == 7).all()
    with device.use():
        graph.close()
    device.close()


@pytest.mark.gpu
def test_out_of_memory_is_a_fault_in_the_drivers_words_and_ends_the_device(device: Device) -> None:
    with pytest.raises(DeviceFault, match=r"(?i)out of memory.*end them, or screen on the CPU"):
        device.buffer(device.gpu.memory_bytes * 4)
    with pytest.raises(DeviceFault, match="is not used any more"):
        device.buffer(1)
    device.close()


@pytest.mark.gpu
def test_an_image_that_is_no_module_is_refused_and_the_device_goes_on(device: Device) -> None:
    with pytest.raises(EngineError, match=device.gpu.name):
        device.module(b"not a module")
    assert device.buffer(16).size == 16
    device.close()

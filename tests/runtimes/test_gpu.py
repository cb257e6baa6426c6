"""What engines on a GPU share, on a GPU, with a network that writes zeros: no TensorRT is needed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_device import StubEngine

from edgecxr import kernels
from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.phantom import chest
from edgecxr.runtimes import lending
from edgecxr.runtimes.compiler import Candidate
from edgecxr.runtimes.cuda import Buffer, DeviceFault
from edgecxr.runtimes.gpu import GpuEngine, GpuGraph, Port, ordered
from edgecxr.runtimes.screener import Screener
from edgecxr.spec import PreprocessSpec

SIZE = 64
FLOAT = np.dtype(np.float32)
PORTS = {
    "image": Port("image", (1, 1, SIZE, SIZE), FLOAT),
    "logits": Port("logits", (1, 3), FLOAT),
    "cam": Port("cam", (1, 3, 8, 8), FLOAT),
    "embedding": Port("embedding", (1, 24), FLOAT),
}


class Zeros(GpuGraph):
    """A network whose outputs are all zero; it leaves out the last `missing` bytes of each."""

    library = "zeros"
    missing = 0
    fails = ""

    @classmethod
    def version(cls) -> str:
        return "1"

    def _load(self, model: bytes) -> tuple[Port, tuple[Port, ...]]:
        return ordered(PORTS, self.library)

    def _bind(self, buffers: dict[str, Buffer]) -> None:
        self._outputs = [buffer for name, buffer in buffers.items() if name != "image"]

    def _enqueue(self) -> None:
        if self.fails:
            raise EngineError(self.fails)
        with self.device.use() as driver:
            for buffer in self._outputs:
                driver.memset_d8_async(buffer.address, 0, buffer.size - self.missing, self.device.stream)


class ZerosEngine(GpuEngine):
    family = "zeros-gpu"
    graph = Zeros


@pytest.fixture
def graph() -> Any:
    pytest.importorskip("pycuda", reason="pip install edgecxr[nvidia] for this test")
    made = Zeros(b"")
    yield made
    made.close()
    made.close()


def test_tensors_must_be_those_of_the_contract() -> None:
    assert [port.name for port in ordered(PORTS, "x")[1]] == ["logits", "cam", "embedding"]
    assert PORTS["cam"].size == 768
    with pytest.raises(EngineError, match=r"x: tensors are \['image'\]; wanted image, logits, cam, embedding"):
        ordered({"image": PORTS["image"]}, "x")
    with pytest.raises(EngineError, match=r"'cam' is \(-1, 3, 8, 8\); wanted a static shape"):
        ordered({**PORTS, "cam": Port("cam", (-1, 3, 8, 8), FLOAT)}, "x")


@pytest.mark.gpu
def test_a_batch_goes_through_again_and_again(graph: Zeros) -> None:
    for _ in range(3):  # call by call, then captured
        answer = graph.infer(np.ones((2, 1, SIZE, SIZE), np.float32))
        assert [values.shape for values in answer] == [(2, 3), (2, 3, 8, 8), (2, 24)]
        assert not any(values.any() for values in answer)
    assert graph.describe()["cuda_graph"] == (graph.plain or "captured")


@pytest.mark.gpu
@pytest.mark.parametrize("runs_before", [0, 1])
def test_an_element_that_is_not_written_is_a_fault_never_the_result_before(graph: Zeros, runs_before: int) -> None:
    batch = np.ones((1, 1, SIZE, SIZE), np.float32)
    for _ in range(runs_before):
        graph.infer(batch)
    graph.capturing = False
    graph._graphs.clear()
    graph.missing = 4
    with pytest.raises(DeviceFault, match="1 of 3 values of 'logits' were not written or are not finite"):
        graph.infer(batch)
    with pytest.raises(DeviceFault, match="is not used any more"):
        graph.infer(batch)


@pytest.mark.gpu
def test_films_of_several_sizes_are_preprocessed_as_on_the_cpu(graph: Zeros) -> None:
    spec = PreprocessSpec(size=SIZE)
    films = [chest(seed, "normal", size=size) for seed, size in enumerate((96, 300, 200, 300, 96, 640, 96))]
    for film in [*films, *films]:
        answer, staged_ms, device_ms = graph.screen(film, spec)
        assert not answer.logits.any()
        assert min(staged_ms, device_ms) > 0
        got = graph._buffers[0].array((1, 1, SIZE, SIZE), np.float32)
        np.testing.assert_allclose(got, kernels.preprocess([film], spec), rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_an_engine_whose_library_fails_is_closed_for_good(tiny_bundle: Path) -> None:
    pytest.importorskip("pycuda", reason="pip install edgecxr[nvidia] for this test")
    bundle = Bundle.open(tiny_bundle)
    engine = ZerosEngine.open(bundle, "fp32", golden=False)
    film = bundle.golden().frames[:1]
    assert not engine.run(film)[0].logits.any()
    graph = engine._graph
    assert isinstance(graph, Zeros)
    graph.fails, graph.capturing = "the library's own words", False
    graph._graphs.clear()
    with pytest.raises(DeviceFault, match="the library's own words"):
        engine.run(film)
    with pytest.raises(EngineError, match="zeros-gpu: this engine is closed"):
        engine.run(film)


@pytest.mark.gpu
def test_an_engine_that_does_not_reproduce_the_golden_set_does_not_open(tiny_bundle: Path) -> None:
    pytest.importorskip("pycuda", reason="pip install edgecxr[nvidia] for this test")
    with pytest.raises(EngineError, match="zeros-gpu fp32 does not reproduce the golden set"):
        ZerosEngine.open(Bundle.open(tiny_bundle), "fp32")


@pytest.mark.gpu
def test_on_a_gpu_it_takes_over_borrows_thresholds_and_decides_as_the_cpu_does(
    tiny_bundle: Path, tiny_build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path but TensorRT: ONNX Runtime infers on the host what the kernel left on the device."""
    pytest.importorskip("pycuda", reason="pip install edgecxr[nvidia] for this test")
    monkeypatch.setattr(lending, "WATCHED", 2)
    candidate = Candidate(StubEngine, "fp32", lambda: StubEngine.open(Bundle.open(tiny_bundle), "fp32"))
    with (
        Screener(tiny_bundle, "openvino", "fp32") as alone,
        Screener(tiny_bundle, precision="fp32", successors=lambda _: [candidate]) as screener,
    ):
        assert screener.wait(300)
        assert [str(attempt) for attempt in screener.successors()] == ["stub fp32: serving"]
        engines = set()
        for film in tiny_build.films[6:30]:
            result, wanted = screener.screen(film), alone.screen(film)
            engines.add((result.engine, result.kernel == "cuda"))
            assert [item.decision for item in result.findings] == [item.decision for item in wanted.findings]
        assert engines == {("stub-gpu", True), ("openvino-cpu", False)}

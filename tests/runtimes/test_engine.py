"""The engine: opened only when it proves itself, one film at a time, never a result from a fault."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from on_device import device_engine

from edgecxr import kernels
from edgecxr.bundle import Bundle
from edgecxr.errors import BundleError, EngineError, Refusal
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.registry import engine_class

ON_CPU = ("openvino-cpu", "onnxruntime-cpu")
ON_GPU = ("tensorrt-gpu", "torch-tensorrt-gpu", "onnxruntime-cuda-gpu")
FAMILIES = (*ON_CPU, *(pytest.param(family, marks=pytest.mark.gpu) for family in ON_GPU))
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module", autouse=True)
def _engines_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of their own for those that are compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECXR_CACHE", str(tmp_path_factory.mktemp("engines")))
        yield


def found(family: str) -> type[Engine]:
    """The engine's class; a skip for one of a GPU that this machine has no library for."""
    return device_engine(family) if family in ON_GPU else engine_class(family)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_film_goes_in_and_scores_map_and_embedding_come_out(family: str, precision: Any, bundle: Bundle) -> None:
    golden = bundle.golden()
    with found(family).open(bundle, precision, threads=1) as engine:
        outputs = engine.run(golden.frames[:2])
    for index, output in enumerate(outputs):
        wanted = golden.logits[precision][index]
        np.testing.assert_allclose(output.logits, wanted, rtol=0, atol=0.05)
        assert output.cam.shape == (3, 8, 8)
        assert output.embedding.shape == (24,)
        assert output.preprocess_ms > 0
        assert output.infer_ms > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_says_what_it_is(family: str, bundle: Bundle) -> None:
    with found(family).open(bundle, "int8", threads=1) as engine:
        told = engine.describe()
    if family in ON_GPU:
        assert (told["family"], told["precision"], told["kernel"]) == (family, "int8", "cuda")
        assert told["device"]
        return
    assert (told["family"], told["precision"], told["kernel"]) == (family, "int8", kernels.active())
    assert (told["inference_precision"], told["threads"]) == ("f32", 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_closed_engine_says_so(family: str, bundle: Bundle) -> None:
    engine = found(family).open(bundle, "fp32")
    engine.close()
    engine.close()
    for use in (engine.describe, lambda: engine.run(bundle.golden().frames[:1])):
        with pytest.raises(EngineError, match=f"{family}: this engine is closed"):
            use()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_batch_is_refused(family: str, bundle: Bundle) -> None:
    match = r"batch is \(1, 1, 32, 32\), wanted \(N, 1, 64, 64\)"
    with found(family).open(bundle, "fp32") as engine, pytest.raises(EngineError, match=match):
        engine.infer(np.zeros((1, 1, 32, 32), np.float32))


def test_a_precision_that_is_not_packed_is_refused(tiny_build: Any, tmp_path: Path) -> None:
    models = {"fp16": tiny_build.models["fp16"]}
    path = tiny_build.write(tmp_path / "one.cxr", models=models, gates={"fp16": tiny_build.gates["fp16"]})
    with pytest.raises(BundleError, match="int8 is not packed; choose fp16"):
        engine_class("openvino").open(Bundle.open(path), "int8")


def test_another_device_is_refused(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="openvino-cpu runs on 'cpu', not on 'gpu'"):
        engine_class("openvino").open(bundle, "fp32", "gpu")


def test_a_film_without_contrast_is_refused_not_scored(bundle: Bundle) -> None:
    with engine_class("openvino").open(bundle, "fp32") as engine, pytest.raises(Refusal, match="no_contrast"):
        engine.run([Radiograph(np.full((90, 80), 7, np.uint16), 12)])


def opened(build: Any, folder: Path, family: str, **changes: Any) -> Engine:
    bundle = Bundle.open(build.write(folder / "changed.cxr", **changes))
    return found(family).open(bundle, "fp32")


@pytest.mark.parametrize("family", FAMILIES)
def test_another_model_does_not_pass_the_golden_set(
    family: str, tiny_module: ModuleType, tiny_build: Any, tmp_path: Path
) -> None:
    weights = {**tiny_build.weights, "bias": tiny_build.weights["bias"] + np.array([3, 0, 0], np.float32)}
    models = {**tiny_build.models, "fp32": tiny_module.float_model(weights)}
    with pytest.raises(EngineError, match=r"normal of golden film \d is 0\.8\d+, wanted 0\.\d+ within 0.05"):
        opened(tiny_build, tmp_path, family, models=models)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_nan_does_not_open(family: str, tiny_module: ModuleType, tiny_build: Any, tmp_path: Path) -> None:
    weights = {**tiny_build.weights, "bias": np.full(3, np.nan, np.float32)}
    with pytest.raises(EngineError, match="NaN or infinite"):
        opened(tiny_build, tmp_path, family, models={**tiny_build.models, "fp32": tiny_module.float_model(weights)})


@pytest.mark.parametrize(("output", "what"), [("cam", "activation maps"), ("embedding", "embeddings")])
def test_another_map_or_embedding_does_not_pass(output: str, what: str, tiny_build: Any, tmp_path: Path) -> None:
    stored = getattr(tiny_build.golden, output)
    changed = {**stored, "fp32": np.ascontiguousarray(stored["fp32"][:, ::-1])}
    golden = replace(tiny_build.golden, **{output: changed})
    with pytest.raises(EngineError, match=rf"{what} of golden film \d agree -?0\.\d+, wanted 0.98"):
        opened(tiny_build, tmp_path, "openvino", golden=golden)


def test_outputs_of_another_shape_than_the_spec_says_do_not_pass(tiny_build: Any, tmp_path: Path) -> None:
    golden = replace(tiny_build.golden, cam={name: values[..., :4] for name, values in tiny_build.golden.cam.items()})
    spec = tiny_build.spec.model_copy(update={"cam_shape": (8, 4)})
    with pytest.raises(EngineError, match=r"output 'cam' is \(6, 3, 8, 8\), the bundle's spec says \(6, 3, 8, 4\)"):
        opened(tiny_build, tmp_path, "openvino", golden=golden, model=spec)


def test_without_the_golden_test_a_wrong_model_opens_for_measuring(
    tiny_module: ModuleType, tiny_build: Any, tmp_path: Path
) -> None:
    weights = {**tiny_build.weights, "bias": np.array([3, 0, 0], np.float32)}
    models = {**tiny_build.models, "fp32": tiny_module.float_model(weights)}
    bundle = Bundle.open(tiny_build.write(tmp_path / "changed.cxr", models=models))
    with engine_class("openvino").open(bundle, "fp32", golden=False) as engine:
        assert engine.describe()["family"] == "openvino-cpu"


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_that_share_an_engine_get_their_own_film(family: str, bundle: Bundle) -> None:
    frames = bundle.golden().frames[:4]
    got: dict[int, Any] = {}
    with found(family).open(bundle, "int8", threads=1) as engine:
        alone = [output.logits for output in engine.run(frames)]

        def work(index: int) -> None:
            got[index] = [engine.run([frames[index]])[0].logits for _ in range(3)]

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index, logits in got.items():
        for values in logits:
            np.testing.assert_array_equal(values, alone[index])
    assert len(got) == 4

"""TensorRT: what is used of it exists in every version that is named, and real builders take the models."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from on_device import device_engine

from edgecxr.bundle import Bundle, default_bundle_path
from edgecxr.errors import EngineError
from edgecxr.runtimes import tensorrt_api, torch_trt, trt
from edgecxr.runtimes.driver import Gpu, probe
from edgecxr.runtimes.registry import engine_class, open_engine
from edgecxr.runtimes.tensorrt_api import OPTIONAL, USED, Refused, Tensorrt, capability_names, load
from edgecxr.runtimes.trt import engine_key

SURFACE = Path(__file__).parent / "tensorrt_surface"
VERSIONS = ("10.3.0", "10.16.1", "11.4.0", "rtx-1.4.0", "rtx-1.7.1")
ORIN = Gpu(0, "Orin", "8.7", 8 << 30, 16, True, True)


def recorded(version: str) -> dict[str, set[str]]:
    """Members of each class of the real bindings, as tensorrt_surface/record.py wrote them down."""
    classes = json.loads((SURFACE / f"{version}.json").read_text())["classes"]
    return {name: set(members) for name, members in classes.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_used_is_in_the_real_bindings(version: str) -> None:
    classes = recorded(version)
    missing = [f"{name}.{member}" for name, used in USED.items() for member in used if member not in classes[name]]
    assert not missing


def test_everything_optional_is_there_in_one_version_and_not_in_another() -> None:
    classes = [recorded(version) for version in VERSIONS]
    for name, optional in OPTIONAL.items():
        for member in optional:
            there = [member in found.get(name, set()) for found in classes]
            assert any(there), f"{name}.{member} is in no version"
            assert not all(there), f"{name}.{member} is in every version: it belongs to USED"


@pytest.mark.parametrize("module", [tensorrt_api, trt, torch_trt])
def test_nothing_is_used_that_is_not_listed(module: ModuleType) -> None:
    names = {name for version in VERSIONS for members in recorded(version).values() for name in members}
    listed = {name for table in (USED, OPTIONAL) for members in table.values() for name in members}
    used = {
        node.attr
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text()))
        if type(node) is ast.Attribute
    }
    assert (used & names) - listed - {"logger", "engine", "dtype", "itemsize"} == set()  # ours and NumPy's


def test_strong_typing_is_a_flag_where_it_must_be_asked_for() -> None:
    assert {"EXPLICIT_BATCH", "STRONGLY_TYPED"} <= recorded("10.3.0")["NetworkDefinitionCreationFlag"]
    assert "EXPLICIT_BATCH" not in recorded("11.4.0")["NetworkDefinitionCreationFlag"]


def test_capabilities_are_named_as_the_driver_names_them() -> None:
    members = {"NONE": 0, "CURRENT": 1, "SM75": 75, "SM120": 120, "SM89": 89}
    enumeration = type("ComputeCapability", (), {"__members__": members})
    assert capability_names(enumeration) == ("7.5", "8.9", "12.0")
    assert capability_names(None) == ()


def test_an_engine_is_kept_for_what_it_was_built_for() -> None:
    classic = Tensorrt(type("tensorrt", (), {"__version__": "10.3.0", "IBuilderConfig": object}))
    key = engine_key(b"model", classic, ORIN)
    assert (key.flavour, key.version, key.device) == (
        "tensorrt",
        "10.3.0",
        "Orin, compute capability 8.7, 16 multiprocessors",
    )
    assert engine_key(b"another", classic, ORIN) != key
    assert engine_key(b"model", classic, replace(ORIN, multiprocessors=8)) != key  # of another board
    with pytest.raises(EngineError, match="builds on the GPU that will run the engine, and there is none"):
        engine_key(b"model", classic, None)


def test_without_any_tensorrt_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_api, "PACKAGES", (("a_package_that_is_not_there",),))
    with pytest.raises(EngineError, match=r"pip install 'edgecxr\[tensorrt\]', on a Jetson apt-get install"):
        load()


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_real_builder_takes_every_precision(precision: Any, tiny_bundle: Path) -> None:
    tensorrt, steps = load(), []
    model = Bundle.open(tiny_bundle).model(precision)
    plan = tensorrt.build(
        model, capabilities=tensorrt.capabilities()[:1], progress=lambda *step: steps.append(step) is None
    )
    assert len(plan.engine) > 1000
    assert steps
    assert all(phase and 1 <= step <= of for phase, step, of in steps)


@pytest.mark.tensorrt
def test_building_can_be_cancelled(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="building was cancelled"):
        load().build(Bundle.open(tiny_bundle).model("fp32"), progress=lambda *_: False)


@pytest.mark.tensorrt
def test_what_the_parser_refuses_is_raised_in_its_words() -> None:
    with pytest.raises(Refused, match=r"refuses the model: .") as caught:
        load().build(b"not a graph")
    assert caught.value.errors


@pytest.mark.tensorrt
def test_a_capability_that_is_not_listed_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"does not build for compute capability 5\.0; choose of 7\.5, 8\.0"):
        load().build(Bundle.open(tiny_bundle).model("fp32"), capabilities=["5.0"])


OLD = """
import sys
sys.path += sys.argv[1:2]  # behind its own TensorRT
from pathlib import Path
from edgecxr.runtimes.tensorrt_api import load
tensorrt = load()
plan = tensorrt.build(Path(sys.argv[2]).read_bytes(), capabilities=["8.9"], progress=lambda *_: True)
print(tensorrt.version, len(plan.engine))
"""


def test_an_older_real_builder_takes_fp16(tmp_path: Path) -> None:
    """TensorRT-RTX 1.4 has the interface of TensorRT 10. EDGECXR_TENSORRT_RTX_14 names a Python that has it."""
    python = os.environ.get("EDGECXR_TENSORRT_RTX_14", "")
    if not Path(python).is_file() or subprocess.run([python, "-c", "import tensorrt_rtx"], check=False).returncode:
        pytest.skip("EDGECXR_TENSORRT_RTX_14 names no Python with tensorrt_rtx 1.4; `make test` makes one")
    model = tmp_path / "fp16.onnx"
    model.write_bytes(Bundle.open(default_bundle_path()).model("fp16"))
    command = [python, "-c", OLD, str(Path(tensorrt_api.__file__).parents[2]), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version, size = done.stdout.split()
    assert version.startswith("1.4.")
    assert int(size) > 100_000


@pytest.mark.skipif(not probe().reason, reason="there is a GPU here")
@pytest.mark.parametrize("name", ["tensorrt", "torch-tensorrt", "onnxruntime-cuda"])
def test_without_a_gpu_it_is_a_sentence_not_a_crash(name: str, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(EngineError, match=r"NVIDIA driver|Torch-TensorRT is not installed"):
        engine_class(name).graph.version()
    with pytest.raises(EngineError, match=r"(?s)no engine can run this bundle here:\n  .*NVIDIA driver"):
        open_engine(bundle, name, point=None)
    assert not {"tensorrt", "torch_tensorrt"} & sys.modules.keys()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_on_a_gpu_it_reproduces_the_golden_set(
    precision: Any, tiny_bundle: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGECXR_CACHE", str(tmp_path / "cache"))
    bundle = Bundle.open(tiny_bundle)
    with device_engine("tensorrt").open(bundle, precision) as engine:
        films = bundle.golden().frames[:2]
        first = engine.run(films)
        engine.run(films)
        second = engine.run(films)
        if not engine.describe()["cuda_graph"].startswith("TensorRT"):  # that it cannot be captured
            assert engine.describe()["cuda_graph"] == "captured"
        for one, two in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.logits, two.logits)
        assert engine.describe()["kernel"] == "cuda"

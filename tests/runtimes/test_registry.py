"""Choosing an engine: the best that proves itself, and a reason for each that was passed over."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.runtimes.registry import available, engine_class, open_engine


def changed(build: Any, folder: Path, **changes: Any) -> Bundle:
    return Bundle.open(build.write(folder / "changed.cxr", **changes))


def without_points(build: Any, *artefacts: tuple[str, str]) -> Any:
    """The spec without the operating points of these (precision, engine family)."""
    kept = tuple(point for point in build.spec.operating_points if (point.precision, point.engine) not in artefacts)
    return build.spec.model_copy(update={"operating_points": kept})


def test_auto_takes_int8_on_openvino_first(tiny_bundle: Path) -> None:
    with open_engine(Bundle.open(tiny_bundle)) as engine:
        assert (engine.family, engine.precision, engine.passed_over) == ("openvino-cpu", "int8", [])


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-cpu"])
def test_an_engine_and_a_precision_can_be_asked_for(name: str, tiny_bundle: Path) -> None:
    with open_engine(Bundle.open(tiny_bundle), name, "fp16", threads=1) as engine:
        assert (engine.family, engine.precision) == ("onnxruntime-cpu", "fp16")


def test_a_precision_that_is_not_packed_is_passed_over(tiny_build: Any, tmp_path: Path) -> None:
    models = {name: model for name, model in tiny_build.models.items() if name != "int8"}
    with open_engine(changed(tiny_build, tmp_path, models=models)) as engine:
        assert engine.precision == "fp16"
        assert engine.passed_over == [("openvino int8", "not packed; the bundle holds fp32, fp16")]


def test_a_precision_without_thresholds_is_passed_over(tiny_build: Any, tmp_path: Path) -> None:
    spec = without_points(tiny_build, ("int8", "openvino-cpu"), ("fp16", "openvino-cpu"))
    with open_engine(changed(tiny_build, tmp_path, model=spec)) as engine:
        assert (engine.family, engine.precision) == ("openvino-cpu", "fp32")
        assert [name for name, _ in engine.passed_over] == ["openvino int8", "openvino fp16"]
        assert "no 'screening' threshold of covid, pneumonia for int8 on openvino-cpu" in engine.passed_over[0][1]


def test_an_engine_without_thresholds_is_passed_over(tiny_build: Any, tmp_path: Path) -> None:
    spec = without_points(tiny_build, *((precision, "openvino-cpu") for precision in tiny_build.models))
    with open_engine(changed(tiny_build, tmp_path, model=spec)) as engine:
        assert (engine.family, engine.precision) == ("onnxruntime-cpu", "fp16")
        assert len(engine.passed_over) == 3


def test_a_precision_that_fails_its_golden_set_is_passed_over_with_the_numbers(
    tiny_module: ModuleType, tiny_build: Any, tmp_path: Path
) -> None:
    weights = {**tiny_build.weights, "bias": tiny_build.weights["bias"] + np.array([0, 4, 0], np.float32)}
    scales = {"image": 1 / 127, "hidden": 0.05, "features": 0.05}
    models = {**tiny_build.models, "int8": tiny_module.int8_model(weights, scales)}
    with open_engine(changed(tiny_build, tmp_path, models=models)) as engine:
        assert (engine.family, engine.precision) == ("openvino-cpu", "fp16")
        assert engine.passed_over[0][0] == "openvino int8"
        assert "does not reproduce the golden set" in engine.passed_over[0][1]


def test_when_none_is_left_each_reason_is_named(tiny_build: Any, tmp_path: Path) -> None:
    bundle = changed(tiny_build, tmp_path, model=tiny_build.spec.model_copy(update={"operating_points": ()}))
    with pytest.raises(
        EngineError, match=r"(?s)no engine can run this bundle here:\n  openvino int8: no 'screening'.*"
    ):
        open_engine(bundle)
    with open_engine(bundle, point=None) as engine:
        assert engine.precision == "int8"


def test_a_point_that_was_never_derived_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="unknown operating point 'triage'; the bundle has screening"):
        open_engine(Bundle.open(tiny_bundle), "openvino", "int8", point="triage")


def test_unknown_names_list_the_choices(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="unknown engine 'tvm'; choose auto, openvino or onnxruntime"):
        open_engine(Bundle.open(tiny_bundle), "tvm")
    with pytest.raises(EngineError, match="unknown precision 'int4'; choose auto, int8, fp16, fp32"):
        open_engine(Bundle.open(tiny_bundle), precision="int4")


def test_available_names_every_engine_with_its_version() -> None:
    statuses = available()
    assert [status.name for status in statuses] == ["openvino", "onnxruntime"]
    assert all(status.available and status.detail[0].isdigit() for status in statuses)


def test_an_absent_library_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert available()[0].detail.endswith("pip install openvino")
    assert not available()[0].available
    with open_engine(Bundle.open(tiny_bundle)) as engine:
        assert engine.family == "onnxruntime-cpu"
        assert engine.passed_over[0][0] == "openvino int8"
        assert "OpenVINO cannot be imported" in engine.passed_over[0][1]


def test_the_families_are_what_thresholds_are_derived_for() -> None:
    assert [engine_class(name).family for name in ("openvino", "onnxruntime")] == ["openvino-cpu", "onnxruntime-cpu"]

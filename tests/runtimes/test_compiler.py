"""Taking over: a second engine is made while the first serves, proves itself, and serves; or is dropped with a reason.

The engines are real: OpenVINO serves first, ONNX Runtime is the one that is "compiled".
"""

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.runtimes.compile_apart import compile_apart
from edgecxr.runtimes.compiler import Attempt, Candidate, Succession, tensorrt_candidates
from edgecxr.runtimes.driver import probe
from edgecxr.runtimes.engine import Engine
from edgecxr.runtimes.ort import OrtCpu
from edgecxr.runtimes.ov import OpenVinoCpu
from edgecxr.runtimes.tensorrt_api import Progress


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture
def first(bundle: Bundle) -> Engine:
    return OpenVinoCpu.open(bundle, "fp32", threads=1)


def slowly(bundle: Bundle, going: threading.Event, precision: Any = "fp16") -> Candidate:
    """ONNX Runtime, made when `going` is set; it reports a step each 10 ms, as a builder does."""

    def compile_slowly(progress: Progress) -> None:
        step = 0
        while not going.wait(0.01):
            step += 1
            if not progress("tactics", step, 0):
                raise EngineError("compiling was cancelled")

    return ready(bundle, precision)._replace(compile=compile_slowly)


def ready(bundle: Bundle, precision: Any = "fp16") -> Candidate:
    return Candidate(OrtCpu, precision, lambda: OrtCpu(bundle, precision, threads=1))


def serving(succession: Succession) -> tuple[str, str]:
    with succession.engine() as engine:
        return engine.family, engine.precision


def test_one_serves_while_the_other_is_made_and_then_that_one_does(bundle: Bundle, first: Engine) -> None:
    going, told, films = threading.Event(), list[Attempt](), bundle.golden().frames[:1]
    with Succession(bundle, first, [slowly(bundle, going)], tell=told.append) as succession:
        with succession.engine() as engine:
            assert engine.family == "openvino-cpu"
            before = engine.run(films)[0]
        going.set()
        assert succession.wait(60)
        with succession.engine() as engine:
            assert (engine.family, engine.precision) == ("onnxruntime-cpu", "fp16")
            np.testing.assert_allclose(engine.run(films)[0].logits, before.logits, atol=0.05)
        assert [item.state for item in succession.attempts()] == ["serving"]
    states = [item.state for item in told]
    assert (states[0], states[-2:]) == ("compiling", ["proving", "serving"])


def test_who_still_uses_the_engine_before_is_not_disturbed(bundle: Bundle, first: Engine) -> None:
    going, films = threading.Event(), bundle.golden().frames[:1]
    with Succession(bundle, first, [slowly(bundle, going)]) as succession, succession.engine() as engine:
        going.set()
        assert succession.wait(60)
        assert serving(succession) == ("onnxruntime-cpu", "fp16")
        assert engine.family == "openvino-cpu"
        assert np.isfinite(engine.run(films)[0].logits).all()


def test_threads_that_screen_all_the_while_see_no_fault(bundle: Bundle, first: Engine) -> None:
    going, ended, films = threading.Event(), threading.Event(), bundle.golden().frames[:1]
    wanted, faults, seen = bundle.golden().logits["fp32"][0], list[BaseException](), set[str]()

    def screen() -> None:
        try:
            while not ended.is_set():
                with succession.engine() as engine:
                    np.testing.assert_allclose(engine.run(films)[0].logits, wanted, atol=0.05)
                    seen.add(engine.family)
        except BaseException as error:
            faults.append(error)

    with Succession(bundle, first, [slowly(bundle, going)]) as succession:
        threads = [threading.Thread(target=screen) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not seen:
            threading.Event().wait(0.01)
        going.set()
        assert succession.wait(60)
        while "onnxruntime-cpu" not in seen and not faults:
            threading.Event().wait(0.01)
        ended.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert seen == {"openvino-cpu", "onnxruntime-cpu"}


def changed(build: Any, folder: Path, **changes: Any) -> Bundle:
    return Bundle.open(build.write(folder / "changed.cxr", **changes))


def test_one_that_does_not_reproduce_the_golden_set_is_dropped(
    tiny_module: ModuleType, tiny_build: Any, tmp_path: Path, bundle: Bundle, first: Engine
) -> None:
    weights = {**tiny_build.weights, "bias": tiny_build.weights["bias"] + np.array([0, 4, 0], np.float32)}
    models = {**tiny_build.models, "fp16": tiny_module.float_model(weights, np.float16)}
    wrong = changed(tiny_build, tmp_path, models=models)
    with Succession(bundle, first, [ready(wrong), ready(bundle, "fp32")]) as succession:
        assert succession.wait(60)
        dropped, second = succession.attempts()
        assert (dropped.state, second.state) == ("dropped", "serving")
        assert "onnxruntime-cpu fp16 does not reproduce the golden set" in dropped.reason
        with succession.engine() as engine:
            assert engine.precision == "fp32"
            assert engine.passed_over == [("onnxruntime fp16", dropped.reason)]


def test_one_without_thresholds_is_dropped(tiny_build: Any, tmp_path: Path) -> None:
    points = tuple(point for point in tiny_build.spec.operating_points if point.engine == "openvino-cpu")
    bundle = changed(tiny_build, tmp_path, model=tiny_build.spec.model_copy(update={"operating_points": points}))
    with Succession(bundle, OpenVinoCpu.open(bundle, "fp32"), [ready(bundle)]) as succession:
        assert succession.wait(60)
        assert (
            "no 'screening' threshold of covid, pneumonia for fp16 on onnxruntime-cpu"
            in succession.attempts()[0].reason
        )
        assert serving(succession) == ("openvino-cpu", "fp32")


@pytest.mark.parametrize("step", ["compile", "open"])
@pytest.mark.parametrize("fault", [EngineError("the builder refused"), RuntimeError("a library broke")])
def test_one_that_cannot_be_made_is_dropped_with_the_reason(
    fault: Exception, step: str, bundle: Bundle, first: Engine
) -> None:
    def fail(*_: object) -> Engine:
        raise fault

    candidate = ready(bundle, "int8")._replace(**{step: fail})
    with Succession(bundle, first, [candidate]) as succession:
        assert succession.wait(60)
        assert succession.attempts()[0].state == "dropped"
        assert str(fault) in succession.attempts()[0].reason
        assert serving(succession) == ("openvino-cpu", "fp32")


def test_one_that_fails_later_is_dropped_and_the_first_serves_again(bundle: Bundle, first: Engine) -> None:
    with Succession(bundle, first, [ready(bundle)]) as succession:
        assert succession.wait(60)

        def lose_the_device() -> None:
            with succession.engine() as engine:
                engine.close()
                engine.run(bundle.golden().frames[:1])

        with pytest.raises(EngineError, match="onnxruntime-cpu: this engine is closed"):
            lose_the_device()
        assert serving(succession) == ("openvino-cpu", "fp32")
        assert "this engine is closed" in succession.attempts()[0].reason


def test_closing_stops_what_is_being_made(bundle: Bundle, first: Engine) -> None:
    succession = Succession(bundle, first, [slowly(bundle, threading.Event()), ready(bundle)])
    succession.close()
    succession.close()
    assert [item.state for item in succession.attempts()] in (["dropped", "waiting"], ["waiting", "waiting"])
    with pytest.raises(EngineError, match="this engine is closed"), succession.engine():
        pass
    with pytest.raises(EngineError, match="this engine is closed"):
        first.run(bundle.golden().frames[:1])


@pytest.mark.skipif(not probe().reason, reason="there is a GPU here")
def test_without_a_gpu_nothing_is_compiled(bundle: Bundle) -> None:
    assert tensorrt_candidates(bundle) == []


@pytest.mark.tensorrt
def test_a_process_of_its_own_compiles(bundle: Bundle, tmp_path: Path) -> None:
    steps = list[tuple[str, int, int]]()
    made = compile_apart(
        bundle.model("fp16"), capability="8.9", folder=tmp_path, progress=lambda *step: not steps.append(step)
    )
    assert made.path.parent == tmp_path
    assert made.path.stat().st_size > made.size > 1000
    assert steps


@pytest.mark.tensorrt
def test_what_is_kept_is_taken_and_not_built_again(bundle: Bundle, tmp_path: Path) -> None:
    made = compile_apart(bundle.model("fp16"), capability="8.9", folder=tmp_path)
    before, steps = made.path.stat().st_ino, list[str]()
    kept = compile_apart(
        bundle.model("fp16"),
        capability="8.9",
        folder=tmp_path,
        kept=True,
        progress=lambda phase, *_: not steps.append(phase),
    )
    assert (kept.path, kept.size, kept.path.stat().st_ino) == (made.path, made.size, before)
    assert set(steps) <= {""}


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("model", "capability", "progress", "match"),
    [
        (b"not a graph", "8.9", None, "refuses the model"),
        (None, "5.0", None, "does not build for compute capability 5.0"),
        (None, "8.9", lambda *_: False, "compiling was cancelled"),
    ],
)
def test_what_stops_it_is_a_sentence(
    model: bytes | None,
    capability: str,
    progress: Callable[..., bool] | None,
    match: str,
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    with pytest.raises(EngineError, match=match):
        compile_apart(model or bundle.model("fp32"), capability=capability, folder=tmp_path, progress=progress)
    assert list(tmp_path.iterdir()) == []

"""One engine follows another under a Screener: real engines, which take their time, disagree, or fail.

OpenVINO serves first; ONNX Runtime is what is "compiled", also under the name of a GPU's engine, which has no
thresholds of its own.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.phantom import chest, write_dicom
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes import lending
from edgecxr.runtimes.compiler import Attempt, Candidate, Successors
from edgecxr.runtimes.cuda import DeviceFault
from edgecxr.runtimes.engine import Engine, Output
from edgecxr.runtimes.ort import OrtCpu
from edgecxr.runtimes.registry import DEVICE_ENGINES
from edgecxr.runtimes.screener import Screener
from edgecxr.runtimes.tensorrt_api import Progress

WORDS = "NVIDIA H200: cuGraphLaunch failed: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS)"


def is_golden(film: Radiograph) -> bool:
    """The tiny bundle's golden films are phantoms of the numbers 0 and 1."""
    return number_of(film) < 2


def number_of(film: Radiograph) -> int:
    return int(film.source.split()[-1])


class Foreign(OrtCpu):
    """An engine whose thresholds no bundle holds."""

    family = "tensorrt-gpu"
    borrows = True


class Skewed(Foreign):
    """It agrees on the golden films, and says something else of every other."""

    def _run(self, frame: Radiograph) -> Output:
        output = super()._run(frame)
        return output if is_golden(frame) else replace(output, logits=output.logits[::-1].copy())


class Turning(Foreign):
    """From phantom 3 on it finds nothing but one feature, which the refusal gate does not let through."""

    def _run(self, frame: Radiograph) -> Output:
        output = super()._run(frame)
        alone = np.zeros_like(output.embedding)
        alone[0] = 100
        return replace(output, embedding=alone) if number_of(frame) >= 3 else output


class Blinding(Foreign):
    """It infers well, but what screens, its own kernel, leaves another picture than it should once it is `worn`."""

    worn = False

    def _run(self, frame: Radiograph) -> Output:
        output = super()._run(frame)
        return replace(output, logits=output.logits[::-1].copy()) if self.worn else output


class Vanishing(Foreign):
    """Its device goes away when it screens a film that is not golden."""

    def _run(self, frame: Radiograph) -> Output:
        if is_golden(frame):
            return super()._run(frame)
        self.close()
        raise DeviceFault(WORDS)


def follows(*choices: tuple[type[Engine], Any], going: threading.Event | None = None) -> Successors:
    """Candidates of these families and precisions; the first is compiled when `going` is set."""

    def wait(progress: Progress) -> None:
        while going is not None and not going.wait(0.01):
            if not progress("tactics", 1, 2):
                raise EngineError("compiling was cancelled")

    def candidate(family: type[Engine], precision: Any, bundle: Bundle) -> Candidate:
        return Candidate(family, precision, lambda: family(bundle, precision, threads=1), wait)

    return lambda bundle: [candidate(*choice, bundle) for choice in choices]


def wait(screener: Screener) -> list[Attempt]:
    assert screener.wait(120)
    return screener.successors()


def points(build: Any, *artefact: str) -> dict[str, float]:
    return {p.finding: p.threshold for p in build.spec.operating_points if (p.precision, p.engine) == artefact}


def test_another_engine_follows_between_two_films_of_a_folder(
    tiny_bundle: Path, tiny_build: Any, tmp_path: Path
) -> None:
    for number in range(8):
        write_dicom(chest(number, "covid", size=128), tmp_path / f"{number}.dcm")
    going, told = threading.Event(), list[Attempt]()
    with Screener(tiny_bundle, threads=1, successors=follows((OrtCpu, "fp16"), going=going), tell=told.append) as both:
        results = both.screen_folder(tmp_path, workers=1)
        screenings = [next(results), next(results)]
        while len(told) < 2:
            threading.Event().wait(0.01)
        going.set()
        assert [item.state for item in wait(both)] == ["serving"]
        screenings += list(results)
        assert (both.engine.family, both.engine.precision) == ("onnxruntime-cpu", "fp16")
        assert [engine.family for engine in both.engines()] == ["onnxruntime-cpu", "openvino-cpu"]
    made_by = [(screening.engine, screening.precision) for screening in screenings]
    assert made_by == [("openvino-cpu", "int8")] * 2 + [("onnxruntime-cpu", "fp16")] * 6
    for screening in screenings:
        wanted = points(tiny_build, screening.precision, screening.engine)
        assert {item.name: item.threshold for item in screening.findings} == wanted
    assert str(told[1]) == "onnxruntime fp16: compiling, tactics 1 of 2"
    assert str(told[-1]) == "onnxruntime fp16: serving"


def test_one_that_does_not_reproduce_the_golden_set_never_serves(
    tiny_module: ModuleType, tiny_build: Any, tmp_path: Path
) -> None:
    weights = {**tiny_build.weights, "bias": tiny_build.weights["bias"] + np.array([0, 4, 0], np.float32)}
    models = {**tiny_build.models, "fp16": tiny_module.float_model(weights, np.float16)}
    bundle = tiny_build.write(tmp_path / "tampered.cxr", models=models)
    with Screener(bundle, threads=1, successors=follows((OrtCpu, "fp16"))) as screener:
        (dropped,) = wait(screener)
        assert dropped.state == "dropped"
        assert "onnxruntime-cpu fp16 does not reproduce the golden set" in dropped.reason
        assert screener.screen(tiny_build.films[0]).engine == "openvino-cpu"


def test_a_device_that_goes_away_gives_no_result_and_the_film_is_screened_by_the_cpu(
    tiny_bundle: Path, tiny_build: Any
) -> None:
    film = tiny_build.films[7]
    with Screener(tiny_bundle, precision="fp16", threads=1, successors=follows((Vanishing, "fp16"))) as screener:
        assert wait(screener)[0].state == "serving"
        assert screener.engine.family == "tensorrt-gpu"
        with Screener(tiny_bundle, precision="fp16", threads=1, successors=follows()) as alone:
            assert screener.screen(film).findings == alone.screen(film).findings
        assert screener.screen(film).engine == "openvino-cpu"
        (dropped,) = screener.successors()
        assert (dropped.state, dropped.reason) == ("dropped", WORDS)
        screener.prove()


def test_an_engine_that_was_asked_for_by_name_is_followed_by_none(tiny_bundle: Path, tiny_build: Any) -> None:
    with Screener(tiny_bundle, "openvino", threads=1, successors=follows((OrtCpu, "fp16"))) as screener:
        assert wait(screener) == []
    with Screener(tiny_bundle, "auto", "int8", threads=1, successors=follows((OrtCpu, "fp16"))) as screener:
        assert wait(screener) == []


def test_closing_does_not_wait_for_what_is_being_compiled(tiny_bundle: Path) -> None:
    screener = Screener(tiny_bundle, threads=1, successors=follows((OrtCpu, "fp16"), going=threading.Event()))
    screener.close()
    assert [item.state for item in screener.successors()] in (["dropped"], ["waiting"])


def decided(screener: Screener, films: Sequence[Radiograph]) -> list[tuple[str, tuple[str, ...]]]:
    return [(result.engine, tuple(item.decision for item in result.findings)) for result in map(screener.screen, films)]


def test_an_engine_without_thresholds_decides_as_the_one_whose_thresholds_it_borrows(
    tiny_bundle: Path, tiny_build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "WATCHED", 2)
    films = tiny_build.films[6:18]
    with (
        Screener(tiny_bundle, precision="fp16", threads=1, successors=follows()) as alone,
        Screener(tiny_bundle, precision="fp16", threads=1, successors=follows((Foreign, "fp16"))) as screener,
    ):
        assert wait(screener)[0].state == "serving"
        assert [item.family for item in screener.engines()] == ["tensorrt-gpu", "openvino-cpu", "openvino-cpu"]
        results = [screener.screen(film) for film in films]
        reference = [alone.screen(film) for film in films]
    thresholds = points(tiny_build, "fp16", "openvino-cpu")
    assert [result.engine for result in results[:2]] == ["openvino-cpu"] * 2  # watched
    assert [result.engine for result in results[2::2]] == ["openvino-cpu"] * 5
    assert "tensorrt-gpu" in {result.engine for result in results[3::2]}
    for result, wanted in zip(results, reference, strict=True):
        assert [item.decision for item in result.findings] == [item.decision for item in wanted.findings]
        assert {item.name: item.threshold for item in result.findings} == thresholds
        if result.engine == "tensorrt-gpu":
            assert all(abs(item.probability - item.threshold) > lending.NEAR for item in result.findings)
            assert result.notes == ("thresholds are those of openvino-cpu; no score is within 0.02 of one",)


def test_an_engine_that_disagrees_on_a_film_is_not_used_any_more(tiny_bundle: Path, tiny_build: Any) -> None:
    film = tiny_build.films[7]
    with Screener(tiny_bundle, precision="fp16", threads=1, successors=follows((Skewed, "fp16"))) as screener:
        assert wait(screener)[0].state == "serving"
        result = screener.screen(film)
        assert (result.engine, result.notes) == ("openvino-cpu", ())
        (dropped,) = screener.successors()
        assert dropped.state == "dropped"
        assert "on tensorrt-gpu and" in dropped.reason
        assert "tensorrt-gpu borrows the thresholds of openvino-cpu; wanted within 0.01" in dropped.reason


def test_one_that_was_asked_for_by_name_and_disagrees_decides_no_film_any_more(
    tiny_bundle: Path, tiny_build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEVICE_ENGINES, "tensorrt", (Skewed.__module__, "Skewed", ""))
    with Screener(tiny_bundle, "tensorrt", "fp16", threads=1) as screener:
        assert screener.engine.family == "tensorrt-gpu"
        told = []
        for number in range(lending.WATCHED + 2):
            with pytest.raises(EngineError, match=r"not used any more|this engine is closed") as caught:
                screener.screen(tiny_build.films[6 + number % 8])
            told.append(str(caught.value))
    assert "wanted within 0.01: tensorrt-gpu is not used any more" in told[0]
    assert set(told[1:]) == {"tensorrt-gpu: this engine is closed; open another"}


def test_one_that_refuses_what_the_reference_does_not_is_not_used_any_more(
    tiny_bundle: Path, tiny_build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a film that is not watched: every refusal is the reference's."""
    monkeypatch.setattr(lending, "WATCHED", 2)
    with Screener(tiny_bundle, precision="fp16", threads=1, successors=follows((Turning, "fp16"))) as screener:
        assert wait(screener)[0].state == "serving"
        results = [screener.screen(film) for film in tiny_build.films[6:9]]
        assert [item.state for item in screener.successors()] == ["serving"]
        results.append(screener.screen(tiny_build.films[9]))
        assert [result.status for result in results] == ["ok"] * 4
        assert results[-1].engine == "openvino-cpu"
        (dropped,) = screener.successors()
        assert "embeddings of one film on tensorrt-gpu and on openvino-cpu agree " in dropped.reason


def test_what_both_refuse_is_refused_by_the_reference_and_speaks_against_neither(
    tiny_bundle: Path, tiny_build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "WATCHED", 1000)
    noise = replace(
        tiny_build.films[7], pixels=np.random.default_rng(3).integers(0, 4096, (128, 128)).astype(np.uint16)
    )
    flat = replace(tiny_build.films[7], pixels=np.zeros((128, 128), np.uint16), window=None)
    with Screener(tiny_bundle, precision="fp16", threads=1, successors=follows((Foreign, "fp16"))) as screener:
        assert wait(screener)[0].state == "serving"
        for film in (noise, flat):
            result = screener.screen(film)
            assert (result.status, result.engine) == ("refused", "openvino-cpu")
        assert [item.state for item in screener.successors()] == ["serving"]


def test_the_gate_asks_where_it_nearly_refuses() -> None:
    watch = lending.Watch("tensorrt-gpu", "openvino-cpu")
    assert all(watch.asks((), 0.0) for _ in range(lending.WATCHED))
    asked = [watch.asks((), distance) for distance in (0.0, 0.5, 0.89, 0.91, 1.0, None, float("nan"))]
    assert asked == [True, False, False, True, True, True, True]  # the first is the 32nd film, which is watched


def test_what_screens_is_proven_again_and_not_the_network_alone(tiny_bundle: Path) -> None:
    with Screener(tiny_bundle, precision="fp16", threads=1, successors=follows((Blinding, "fp16"))) as screener:
        assert wait(screener)[0].state == "serving"
        screener.prove()
        assert [item.state for item in screener.successors()] == ["serving"]
        screener.engine.worn = True  # type: ignore[attr-defined]
        screener.prove()
        (dropped,) = screener.successors()
        assert dropped.state == "dropped"
        assert "tensorrt-gpu (to borrow thresholds) fp16 does not reproduce the golden set" in dropped.reason


def test_what_may_not_borrow_is_dropped_before_it_is_compiled(tiny_bundle: Path) -> None:
    with Screener(tiny_bundle, threads=1, successors=follows((Foreign, "int8"), going=threading.Event())) as screener:
        (dropped,) = wait(screener)
        assert dropped.state == "dropped"
        assert "no 'screening' threshold of covid, pneumonia for int8 on tensorrt-gpu" in dropped.reason
        assert "none are borrowed; take fp16 or fp32" in dropped.reason

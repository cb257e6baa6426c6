"""bench/ is no package: its scripts import harness from beside them, and so does this test."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "harness.py"
    spec = importlib.util.spec_from_file_location("harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ratio_is_taken_round_by_round(harness):
    assert harness.ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        harness.ratio([1.0, 2.0], [1.0])


def test_contestants_take_turns_at_going_first(harness):
    calls: list[str] = []
    times = harness.sampled({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, warm_up=1)
    assert "".join(calls) == "baabba"
    assert [len(samples) for samples in times["a"]] == [2, 2]
    assert [len(samples) for samples in harness.interleaved({"a": int}, rounds=4).values()] == [4]


def test_peak_memory_of_a_call(harness):
    grown = harness.peak_megabytes(lambda: bytearray(b"x" * 50_000_000).count(b"y"))
    assert grown is None or grown >= 45


def test_result_holds_question_answer_and_machine(harness, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    content = json.loads(harness.write_result("one", {"rounds": 3}, {"p50": 1.5}).read_text())
    assert content["asked"] == {"rounds": 3}
    assert content["measured"] == {"p50": 1.5}
    assert content["machine"]["cores"] >= 1

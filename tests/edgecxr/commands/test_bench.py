"""`edgecxr bench`: every engine and precision timed for real; no figure is checked, only that each is there."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecxr.errors import EngineError
from edgecxr.phantom import chest, other, write_dicom
from edgecxr.runtimes.cold_start import cold_start

Run = Callable[..., Any]
STAGES = {"whole", "read", "preprocess", "infer"}


@pytest.mark.train
def test_every_engine_and_precision_is_timed(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    film = write_dicom(chest(3, size=256), tmp_path / "film.dcm")
    done = run("bench", tiny_bundle, "--film", film, "--rounds", "2", "--starts", "1", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    names = {
        f"{engine} {precision}" for engine in ("openvino", "onnxruntime") for precision in ("fp32", "fp16", "int8")
    }
    assert {row["name"] for row in told["engines"]} == names
    assert not told["passed_over"]
    for row in told["engines"]:
        assert set(row["milliseconds"]) == STAGES
        for times in row["milliseconds"].values():
            assert times["count"] == 10
            assert 0 < times["best"] <= times["p50"] <= times["p90"] <= times["p99"]
        parts = sum(row["milliseconds"][stage]["best"] for stage in STAGES - {"whole"})
        assert row["milliseconds"]["whole"]["p99"] >= parts
        assert row["films_a_second"] > 0
        fresh = row["fresh_process"]
        assert 0 < fresh["imported_s"] < fresh["opened_s"] < fresh["decided_s"]
    assert told["machine"]["cores"] >= 1
    assert told["asked"]["film"] == str(film)


@pytest.mark.train
def test_the_table_names_what_was_asked_for(run: Run, tiny_bundle: Path) -> None:
    chosen = ("--engine", "onnxruntime", "--precision", "fp32", "--rounds", "1", "--starts", "0")
    done = run("bench", tiny_bundle, *chosen)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("openvino", "onnxruntime"))]
    assert [row.split()[:2] for row in rows] == [["onnxruntime", "fp32"]]
    assert rows[0].split()[-2:] == ["–", "–"]  # no fresh process was asked for
    assert all(len(line) <= 120 for line in done.stdout.splitlines())


@pytest.mark.train
def test_a_refused_film_is_not_timed(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    film = write_dicom(other(1, "checkerboard"), tmp_path / "board.dcm", body_part="HAND")
    done = run("bench", tiny_bundle, "--film", film, "--rounds", "1", "--starts", "0")
    assert done.returncode == 2
    assert "board.dcm is refused (" in done.stderr
    assert "give a film that the bundle decides on" in done.stderr


@pytest.mark.train
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "abacus"], "unknown engine 'abacus'; choose auto, openvino or onnxruntime"),
        (["--precision", "int4"], "unknown precision 'int4'; choose auto, int8, fp16, fp32"),
        (["--film", "nowhere.dcm"], "there is no nowhere.dcm"),
    ],
)
def test_a_wrong_choice_is_a_sentence(run: Run, tiny_bundle: Path, arguments: list[str], words: str) -> None:
    done = run("bench", tiny_bundle, *arguments)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.train
def test_a_fresh_process_takes_no_module_of_the_folder_and_must_decide(
    run: Run, tiny_build: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    if sys.version_info >= (3, 11):  # before, no Python leaves the folder out
        (tmp_path / "random.py").write_text("raise SystemExit('shadowed')\n")
    chosen = ("--engine", "onnxruntime", "--precision", "fp32", "--rounds", "1", "--starts", "1", "--json")
    done = run("bench", tiny_bundle, *chosen)
    assert done.returncode == 0, done.stderr
    assert "failed" not in json.loads(done.stdout)["engines"][0]["fresh_process"]
    gates = {name: replace(gate, spread=gate.spread * 1e-3) for name, gate in tiny_build.gates.items()}
    with pytest.raises(EngineError, match=r"the golden film is refused .*, so there is no first decision"):
        cold_start(tiny_build.write(tmp_path / "strict.cxr", gates=gates), "onnxruntime", "fp32")


@pytest.mark.train
def test_what_cannot_decide_here_is_passed_over(run: Run, tiny_bundle: Path) -> None:
    done = run("bench", tiny_bundle, "--engine", "torch-tensorrt", "--precision", "fp32", "--starts", "0", "--json")
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert told["engines"] == []
    assert [item["name"] for item in told["passed_over"]] == ["torch-tensorrt fp32"]
    assert told["passed_over"][0]["reason"]

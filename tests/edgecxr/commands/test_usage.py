"""What each verb says of itself, of a bundle, and of what it is given wrongly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.phantom import chest, write_dicom

Run = Callable[..., Any]
VERBS = ("build", "inspect", "verify", "screen", "evaluate", "explain", "doctor", "demo")


def test_help_names_every_verb_and_exit_code(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)
    assert "0 done, 1 some inputs refused, 2 misuse, 3 the machine cannot" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(run: Run, verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"edgecxr {verb}" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["screen", "empty"], 2, "no file in empty; give films or folders of films"),
        (["screen"], 2, "Missing argument"),
        (["screen", "a.dcm", "typo"], 2, "there is no typo; give films"),
        (["screen", ".", "--engine", "tpu"], 2, "unknown engine 'tpu'; choose auto, openvino or onnxruntime"),
        (["screen", ".", "--precision", "int4"], 2, "unknown precision 'int4'; choose auto, int8, fp16, fp32"),
        (["screen", ".", "--point", "late"], 2, "unknown operating point 'late'; the bundle has screening"),
        (["screen", ".", "--jsonl", "absent/a.jsonl"], 2, "cannot write absent/a.jsonl: No such file"),
        (["screen", ".", "--html", "empty"], 2, "cannot write empty: Is a directory"),
        (["screen", ".", "--heatmaps", "a.dcm"], 2, "cannot write a.dcm: File exists"),
        (["evaluate", "--data", ".", "--engine", "tpu"], 2, "unknown engine 'tpu'"),
        (["inspect", "absent.cxr"], 2, "absent.cxr: cannot be read"),
        (["verify", "text.cxr"], 2, "text.cxr: not a whole bundle"),
        (["evaluate", "--data", "."], 2, "labels.csv is not there"),
        (["evaluate", "--data", ".", "--folds", "x"], 2, "is not a list of folds"),
        (["build", "text.cxr"], 2, "text.cxr:1:"),
        (["nothing"], 2, "No such command"),
    ],
)
def test_misuse_is_a_sentence_and_a_code(
    run: Run, tmp_path: Path, tiny_bundle: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.cxr").write_text("- no bundle\n")
    write_dicom(chest(1, "normal", 128), tmp_path / "a.dcm")
    extra = ["--bundle", str(tiny_bundle)] if arguments[0] == "screen" else []
    extra = [str(tiny_bundle)] if arguments[0] == "evaluate" else extra
    done = run(*arguments, *extra)
    assert sentence in " ".join((done.stderr + done.stdout).split())
    assert done.returncode == code
    assert "a.dcm  " not in done.stdout  # nothing was screened


def test_verify_wants_every_packed_precision(run: Run, tiny_build: Any, tmp_path: Path) -> None:
    tiny_build.write(tmp_path / "broken.cxr", models={**tiny_build.models, "int8": b"garbage"})
    done = run("verify", "broken.cxr")
    assert done.returncode == 3
    assert "openvino fp16: reproduces the golden set" in done.stdout
    assert "openvino int8: no engine can run this bundle here" in done.stdout
    screened = run("screen", tmp_path, "--bundle", "broken.cxr")
    assert "openvino int8 is passed over: " in screened.stderr


def test_inspect_and_verify(run: Run, tiny_bundle: Path) -> None:
    told = json.loads(run("inspect", tiny_bundle, "--json").stdout)
    assert set(told) == {"digest", "keys", "manifest", "evaluation"}
    assert told["digest"] in run("inspect", tiny_bundle).stdout
    done = run("verify", tiny_bundle, "--json")
    assert done.returncode == 0
    assert all(row["passed"] for row in json.loads(done.stdout)["engines"])

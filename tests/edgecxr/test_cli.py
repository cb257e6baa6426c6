"""The command line as a user meets it: exit codes, streams, and the lines that machines read."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.commands.screen import ending
from edgecxr.dataset import load_dataset
from edgecxr.errors import RefusalReason
from edgecxr.phantom import FINDINGS, chest, write_dicom
from edgecxr.runtimes.screening import Screening

Run = Callable[..., subprocess.CompletedProcess[str]]
VERBS = ("build", "inspect", "verify", "screen", "evaluate", "explain", "doctor", "demo")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run("screen", …)``: the command in an empty folder, its streams as text."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgecxr", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    return call


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good films and one that is cut short."""
    folder = tmp_path_factory.mktemp("films")
    write_dicom(chest(1, "normal", 256), folder / "a.dcm")
    write_dicom(chest(2, "covid", 256), folder / "b.dcm", monochrome1=True)
    data = (folder / "a.dcm").read_bytes()
    (folder / "c.dcm").write_bytes(data[: len(data) // 2])
    return folder


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


def test_help_loads_no_heavy_library() -> None:
    heavy = ("torch", "onnx", "openvino", "scipy", "pydicom", "matplotlib")
    code = f"import sys, edgecxr.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_screen_writes_one_object_per_film_and_ends_with_1(run: Run, films: Path, tiny_bundle: Path) -> None:
    done = run("screen", films, "--bundle", tiny_bundle, "--jsonl", "-")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [Path(row["file"]).name for row in rows] == ["a.dcm", "b.dcm", "c.dcm"]
    assert [row["status"] for row in rows] == ["ok", "ok", "refused"]
    keys = {
        "file",
        "status",
        "reason",
        "detail",
        "findings",
        "engine",
        "precision",
        "kernel",
        "bundle",
        "milliseconds",
        "notes",
    }
    assert all(set(row) == keys for row in rows)
    assert set(rows[0]["findings"][0]) == {"name", "probability", "threshold", "decision"}
    assert set(rows[0]["milliseconds"]) == {"read", "preprocess", "infer"}
    assert rows[2]["reason"] == "truncated"
    assert rows[2]["findings"] == []


def test_screen_of_good_films_ends_with_0_and_reads_for_a_person(run: Run, films: Path, tiny_bundle: Path) -> None:
    done = run("screen", films / "a.dcm", films / "b.dcm", "--bundle", tiny_bundle)
    assert done.returncode == 0
    assert "a.dcm" in done.stdout
    assert "2 films" in done.stderr
    assert "Research use only" in done.stderr


def test_screen_json_is_one_document(run: Run, films: Path, tiny_bundle: Path) -> None:
    done = run("screen", films, "--bundle", tiny_bundle, "--json", "--precision", "fp32", "--engine", "onnxruntime")
    told = json.loads(done.stdout)
    assert (told["films"], told["decided"], told["refused"]) == (3, 2, 1)
    assert {(row["engine"], row["precision"]) for row in told["results"]} == {("onnxruntime-cpu", "fp32")}


def test_screen_writes_a_report_and_pictures(run: Run, films: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = run("screen", films, "--bundle", tiny_bundle, "--html", "report.html", "--heatmaps", "maps")
    assert done.returncode == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a.dcm" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    names = [path.name for path in sorted((tmp_path / "maps").iterdir())]
    assert names[0].startswith("00001-a.")
    assert not any("c." in name.partition("-")[2] for name in names)


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
    assert "Traceback" not in done.stderr
    assert "a.dcm  " not in done.stdout  # nothing was screened


def test_screen_enters_no_linked_folder(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_dicom(chest(1, "normal", 128), tmp_path / "films" / "a.dcm")
    (tmp_path / "films" / "back").symlink_to(tmp_path / "films", target_is_directory=True)
    rows = run("screen", "films", "--bundle", tiny_bundle, "--jsonl", "-").stdout.splitlines()
    assert [Path(json.loads(row)["file"]).name for row in rows] == ["a.dcm", "back"]


def test_a_fault_of_ours_outweighs_refused_films(capsys: pytest.CaptureFixture[str]) -> None:
    cut = Screening("a", "refused", "e", "int8", "numpy", "0", RefusalReason.TRUNCATED, "cut short")
    fault = Screening("b", "refused", "e", "int8", "numpy", "0", RefusalReason.UNREADABLE, "internal error: KeyError")
    assert (ending([]), ending([cut]), ending([cut, fault])) == (0, 1, 70)
    assert "a fault of ours on 1 of 2 films" in capsys.readouterr().err


def test_evaluate_takes_the_test_folds_of_the_data_it_was_built_on(run: Run, tiny_build: Any, tmp_path: Path) -> None:
    rows = ["file,patient,fold,label"]
    for number in range(18):
        finding = FINDINGS[number % 3]
        write_dicom(chest(number, finding, 128), tmp_path / f"{number}.dcm")
        rows.append(f"{number}.dcm,p{number},{number // 6},{finding}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    origin = {
        "data_digest": load_dataset(tmp_path).digest,
        "recipe_text": "data: {folds: {train: [0], validate: [1], test: [2]}}",
    }
    own = tiny_build.write(tmp_path / "own.cxr", provenance=origin)
    done = run("evaluate", own, "--data", ".", "--json")
    told = json.loads(done.stdout)
    assert (told["folds"], told["films"], told["warnings"]) == ([2], 6, [])
    assert "evaluating on fold 2, which its recipe kept for testing" in done.stderr
    done = run("evaluate", own, "--data", ".", "--json", "--folds", "0,2")
    assert json.loads(done.stdout)["folds"] == [0, 2]
    assert "warning: fold 0 served to train this bundle" in done.stderr
    other = tiny_build.write(tmp_path / "other.cxr")
    done = run("evaluate", other, "--data", ".", "--json")
    assert json.loads(done.stdout)["folds"] == [0, 1, 2]
    assert "it does not name its folds. On films that taught it" in done.stderr
    (tmp_path / "labels.csv").write_text("\n".join([*rows[:-1], rows[-1].replace("p17", "p18")]) + "\n")
    done = run("evaluate", own, "--data", ".", "--json", "--folds", "0")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert warning.startswith("cannot tell whether these films taught the bundle: ")
    assert "were: train 0; validate 1; test 2. On films that taught it, figures are too good" in warning
    assert f"warning: {warning}" in done.stderr


def test_inspect_and_verify(run: Run, tiny_bundle: Path) -> None:
    told = json.loads(run("inspect", tiny_bundle, "--json").stdout)
    assert set(told) == {"digest", "keys", "manifest", "evaluation"}
    assert told["digest"] in run("inspect", tiny_bundle).stdout
    done = run("verify", tiny_bundle, "--json")
    assert done.returncode == 0
    assert all(row["passed"] for row in json.loads(done.stdout)["engines"])


def test_doctor_says_what_is_there(run: Run) -> None:
    done = run("doctor", "--json")
    topics = {row["topic"]: row for row in json.loads(done.stdout)}
    assert {"python", "kernel in use", "engine openvino", "engine onnxruntime", "default bundle", "NVIDIA GPU"} <= set(
        topics
    )
    assert all(row["state"] in ("ok", "absent", "fault") and row["detail"] for row in topics.values())
    assert "kernel in use" in run("doctor").stdout


def test_a_reader_that_leaves_is_no_error(films: Path, tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "edgecxr", "screen", str(films), "--bundle", str(tiny_bundle), "--jsonl", "-"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert "Traceback" not in said


def test_ctrl_c_ends_with_130_and_no_trace(tiny_bundle: Path, tmp_path: Path) -> None:
    film = write_dicom(chest(1, "normal", 256), tmp_path / "a.dcm")
    for number in range(400):
        (tmp_path / f"b{number:03d}.dcm").hardlink_to(film)
    command = [sys.executable, "-m", "edgecxr", "screen", str(tmp_path), "--bundle", str(tiny_bundle), "--jsonl", "-"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith('{"file"')
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said

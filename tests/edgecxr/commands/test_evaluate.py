import json
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle
from edgecxr.bundle.recalibrated import write_recalibrated
from edgecxr.commands.evaluated import open_evaluated
from edgecxr.dataset import HeadColumns, load_dataset
from edgecxr.phantom import chest, write_dataset, write_dicom
from edgecxr.phantom.opacity import FINDINGS
from edgecxr.spec import Head, PreprocessSpec, ReadingSpec


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("films"), 6, seed=3, size=96)


def test_a_bundle_is_measured_and_drawn(run: Any, films: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = run("evaluate", tiny_bundle, "--data", films, "--html", "page.html", "--json", "--at-specificity", "0.8")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["films"] == 18
    for row in told["classes"]:
        assert [(rate["of"], rate["at"]) for rate in row["chosen"]] == [("sensitivity", 0.8), ("specificity", 0.98)]
        assert sum(map(sum, row["histogram"]["counts"].values())) == 18
    assert told["maps"][0]["films"] == 18
    page = (tmp_path / "page.html").read_text("utf-8")
    findings = [row["name"] for row in told["classes"] if row["is_finding"]]
    for name in findings:
        assert f'aria-label="histograms of the score of {name}"' in page
    assert page.count('aria-label="ROC curves"') == len(findings)
    assert page.count('aria-label="confusion matrix"') == 1
    assert page.count('aria-label="map of the embeddings') == 1
    assert page.count("specificity 0.8 by choice") == len(findings)
    text = run("evaluate", tiny_bundle, "--data", films, "--at-sensitivity", "0.9").stdout
    assert "specificity at sensitivity 0.9: " in text


def test_auto_measures_what_screen_decides_with(run: Any, films: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    before = Bundle.open(tiny_bundle)
    points = [item for item in before.spec.operating_points if item.engine == "onnxruntime-cpu"]
    write_recalibrated(before, tmp_path / "ours.cxr", points, {})
    fp32 = [item for item in points if item.precision == "fp32"]
    write_recalibrated(before, tmp_path / "fp32.cxr", fp32, {})
    for name, choice in (("ours.cxr", []), ("ours.cxr", ["--precision", "fp16"]), ("fp32.cxr", [])):
        screened = json.loads(run("screen", films, "--bundle", name, "--json", *choice).stdout)["results"][0]
        told = json.loads(run("evaluate", name, "--data", films, "--json", *choice).stdout)
        assert screened["engine"] == told["engine"] == "onnxruntime-cpu"
        assert told["name"] == f"tiny {screened['precision']} onnxruntime-cpu"
        assert all(row["operating_points"] for row in told["classes"] if row["is_finding"])
        assert not any("no engine here" in warning for warning in told["warnings"])


def test_where_nothing_can_decide_figures_come_with_a_warning(
    run: Any, films: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    before = Bundle.open(tiny_bundle)
    points = [item.model_copy(update={"engine": "abacus-cpu"}) for item in before.spec.operating_points[:2]]
    write_recalibrated(before, tmp_path / "far.cxr", points, {})
    done = run("evaluate", "far.cxr", "--data", films, "--json", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["engine"]) == ("tiny int8 openvino-cpu", "openvino-cpu")
    warning = "no engine here can decide at 'screening', so screen has none; figures are of openvino-cpu int8"
    assert told["warnings"][-1] == warning
    assert f"warning: {warning}\n" in done.stderr
    assert "no engine here can decide at" in (tmp_path / "page.html").read_text("utf-8")


def test_evaluate_takes_the_test_folds_of_the_data_it_was_built_on(run: Any, tiny_build: Any, tmp_path: Path) -> None:
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
    text = "{data: {folds: {train: [0], validate: [1], test: []}}, pretrain: {folds: [2]}}"
    earlier = tiny_build.write(tmp_path / "earlier.cxr", provenance=origin | {"recipe_text": text})
    done = run("evaluate", earlier, "--data", ".", "--json", "--folds", "2")
    assert "warning: fold 2 served to train this bundle" in done.stderr
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


@pytest.mark.train
def test_a_trained_teacher_is_measured_without_thresholds(run: Any, films: Path, tmp_path: Path) -> None:
    from edgecxr.teachers.architecture import build
    from edgecxr.teachers.teacher import MemberRecord, write_member

    head = Head(name="finding", kind="softmax", classes=FINDINGS, reference="normal")
    reading = ReadingSpec(jpeg2000="reduced")
    spec = PreprocessSpec(size=64)
    record = MemberRecord(name="mine", architecture="resnet10t", heads=(head,), preprocess=spec, reading=reading)
    digest = load_dataset(films, heads=[HeadColumns(head=head, column="label")]).digest
    folds = {"train": (0, 1), "validate": (2,), "test": (3, 4)}
    record = record.model_copy(update={"data_digest": digest, "folds": folds})
    (tmp_path / "teacher").mkdir()
    write_member(tmp_path / "teacher", record, build("resnet10t", 3))
    (tmp_path / "teacher" / "history.json").write_text('[{"epoch": 1.0, "train_loss": 1.0, "score": 0.5}]')
    done = run("evaluate", "teacher", "--data", films, "--folds", "0,1,3,4", "--json", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    number = len(load_dataset(films).select([0, 1, 3, 4]))
    assert (told["name"], told["engine"], told["films"], told["refusal"]) == ("mine pytorch", "pytorch", number, None)
    assert all(row["operating_points"] == [] for row in told["classes"])
    assert len(told["maps"][0]["points"]) == number
    seen = "fold 0, 1 served to train this teacher; figures are too good"
    assert told["warnings"] == [seen]
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "resnet10t" in page
    assert f"<strong>Warning:</strong> {seen}." in page
    assert 'aria-label="learning curves of mine"' in page
    opened = open_evaluated(tmp_path / "teacher", "auto", "auto")
    with opened.running() as running:
        assert running.reduced_for == record.preprocess
    done = run("evaluate", "teacher", "--data", films)
    assert "mine pytorch on " in done.stdout
    assert "the teacher was built on this data: evaluating on fold 3, 4, which its recipe kept" in done.stderr
    assert "warning" not in done.stderr
    write_member(tmp_path / "teacher", MemberRecord(**{**dict(record), "folds": {}}), build("resnet10t", 3))
    done = run("evaluate", "teacher", "--data", films)
    assert "warning: cannot tell whether these films taught the teacher" in done.stderr
    done = run("evaluate", "teacher", "--data", films, "--engine", "openvino")
    assert done.returncode == 2
    assert "a teacher runs in PyTorch" in done.stderr


def test_a_folder_that_is_no_teacher_is_misuse(run: Any, films: Path) -> None:
    done = run("evaluate", films, "--data", films)
    assert done.returncode == 2
    assert "has no teacher.json; give a bundle (.cxr), or the folder" in done.stderr


RECIPE = """\
name: tiny
version: "1"
data: {folds: {train: [0, 1, 2], validate: [3], test: [4]}, phantom: {films_per_finding: 20}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid, pneumonia], reference: normal}
    column: label
preprocess: {size: 32}
teachers:
  - {name: theirs, kind: factory, factory: "lent:network", size: 32, classes: [covid, normal, pneumonia]}
student: {architecture: test_resnet}
card: {intended_use: tests, limits: all, data: none}
"""
NETWORK = """\
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(16, 3))
"""


@pytest.mark.train
def test_a_teacher_that_a_recipe_brings_is_measured_by_its_logits(run: Any, films: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    (tmp_path / "lent.py").write_text(NETWORK)
    done = run("evaluate", "mine.yaml", "--teacher", "theirs", "--data", films, "--json", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["engine"], told["films"]) == (
        "theirs from elsewhere",
        "as the recipe opens it",
        18,
    )
    assert [row["name"] for row in told["classes"]] == ["normal", "covid", "pneumonia"]
    assert told["maps"] == []  # a factory's network shows no embedding
    assert told["warnings"][0].startswith("cannot tell whether these films taught the teacher")
    assert "cannot tell whether these films taught the teacher" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.train
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mine.yaml"], "that mine.yaml brings from elsewhere is meant, got None; it brings theirs"),
        (["mine.yaml", "--teacher", "ours"], "is meant, got 'ours'; it brings theirs"),
        (["mine.yaml", "--teacher", "theirs", "--engine", "openvino"], "--engine and --precision are for bundles"),
        (["--teacher", "theirs"], "--teacher theirs chooses from a recipe, and the shipped bundle is none"),
    ],
)
def test_a_wrong_teacher_is_a_sentence(run: Any, films: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    done = run("evaluate", *arguments, "--data", films)
    assert done.returncode == 2
    assert words in done.stderr

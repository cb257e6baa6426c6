"""What would end a build after hours is a sentence when the recipe is read."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.errors import RecipeError, StageError  # noqa: E402
from edgecxr.export.pipeline import Build  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402

RECIPE = """\
name: tiny
version: "1"
data: {folds: {train: [0, 1, 2], validate: [3], test: [4]}, phantom: {films_per_finding: 20}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid], reference: normal}
    column: label
pretrain:
  heads: [{head: {name: nih, kind: sigmoid, classes: [Mass, Edema]}}]
  training: {loss: {head_weights: {nih: 2}}}
preprocess: {size: 32}
training: {loss: {head_weights: {diagnosis: 2}}}
teachers:
  - {name: a, architecture: test_resnet}
  - {name: b, candidates: [resnet10t, resnet18], select: 2, joint: {}}
student: {architecture: test_resnet, teaching: live, distillation: {cam_weight: 0.5}}
quantize: {qat: never}
operating_points: [{name: screening, sensitivity: 0.9}, {name: balanced, youden: true}]
card: {intended_use: tests, limits: all, data: none}
"""
COLUMN = "    column: label\n"
TWO = "  - head: {{name: {}, kind: sigmoid, classes: [{}]}}\n"
FOREIGN = "teachers: [{name: c, kind: onnx, onnx: c.onnx, size: 32, classes: [normal, covid]}]\nstudent:"


def test_a_recipe_that_can_be_built_passes(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(RECIPE)
    assert load_recipe(tmp_path / "x.yaml").student.distillation.cam_weight == 0.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("teaching: live", "teaching: fixed", "student.distillation.cam_weight wants `student.teaching: live`"),
        ("{qat: never}", "{qat_training: {cam_weight: 1}}", "quantize.qat_training.cam_weight is for distillation"),
        ("preprocess: {size: 32}", "preprocess: {range_low: -1}", "preprocess: the range is -1 to 1; a student learns"),
        ("preprocess: {size: 32}", "preprocess: {range_high: 2}", "preprocess: the range is 0 to 2; a student learns"),
        (
            "preprocess: {size: 32}",
            "preprocess: {range_high: 0}",
            r"x.yaml:\d+: .*range_low 0.0 must be below",
        ),
        (
            "architecture: test_resnet}\n  - {name: b",
            "architecture: test_resnet, preprocess: {range_high: 255}}\n  - {name: b",
            "teacher 'a': preprocess has the range 0 to 255; wanted 0 to 1",
        ),
        ("select: 2", "select: 2, zooms: [1.0, 0.0]", r"teachers\[1\].zooms.*: got 0.0, wanted greater than 0"),
        ("{diagnosis: 2}", "{nih: 2}", "teacher 'b': joint.training: loss.head_weights names nih; the heads are diagn"),
        ("{nih: 2}", "{NIH: 2}", "pretrain.training: loss.head_weights names NIH; the heads are nih"),
        ("0.5}}", "0.5, loss: {head_weights: {nih: 1}}}}", "student.distillation: loss.head_weights names nih"),
        (
            "[Mass, Edema]",
            "[Mass, Edema]}}, {head: {name: nih, kind: sigmoid, classes: [Hernia]",
            "pretrain.heads: two are called 'nih'",
        ),
        (COLUMN, COLUMN + TWO.format("diagnosis", "flu"), "heads: two are called 'diagnosis'"),
        (COLUMN, COLUMN + TWO.format("two", "covid"), "heads: two classes are called 'covid'; findings are known by"),
        ("0.5}}", "0.5, device: gpu}}", "student.distillation: no device is called 'gpu'; wanted auto, cpu, cuda"),
        ("{name: balanced,", "{name: screening,", "operating_points: two rules are called 'screening'"),
    ],
)
def test_what_fails_late_is_told_early(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert RECIPE.count(old) == 1
    (tmp_path / "x.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "x.yaml")


def test_maps_want_a_teacher_that_is_trained_here(tmp_path: Path) -> None:
    start, end = RECIPE.split("teachers:")[0], RECIPE.split("student:")[1]
    (tmp_path / "x.yaml").write_text(start + FOREIGN + end)
    with pytest.raises(RecipeError, match="wants the maps of a teacher that is trained here, and there is none"):
        load_recipe(tmp_path / "x.yaml")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_bundle_takes_the_place_of_no_pipe(tmp_path: Path) -> None:
    recipe = tmp_path / "x.yaml"
    recipe.write_text(RECIPE)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StageError, match="pipe is no file but a device, a pipe or a socket; --out wants the name of"):
        Build(load_recipe(recipe), recipe, tmp_path / "work", silent=True).run(tmp_path / "pipe")

"""Live teachers: on the student's films as they are, they say what the ensemble said of them once."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

from edgecxr.errors import RecipeError, StageError  # noqa: E402
from edgecxr.export.bench import Bench  # noqa: E402
from edgecxr.export.films import gather_films  # noqa: E402
from edgecxr.export.fusion import fuse_members  # noqa: E402
from edgecxr.export.live import live_teacher  # noqa: E402
from edgecxr.export.networks import check_networks  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402
from edgecxr.export.stages import Workshop  # noqa: E402
from edgecxr.export.students import choose_student  # noqa: E402
from edgecxr.runtimes.graph import GraphSession  # noqa: E402
from edgecxr.teachers.progress import Silent  # noqa: E402

RECIPE = """\
name: live
version: "1"
data: {phantom: {films_per_finding: 40, size: 96}, folds: {train: [0], validate: [3], test: [4]}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid, pneumonia], reference: normal}
    column: label
preprocess: {size: 48}
training: {epochs: 1, batch: 16, average: 0, autocast: "off"}
teachers:
  - {name: trained, architecture: resnet10t, preprocess: {size: 32}, zooms: [1.0, 1.2]}
  - {name: own, kind: factory, factory: "live_own:network", size: 48, classes: [pneumonia, _, normal, covid]}
student: {architecture: resnet10t, teaching: live}
card: {intended_use: tests, limits: all, data: drawn films}
"""
OWN = """\
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AvgPool2d(12), torch.nn.Flatten(), torch.nn.Linear(16, 4))
"""

DISTILLATION = '{epochs: 1, batch: 16, average: 0, autocast: "off", metric: loss, cam_weight: %s}'
LARGER = RECIPE.replace("{size: 32}", "{size: 64}")  # so that a map has more than one cell
MAPPED = f"teaching: live, distillation: {DISTILLATION % 1.0}"


def written(folder: Path) -> Path:
    """The recipe in this folder, beside the module that it names."""
    (folder / "live_own.py").write_text(OWN)
    path = folder / "live.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return written(tmp_path)


def made(path: Path, work: Path) -> tuple[Bench, NDArray[np.float32]]:
    """The bench of the recipe in `path` after its stage `fuse`, and the fused logits."""
    plan, workshop = load_recipe(path), Workshop(work)
    bench = Bench(plan, workshop, gather_films(plan, workshop), path.parent, lambda _: nullcontext(Silent()))
    return bench, fuse_members(bench)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, NDArray[np.float32]]:
    """`made` of the recipe as it stands above."""
    folder = tmp_path_factory.mktemp("ensemble")
    return made(written(folder), folder / "work")


def test_of_films_as_they_are_live_teachers_say_what_the_ensemble_said(
    ensemble: tuple[Bench, NDArray[np.float32]],
) -> None:
    bench, fused = ensemble
    films = torch.from_numpy(np.asarray(bench.images(bench.recipe.preprocess), np.float32))
    said = live_teacher(bench)(films).logits.numpy()
    assert said.shape == fused.shape
    assert np.abs(said - fused).max() < 0.1 * fused.std()  # of a film shrunk twice
    turned = live_teacher(bench)(films.flip(2)).logits.numpy()
    assert np.abs(turned - fused).max() > 0.5 * fused.std()
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the student's own arithmetic is none of the teachers'
        assert np.array_equal(live_teacher(bench)(films).logits.numpy(), said)
    assert live_teacher(bench)(films).cam is None


def test_the_teachers_compute_as_the_distillation_says(ensemble: tuple[Bench, NDArray[np.float32]]) -> None:
    bench, _ = ensemble
    settings = bench.recipe.student.distillation.model_copy(update={"device": "meta", "autocast": "off"})
    student = bench.recipe.student.model_copy(update={"distillation": settings})
    elsewhere = replace(bench, recipe=bench.recipe.model_copy(update={"student": student}))
    with pytest.raises(NotImplementedError, match="meta tensor"):  # a device without numbers: it was listened to
        live_teacher(elsewhere)(torch.rand(2, 1, 48, 48))


def test_a_student_is_taught_live_with_and_without_maps(recipe: Path, tmp_path: Path) -> None:
    losses = []
    for weight in (0.0, 1.0):
        recipe.write_text(LARGER.replace("teaching: live", f"teaching: live, distillation: {DISTILLATION % weight}"))
        bench, fused = made(recipe, tmp_path / "work")
        chosen, fp32 = choose_student(bench, fused)
        (record,) = json.loads((bench.workshop.outcomes["distill-resnet10t"].folder / "history.json").read_text())
        losses.append(record["train_loss"])
        assert chosen == "resnet10t"
        with GraphSession(fp32.model, "onnxruntime") as session:
            films = np.asarray(bench.images(bench.recipe.preprocess)[:4], np.float32)
            assert np.ptp(session.infer(films).logits, axis=0).max() > 0
    assert len(bench.films.rows("train")) < 2 * 16  # one step, so that the losses differ by that of the maps alone
    assert 0.05 < losses[1] - losses[0] < 2


def test_fused_maps_are_those_whose_means_are_the_fused_logits(recipe: Path, tmp_path: Path) -> None:
    text = LARGER.replace(", zooms: [1.0, 1.2]", "").replace("teaching: live", MAPPED)
    own = next(line for line in text.splitlines() if "factory" in line)
    recipe.write_text(text.replace(own, "  - {name: finer, architecture: test_resnet, preprocess: {size: 64}}"))
    bench, _ = made(recipe, tmp_path / "work")
    films = torch.from_numpy(np.asarray(bench.images(bench.recipe.preprocess)[:5], np.float32))
    taught = live_teacher(bench)(films)
    assert taught.cam is not None
    assert taught.cam.shape == (5, 3, 2, 2)
    torch.testing.assert_close(taught.cam.mean((2, 3)), taught.logits, rtol=1e-3, atol=1e-4)
    assert taught.cam.std((2, 3)).min() > 0


def test_without_a_teacher_that_has_maps_there_are_none(recipe: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("architecture: resnet10t, preprocess", "architecture: test_vit, pretrained: null, preprocess")
    recipe.write_text(text.replace("size: 32", "size: 160").replace("teaching: live", MAPPED))
    with pytest.raises(StageError, match=r"cam_weight wants class activation maps, and no teacher has them"):
        check_networks(load_recipe(recipe), tmp_path)


def test_teachers_must_see_what_the_student_sees(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("preprocess: {size: 32}", "preprocess: {size: 32, aspect: stretch}"))
    with pytest.raises(RecipeError, match="teacher 'trained': its `preprocess` differs from the student's in more"):
        load_recipe(recipe)

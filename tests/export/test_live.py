"""Live teachers: on the student's films as they are, they say what the ensemble said of them once."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

from edgecxr.errors import RecipeError  # noqa: E402
from edgecxr.export.bench import Bench  # noqa: E402
from edgecxr.export.films import gather_films  # noqa: E402
from edgecxr.export.fusion import fuse_members  # noqa: E402
from edgecxr.export.live import live_teacher  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402
from edgecxr.export.stages import Workshop  # noqa: E402
from edgecxr.teachers.progress import Silent  # noqa: E402

RECIPE = """\
name: live
version: "1"
data: {phantom: {films_per_finding: 10, size: 96}, folds: {train: [0, 1, 2], validate: [3], test: [4]}}
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


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "live_own.py").write_text(OWN)
    path = tmp_path / "live.yaml"
    path.write_text(RECIPE)
    return path


def test_of_films_as_they_are_live_teachers_say_what_the_ensemble_said(recipe: Path, tmp_path: Path) -> None:
    plan, workshop = load_recipe(recipe), Workshop(tmp_path / "work")
    bench = Bench(plan, workshop, gather_films(plan, workshop), tmp_path, lambda _: nullcontext(Silent()))
    fused = fuse_members(bench)
    films = torch.from_numpy(np.asarray(bench.images(plan.preprocess), np.float32))
    said = live_teacher(bench)(films).logits.numpy()
    assert said.shape == fused.shape
    assert np.abs(said - fused).max() < 0.1 * fused.std()  # of a film shrunk twice
    turned = live_teacher(bench)(films.flip(2)).logits.numpy()
    assert np.abs(turned - fused).max() > 0.5 * fused.std()


def test_teachers_must_see_what_the_student_sees(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("preprocess: {size: 32}", "preprocess: {size: 32, aspect: stretch}"))
    with pytest.raises(RecipeError, match="teacher 'trained': its `preprocess` differs from the student's in more"):
        load_recipe(recipe)

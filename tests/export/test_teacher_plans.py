"""What a recipe says of its teachers: groups, kept neurons, copies; nothing of it is written where it is not said."""

import json
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.errors import RecipeError  # noqa: E402
from edgecxr.export.recipe import Recipe, TrainedGroup, TrainedMember, load_recipe  # noqa: E402

ROOT = Path(__file__).parents[2]
BASE = """\
name: tiny
version: "1"
data: {phantom: {films_per_finding: 20}, folds: {train: [0, 1, 2], validate: [3], test: [4]}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid], reference: normal}
training: {epochs: 7, batch: 16}
pretrain:
  heads:
    - head: {name: nih, kind: sigmoid, classes: [Mass, Pneumonia, No Finding]}
      otherwise: No Finding
student: {architecture: resnet10t}
card: {intended_use: tests, limits: all, data: none}
teachers:
"""
GROUP = "  - {name: g, candidates: [resnet18, 'torchvision:resnet34'], select: 2, joint: {training: {epochs: 2}}}\n"


def loaded(folder: Path, teachers: str, base: str = BASE) -> Recipe:
    path = folder / "x.yaml"
    path.write_text(base + teachers)
    return load_recipe(path)


def refused(folder: Path, teachers: str, base: str = BASE) -> str:
    with pytest.raises(RecipeError, match=r"x\.yaml:") as caught:
        loaded(folder, teachers, base)
    return str(caught.value)


def test_a_group_is_its_candidates_with_the_groups_settings(tmp_path: Path) -> None:
    group = loaded(
        tmp_path, GROUP.replace("select: 2", "select: 2, keep: {normal: No Finding}, zooms: [1.0, 1.1]")
    ).teachers[0]
    assert isinstance(group, TrainedGroup)
    assert [(member.name, member.architecture) for member in group.members] == [
        ("g-resnet18", "resnet18"),
        ("g-resnet34", "torchvision:resnet34"),
    ]
    for member in group.members:
        assert (member.training.epochs, member.zooms, member.keep) == (7, (1.0, 1.1), {"normal": "No Finding"})


def test_joint_training_overrides_single_keys_of_the_groups(tmp_path: Path) -> None:
    teachers = GROUP.replace("select: 2", "select: 2, training: {learning_rate: 0.5}")
    group = loaded(tmp_path, teachers).teachers[0]
    assert isinstance(group, TrainedGroup)
    assert group.joint is not None
    training = group.joint.training
    assert (training.epochs, training.batch, training.learning_rate) == (2, 16, 0.5)


@pytest.mark.parametrize(
    ("teachers", "sentence"),
    [
        (GROUP.replace("select: 2", "select: 3"), "select is 3, of 2 candidates"),
        (GROUP.replace("select: 2", "select: 1"), "joint wants at least two networks"),
        (GROUP.replace("torchvision:resnet34", "torchvision:resnet18"), "two candidates are called 'g-resnet18'"),
        (GROUP.replace("name: g", f"name: {'g' * 35}"), "is longer than 40 characters; give the group a shorter name"),
        (GROUP.replace("select: 2", "selet: 2"), "unknown key 'selet' in teachers[0]; did you mean 'select'?"),
        (GROUP + "  - {name: g-resnet18, architecture: resnet18}\n", "two teachers are called 'g-resnet18'"),
        (
            "  - {name: a, architecture: resnet18, keep: {normal: No finding}}\n",
            "teacher 'a': keep: 'No finding' does not name a class of pretrain; wanted one of Mass, Pneumonia, No",
        ),
        (
            "  - {name: a, architecture: resnet18, keep: {healthy: No Finding}}\n",
            "teacher 'a': keep: 'healthy' does not name a class of the recipe; wanted one of normal, covid",
        ),
        (
            "  - {name: a, architecture: resnet18, pretrain: false, keep: {normal: No Finding}}\n",
            "teacher 'a': keep wants output neurons of `pretrain`, in which it takes no part",
        ),
        (
            "  - {name: a, architecture: resnet18, training: {copies: {corona: 17}}}\n",
            "teacher 'a': copies names corona; the classes are normal, covid",
        ),
        (
            "  - {name: a, architecture: resnet18, training: {copies: {covid: 1}}}\n",
            "training.copies.covid: got 1, wanted greater than or equal to 2",
        ),
        (
            "  - {name: a, architecture: resnet18, pretrain: b}\n  - {name: b, architecture: resnet34}\n",
            "teacher 'a': pretrain: 'b' is no teacher of the same architecture and preprocess to share with: none",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(tmp_path: Path, teachers: str, sentence: str) -> None:
    assert sentence in refused(tmp_path, teachers)


def test_limits_of_pretraining_want_a_softmax_head(tmp_path: Path) -> None:
    base = BASE.replace(
        "      otherwise: No Finding\n", "      otherwise: No Finding\n  training: {films_per_class: 9}\n"
    )
    said = refused(tmp_path, "  - {name: a, architecture: resnet18}\n", base)
    assert "pretrain.training: films_per_class needs one softmax head to count by; there are 0" in said


def test_a_student_sees_each_film_once(tmp_path: Path) -> None:
    base = BASE.replace("architecture: resnet10t", "architecture: resnet10t, distillation: {copies: {covid: 2}}")
    said = refused(tmp_path, "  - {name: a, architecture: resnet18}\n", base)
    assert "copies and films_per_class are for teachers; a student learns from each film once an epoch" in said


def test_what_a_recipe_does_not_say_is_not_among_the_inputs_of_its_stages() -> None:
    """Hours of cached training hang on it: keys that came later are written only where they are set."""
    recipe = load_recipe(ROOT / "recipes" / "covid3.yaml", data="/films")
    assert recipe.pretrain is not None
    members = [member for member in recipe.teachers if isinstance(member, TrainedMember)]
    written = [
        *(member.model_dump(mode="json") for member in members),
        recipe.pretrain.model_dump(mode="json"),
        recipe.student.distillation.model_dump(mode="json"),
        [item.model_dump(mode="json") for item in recipe.heads],
    ]
    text = json.dumps(written)
    assert [key for key in ("keep", "copies", "films_per_class", "values", "otherwise") if f'"{key}"' in text] == []
    assert list(written[0]) == ["name", "preprocess", "training", "zooms", "pretrain", "architecture", "pretrained"]
    assert "columns" not in yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text())["data"]["phantom"]

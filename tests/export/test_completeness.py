"""Folds that lack a class are told with the table, the fold and the class, before anything is trained."""

import csv
from pathlib import Path

import pytest

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.errors import DatasetError  # noqa: E402
from edgecxr.export.films import gather_films  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402
from edgecxr.export.stages import Workshop  # noqa: E402

RECIPE = """\
name: tiny
version: "1"
data: {folds: {train: [0, 1, 2], validate: [3], test: [4]}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid], reference: normal}
  - head: {name: signs, kind: sigmoid, classes: [Mass]}
teachers:
  - {name: a, architecture: test_resnet}
student: {architecture: resnet10t}
card: {intended_use: tests, limits: all, data: none}
"""
PRETRAIN = """\
pretrain:
  folds: [1]
  heads:
    - head: {name: nih, kind: sigmoid, classes: [Mass]}
"""


def problems(
    folder: Path, *, lacking: set[tuple[int, str]], recipe: str = RECIPE, films: dict[int, int] | None = None
) -> list[str]:
    """What is said of a folder with 10 films (`films`: by fold) of each kind in each fold, but for those `lacking`."""
    rows = []
    for fold in range(5):
        for label in ("normal", "covid"):
            for mass in ("0", "1"):
                there = not {(fold, label), (fold, mass)} & lacking
                for number in range((films or {}).get(fold, 10) if there else 0):
                    name = f"{fold}-{label}-{mass}-{number}.png"
                    (folder / name).write_text(name)
                    rows.append((name, f"p{fold}", fold, label, mass))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "patient", "fold", "label", "Mass"), *rows])
    (folder / "x.yaml").write_text(recipe)
    try:
        gather_films(load_recipe(folder / "x.yaml", data=folder), Workshop(folder / "work"))
    except DatasetError as error:
        return [problem.removeprefix(f"{folder / 'labels.csv'}: ") for problem in error.problems]
    return []


def test_folds_with_films_of_every_class_pass(tmp_path: Path) -> None:
    assert problems(tmp_path, lacking=set()) == []
    assert problems(tmp_path, lacking={(0, "covid"), (2, "1")}) == []


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        (
            {(4, "covid")},
            "no film of 'covid' (head 'diagnosis') in fold 4, for test; such films are in fold 0, 1, 2, 3: "
            "change data.folds, or take the class out of the head",
        ),
        (
            {(0, "normal"), (1, "normal"), (2, "normal")},
            "no film of 'normal' (head 'diagnosis') in folds 0, 1, 2, for train; such films are in fold 3, 4: "
            "change data.folds, or take the class out of the head",
        ),
        (
            {(3, "0")},
            "no film without 'Mass' (head 'signs') in fold 3, for validate; such films are in fold 0, 1, 2, 4: "
            "change data.folds, or take the class out of the head",
        ),
    ],
)
def test_a_fold_that_lacks_a_class_is_named(tmp_path: Path, lacking: set[tuple[int, str]], sentence: str) -> None:
    assert problems(tmp_path, lacking=lacking) == [sentence]


def test_folds_with_too_few_films_for_the_refusal_gate_are_named(tmp_path: Path) -> None:
    assert problems(tmp_path, lacking=set(), films={0: 1, 1: 1, 2: 2, 3: 4}) == [
        "16 films in folds 0, 1, 2, for train; the refusal gate wants 20 or more: add films, or change data.folds",
        "16 films in fold 3, for validate; the refusal gate wants 20 or more: add films, or change data.folds",
    ]


def test_a_class_that_no_film_has_is_told_for_every_purpose(tmp_path: Path) -> None:
    told = problems(tmp_path, lacking={(fold, "1") for fold in range(5)})
    assert [problem.split(" in ")[0] for problem in told] == ["no film with 'Mass' (head 'signs')"] * 3
    assert all(problem.endswith("no fold has one: add some, or take the class out of the head") for problem in told)


def test_pretraining_needs_films_that_choose_its_best_epoch(tmp_path: Path) -> None:
    recipe = RECIPE.replace("  - head: {name: signs, kind: sigmoid, classes: [Mass]}\n", "") + PRETRAIN
    (sentence,) = problems(tmp_path, lacking={(3, "1")}, recipe=recipe)
    assert sentence == (
        "no class of pretrain (head 'nih') has films of both kinds in fold 3, which choose its best epoch; films with "
        "such labels are in fold 0, 1, 2, 4: change data.folds, or leave pretrain out"
    )


def test_pretraining_needs_its_classes_in_its_own_folds(tmp_path: Path) -> None:
    (sentence,) = problems(tmp_path, lacking={(1, "1")}, recipe=RECIPE + PRETRAIN)
    assert sentence.startswith(
        "no film with 'Mass' (head 'nih') in fold 1, for pretrain; such films are in fold 0, 2, 3"
    )

"""A wrong recipe is a sentence with file, line and the nearest valid key; a right one says everything."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.errors import RecipeError  # noqa: E402
from edgecxr.export.recipe import TrainedMember, load_recipe  # noqa: E402

RIGHT = """\
name: tiny
version: "1"
data:
  folder: $EDGECXR_TEST_FOLDER
  folds: {train: [0, 1, 2], validate: [3], test: [4]}
  phantom: {films_per_finding: 20}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid], reference: normal}
    column: label
preprocess: {size: 64}
training:
  epochs: 7
  batch: 16
teachers:
  - name: a
    architecture: resnet10t
    training:
      epochs: 3
  - {name: b, architecture: "torchvision:resnet18", preprocess: {size: 96}}
student:
  architecture: resnet10t
card: {intended_use: tests, limits: all, data: none}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def problem(folder: Path, old: str, new: str) -> str:
    """What load_recipe says about RIGHT with one thing changed, without the folder of the file."""
    assert RIGHT.count(old) == 1
    with pytest.raises(RecipeError, match=r"x\.yaml:") as caught:
        load_recipe(write(folder, RIGHT.replace(old, new)))
    return str(caught.value).replace(f"{folder}/", "")


def test_members_inherit_the_recipes_settings_key_by_key(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, RIGHT))
    a, b = recipe.teachers
    assert isinstance(a, TrainedMember)
    assert isinstance(b, TrainedMember)
    assert (a.training.epochs, a.training.batch, a.preprocess.size) == (3, 16, 64)
    assert (b.training.epochs, b.training.batch, b.preprocess.size) == (7, 16, 96)
    assert recipe.model_heads[0].findings == ("covid",)


def test_one_key_of_training_between_integers_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    before = load_recipe(write(tmp_path, RIGHT)).quantize.qat_training
    assert (before.epochs, before.learning_rate, before.autocast, before.temperature) == (8, 1e-4, "off", 3)
    text = RIGHT.replace("card:", "quantize: {qat_training: {batch: 16}}\ncard:")
    assert load_recipe(write(tmp_path, text)).quantize.qat_training == before.model_copy(update={"batch": 16})


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "      epochs: 3",
            "      epoch: 3",
            "x.yaml:18: unknown key 'epoch' in teachers[0].training; did you mean 'epochs'?",
        ),
        ("student:", "studnet:", "x.yaml:20: unknown key 'studnet' in the recipe; did you mean 'student'?"),
        (
            "    column: label",
            "    colunm: label",
            "x.yaml:9: unknown key 'colunm' in heads[0]; did you mean 'column'?",
        ),
        ("epochs: 7", "epochs: many", "x.yaml:12: training.epochs: got 'many', wanted a valid integer"),
        ("epochs: 7", "epochs: 0", "x.yaml:12: training.epochs: got 0, wanted greater than or equal to 1"),
        ('version: "1"', "version: 1", "x.yaml:2: version: got 1, wanted a valid string"),
        (
            "  architecture: resnet10t\ncard",
            "  drop: 1\ncard",
            "x.yaml:21: unknown key 'drop' in student; valid keys are",
        ),
        ("name: tiny\n", "", "x.yaml:1: the recipe lacks 'name'"),
        (
            "    architecture: resnet10t\n    t",
            "    archtecture: resnet10t\n    t",
            "x.yaml:16: unknown key 'archtecture'",
        ),
        (
            "test: [4]",
            "test: [3]",
            "x.yaml:5: data.folds: fold 3 is in validate and in test; a film may serve one purpose",
        ),
        ("name: b", "name: a", "two teachers are called 'a'"),
        ('"torchvision:resnet18"', '"torchvision:resnet19"', "x.yaml:19: teachers[1].architecture: "),
        (
            "resnet10t\ncard",
            "resnet10tt\ncard",
            "no architecture 'resnet10tt' in timm; the nearest names",
        ),
        ("test: [4]", "test: [-4]", "x.yaml:5: data.folds.test[0]: got -4, wanted greater than or equal to 0"),
        ("name: tiny\n", "name: tiny\nseed: -1\n", "x.yaml:2: seed: got -1, wanted greater than or equal to 0"),
        ("name: tiny\n", "name: &a [*a]\n", "x.yaml:1: "),
        ("name: tiny\n", f"name: {'[' * 5000}\n", "x.yaml:1: nested too deeply, or within itself"),
        ("preprocess: {size: 64}", "preprocess: {size: 64", "x.yaml:11: not YAML"),
        ("  batch: 16", "  epochs: 16", "x.yaml:13: key 'epochs' is given twice"),
        (
            "kind: softmax, ",
            "kind: sofmax, ",
            "x.yaml:8: heads[0].head.kind: got 'sofmax', wanted 'softmax' or 'sigmoid'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert sentence in problem(tmp_path, old, new)


def test_every_mistake_is_told_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = RIGHT.replace("epochs: 7", "epochs: no").replace("studnet", "student").replace("name: tiny", "nam: tiny")
    with pytest.raises(RecipeError, match="nam") as caught:
        load_recipe(write(tmp_path, text))
    lines = [int(line.split("x.yaml:")[1].split(":")[0]) for line in str(caught.value).splitlines()]
    assert lines == sorted(lines)
    assert len(lines) >= 3


def test_the_folder_is_the_argument_else_the_variable_else_phantoms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, RIGHT)
    assert load_recipe(path).data.folder is None
    monkeypatch.setenv("EDGECXR_TEST_FOLDER", "/films")
    assert load_recipe(path).data.folder == "/films"
    assert load_recipe(path, data="/others").data.folder == "/others"


def test_a_recipe_without_films_says_how_to_name_them(tmp_path: Path) -> None:
    path = write(tmp_path, RIGHT.replace("  phantom: {films_per_finding: 20}\n", ""))
    with pytest.raises(RecipeError, match=r"no films: .*--data FOLDER"):
        load_recipe(path)


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match=r"a recipe is a mapping of keys .* got list"):
        load_recipe(write(tmp_path, "- a\n- b\n"))


FOREIGN = {
    "onnx": "onnx: a.onnx",
    "checkpoint": "checkpoint: a.pth, architecture: resnet10t",
    "factory": "factory: 'mine:make'",
    "program": "program: a.pt2",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_wrong_key_of_a_foreign_teacher_is_told_with_the_right_ones(tmp_path: Path, kind: str) -> None:
    old = '  - {name: b, architecture: "torchvision:resnet18", preprocess: {size: 96}}\n'
    start = (
        f"  - name: b\n    kind: {kind}\n    "
        + FOREIGN[kind].replace(", ", "\n    ")
        + "\n    classes: [normal, covid]"
    )
    line = 17 + start.count("\n") + 3
    said = problem(tmp_path, old, f"{start}\n    sizee: 96\n")
    assert said == f"x.yaml:{line}: unknown key 'sizee' in teachers[1]; did you mean 'size'?"
    said = problem(tmp_path, old, f"{start}\n    xyzzy: 96\n")
    assert said.startswith(f"x.yaml:{line}: unknown key 'xyzzy' in teachers[1]; valid keys are a")
    assert kind in said
    assert problem(tmp_path, old, f"{start}\n    size: 1\n").startswith(
        f"x.yaml:{line}: teachers[1].size: got 1, wanted"
    )


def test_the_examples_of_teachers_in_the_manual_are_valid(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs/recipe.md").read_text()
    examples = [line.strip() for line in manual.splitlines() if line.startswith("    - {name: ")]
    assert len(examples) == 2
    head, rest = RIGHT.split("teachers:\n")
    teachers = "teachers:\n" + "".join(f"  {line}\n" for line in examples)
    recipe = load_recipe(write(tmp_path, head + teachers + "student:" + rest.split("student:")[1]))
    assert [member.name for member in recipe.teachers] == ["wide", "ours"]


def test_films_are_drawn_only_for_one_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = load_recipe(write(tmp_path, RIGHT)).data.told
    assert told == "films: drawn (phantoms), EDGECXR_TEST_FOLDER is not set"
    for folder in ("$EDGECXR_TEST_FOLDER/films", "/films/${EDGECXR_TEST_FOLDER}"):
        with pytest.raises(RecipeError, match=r"x\.yaml: data\.folder is .*, but EDGECXR_TEST_FOLDER is not set"):
            load_recipe(write(tmp_path, RIGHT.replace("$EDGECXR_TEST_FOLDER", folder)))
    monkeypatch.setenv("EDGECXR_TEST_FOLDER", "/cash$")
    assert load_recipe(write(tmp_path, RIGHT)).data.told == "films: /cash$"

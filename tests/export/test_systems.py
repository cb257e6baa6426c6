"""The published systems, from film to bundle: their own recipes, with smaller films, fewer of them and one epoch.

Most of the networks stand aside for tiny ones (`SMALL`), because it is the procedure of each recipe that is tested
here; that the published networks export is tested beside the student.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.bundle import Bundle  # noqa: E402
from edgecxr.dataset import load_dataset  # noqa: E402
from edgecxr.errors import DatasetError  # noqa: E402
from edgecxr.export.completeness import check_completeness  # noqa: E402
from edgecxr.export.films import gather_films  # noqa: E402
from edgecxr.export.pipeline import Build, Built  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402
from edgecxr.export.stages import Workshop  # noqa: E402
from edgecxr.phantom import chest, write_dataset  # noqa: E402
from edgecxr.runtimes.screener import Screener  # noqa: E402
from edgecxr.teachers.teacher import open_member  # noqa: E402
from edgecxr.teachers.weights import read_weights  # noqa: E402

SYSTEMS = Path(__file__).parents[2] / "recipes" / "systems"
NAMES = sorted(path.stem for path in SYSTEMS.glob("*.yaml"))
SMALL = {
    "resnet18": "test_resnet",
    "resnet50": "test_efficientnet",
    "resnet101": "test_nfnet",
    "resnet152": "resnet10t",
    "densenet121": "test_resnet",
    "densenet201": "test_resnet",
    "vgg16": "torchvision:squeezenet1_0",
    "torchvision:alexnet": "torchvision:squeezenet1_1",
    "inception_v3": "test_efficientnet",
    "inception_resnet_v2": "test_resnet",
}
KEPT = {("bassi2021", "densenet121")}  # system and network that is trained as it is; Covid-DenseNet always is
QUICK = {"epochs": 1, "average": 0, "autocast": "off"}
WIDE: dict[str, Any] = {
    **dict.fromkeys(("auroc", "sensitivity", "specificity", "flip_rate", "ece", "refusal_flips"), 0.99),
    **dict.fromkeys(("cam_correlation", "cam_pointing"), 0.01),
    "minimum_films": 2,
    "accept_inconclusive": True,
}


def shrunk(name: str) -> dict[str, Any]:
    """The recipe, made small."""
    raw: dict[str, Any] = yaml.safe_load((SYSTEMS / f"{name}.yaml").read_text())
    raw["preprocess"]["size"] = 32
    raw["training"] |= QUICK
    raw["student"] |= {"options": {"channels": [8, 8, 16, 16]}}
    raw["student"]["distillation"] |= QUICK
    if "pretrain" in raw:
        raw["pretrain"]["training"] |= QUICK
    for teacher in raw["teachers"]:
        for key in ("architecture", "candidates"):
            if key in teacher:
                teacher[key] = _small(name, teacher[key])
        if "joint" in teacher:
            teacher["joint"]["training"] |= {"epochs": 2}
    plan = {"precisions": ["int8"], "methods": ["minmax"], "calibration_films": 8, "qat": "never", "tolerance": 0.2}
    return raw | {"quantize": plan, "gate": WIDE, "student_gate": WIDE, "golden": {"frames": 3, "size": 64}}


def _small(system: str, networks: Any) -> Any:
    if isinstance(networks, list):
        return [_small(system, network) for network in networks]
    return networks if (system, networks) in KEPT else SMALL.get(networks, networks)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder such as a user has, drawn: the three classes, and the columns of ChestX-ray14."""
    columns = yaml.safe_load((SYSTEMS / "bassi2021.yaml").read_text())["data"]["phantom"]["columns"]
    return write_dataset(tmp_path_factory.mktemp("films"), 40, size=64, columns=columns)


@pytest.fixture(scope="module")
def build(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """build(name): the system from these films, once."""
    work = tmp_path_factory.mktemp("systems")

    @cache
    def made(name: str) -> Built:
        path = work / f"{name}.yaml"
        path.write_text(yaml.safe_dump(shrunk(name)))
        recipe = load_recipe(path, data=films)
        return Build(recipe, path, work, tell=lambda line: None, silent=True).run()

    return made


def folder(built: Built, stage: str) -> Path:
    return next(outcome.folder for outcome in built.stages if outcome.name == stage)


def stages(built: Built) -> set[str]:
    return {outcome.name for outcome in built.stages}


def history(built: Built, stage: str) -> list[dict[str, float]]:
    told: list[dict[str, float]] = json.loads((folder(built, stage) / "history.json").read_text())
    return told


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_valid_as_it_stands(name: str) -> None:
    recipe = load_recipe(SYSTEMS / f"{name}.yaml", data="/films")
    assert {teacher.preprocess.size for teacher in recipe.teachers} == {recipe.preprocess.size} == {224}
    assert all(teacher.pretrained is None for teacher in recipe.teachers)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "covid_densenet_counts"])
def test_a_system_becomes_a_bundle_that_screens(name: str, build: Any) -> None:
    built = build(name)
    bundle = Bundle.open(built.path)
    assert bundle.precisions == ("int8",)
    with Screener(bundle) as screener:
        scored = screener.screen(chest(5, "covid", 64))
    assert scored.precision == "int8"
    assert (folder(built, "curves") / "learning.svg").read_text().startswith("<svg")


def test_wang_chooses_two_and_their_weights_move(build: Any) -> None:
    built = build("wang2020")
    told = json.loads((folder(built, "select-wang") / "selection.json").read_text())
    ranks = [(-item["accuracy"], item["loss"]) for item in told["candidates"]]
    assert len(ranks) == 4
    assert ranks == sorted(ranks)
    assert told["chosen"] == [item["name"] for item in told["candidates"][:2]]
    teacher = open_member(folder(built, "teacher-wang"), device="cpu")
    assert list(teacher.member.joint) == [item["architecture"] for item in told["candidates"][:2]]
    records = history(built, "teacher-wang")
    shares = [[record[f"weight_{name}"] for name in teacher.member.joint] for record in records]
    assert [sum(pair) for pair in shares] == pytest.approx([1, 1])
    assert shares[0] != shares[1]
    assert "fusion weights of" in (folder(built, "curves") / "weights-wang.svg").read_text()
    assert json.loads((folder(built, "fuse") / "fusion.json").read_text())["members"] == ["wang"]


def test_covid_densenet_stands_beside_densenet_on_balanced_and_on_all_films(build: Any) -> None:
    built = build("covid_densenet")
    members = ["multiscale", "multiscale-all", "plain", "plain-all"]
    assert json.loads((folder(built, "fuse") / "fusion.json").read_text())["members"] == members
    kinds = [type(open_member(folder(built, f"teacher-{name}")).module.body).__name__ for name in members]
    assert kinds == ["CovidDenseNet", "CovidDenseNet", "ResNet", "ResNet"]


def test_deep_covid_is_read_at_a_sensitivity_of_98_percent(build: Any) -> None:
    bundle = Bundle.open(build("deep_covid").path)
    assert bundle.spec.classes == ("other", "covid")
    points = {point.name: point for point in bundle.spec.operating_points if point.engine == "openvino-cpu"}
    assert points["published"].rule.startswith("sensitivity >= 0.98")
    assert points["published"].finding == "covid"
    assert points["published"].sensitivity >= 0.98


def test_bassi_keeps_the_neurons_of_two_classes_and_compares(build: Any) -> None:
    built = build("bassi2021")
    assert {"pretrain-kept", "pretrain-kept121", "teacher-kept", "teacher-fresh"} <= stages(built)
    assert "pretrain-fresh" not in stages(built)
    earlier = read_weights(folder(built, "pretrain-kept") / "weights.safetensors", ())
    assert earlier["body.fc.weight"].shape[0] == 15
    later = {
        name: read_weights(folder(built, f"teacher-{name}") / "weights.safetensors", ()) for name in ("kept", "fresh")
    }
    no_finding, pneumonia = earlier["body.fc.weight"][0], earlier["body.fc.weight"][7]
    for name, near in (("kept", True), ("fresh", False)):  # after one epoch of small steps
        normal, _, third = later[name]["body.fc.weight"]
        likeness = [np.corrcoef(new, old)[0, 1] for new, old in ((normal, no_finding), (third, pneumonia))]
        assert [bool(value > 0.9) for value in likeness] == [near, near]
    figure = (folder(built, "curves") / "learning.svg").read_text()
    assert "kept, fresh, kept121" in figure


def test_abdukarimov_has_five_voters(build: Any) -> None:
    fused = json.loads((folder(build("abdukarimov2021"), "fuse") / "fusion.json").read_text())
    assert len(fused["members"]) == 5
    assert sum(fused["heads"][0]["weights"]) == pytest.approx(1)


def test_bassi_on_a_folder_without_nih_labels_is_one_sentence_before_any_training(tmp_path: Path) -> None:
    plain = write_dataset(tmp_path / "films", 5, size=64)
    recipe = load_recipe(SYSTEMS / "bassi2021.yaml", data=plain)
    with pytest.raises(DatasetError, match="1 problem") as caught:
        gather_films(recipe, Workshop(tmp_path / "work"))
    (sentence,) = caught.value.problems
    assert sentence.startswith(f"{plain / 'labels.csv'}: columns Atelectasis, Cardiomegaly, ")
    assert sentence.endswith("are missing (head 'nih14' reads them); there are: file, patient, label, fold")


def test_bassi_can_be_tried_on_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECXR_DATA", raising=False)
    recipe = load_recipe(SYSTEMS / "bassi2021.yaml")
    assert recipe.data.phantom is not None
    few = recipe.data.phantom.model_copy(update={"films_per_finding": 40, "size": 64})
    small = recipe.model_copy(update={"data": recipe.data.model_copy(update={"phantom": few})})
    films = gather_films(small, Workshop(tmp_path)).dataset
    assert recipe.pretrain is not None
    nih = films.targets(recipe.pretrain.heads[0])
    labels = films.targets(recipe.heads[0])
    assert (nih[:, 7] == (labels == 2)).all()  # Pneumonia is true of a drawn film
    assert (nih[:, 0] == (nih[:, 1:] == 0).all(1)).all()


@pytest.mark.shared_data
def test_every_recipe_fits_the_real_films(shared_films: Path) -> None:
    dataset = load_dataset(shared_films)
    for name in NAMES:
        recipe = load_recipe(SYSTEMS / f"{name}.yaml", data=shared_films)
        check_completeness(dataset, recipe)
        for item in (*recipe.heads, *(recipe.pretrain.heads if recipe.pretrain else ())):
            assert len(dataset.targets(item)) == 1729

"""A whole build on drawn films: every kind of stage once, and what is cached when the recipe changes."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.bundle import Bundle  # noqa: E402
from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.bench import Bench  # noqa: E402
from edgecxr.export.card import write_card  # noqa: E402
from edgecxr.export.films import gather_films  # noqa: E402
from edgecxr.export.finetuning import RANGES  # noqa: E402
from edgecxr.export.libraries import versions  # noqa: E402
from edgecxr.export.pipeline import Build, Built  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402
from edgecxr.export.stages import DONE, Workshop  # noqa: E402
from edgecxr.phantom import chest  # noqa: E402
from edgecxr.runtimes.screener import Screener  # noqa: E402
from edgecxr.teachers.progress import Silent  # noqa: E402

RECIPE = """\
name: tiny
version: "1"
seed: 3
data:
  phantom: {films_per_finding: 40, size: 64}
  folds: {train: [0, 1, 2], validate: [3], test: [4]}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid, pneumonia], reference: normal}
    column: label
preprocess: {size: 32}
training: {epochs: 1, batch: 16, average: 0, autocast: "off"}
pretrain:
  heads:
    - head: {name: warmup, kind: softmax, classes: [covid, pneumonia, normal]}
      column: label
  training: {epochs: 1, batch: 16, average: 0, autocast: "off"}
teachers:
  - {name: trained, architecture: resnet10t}
  - {name: own, kind: factory, factory: "own:network", size: 32, classes: [pneumonia, _, normal, covid]}
student:
  architecture: resnet10t
  distillation: {epochs: 10, batch: 16, learning_rate: 0.003, average: 0, autocast: "off"}
quantize:
  methods: [minmax]
  calibration_films: 16
  qat: never
  qat_training: {epochs: 1, batch: 16, average: 0, learning_rate: 0.00001, autocast: "off"}
gate: &wide
  {auroc: 0.9, sensitivity: 0.99, specificity: 0.99, flip_rate: 0.99, ece: 0.9, cam_correlation: 0.01,
   cam_pointing: 0.01, refusal_flips: 0.99, minimum_films: 2, accept_inconclusive: true}
student_gate: *wide
operating_points: [{name: screening, sensitivity: 0.9}, {name: balanced, youden: true}]
golden: {frames: 3, size: 64}
card: {intended_use: tests, limits: all, data: drawn films}
"""
OWN = """\
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(16, 4))
"""


def build(folder: Path, text: str) -> tuple[Built, list[str]]:
    """Build `text` in `folder`, where earlier builds left their stages; also what was told."""
    path = folder / "tiny.yaml"
    path.write_text(text)
    told: list[str] = []
    return Build(load_recipe(path), path, folder / "work", tell=told.append, silent=True).run(), told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    (folder / "own.py").write_text(OWN)
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> tuple[Built, list[str]]:
    return build(folder, RECIPE)


def test_a_build_ends_in_a_bundle_that_screens(first: tuple[Built, list[str]]) -> None:
    built, _ = first
    bundle = Bundle.open(built.path)
    assert bundle.precisions == ("fp16", "int8")
    assert {(point.precision, point.engine) for point in bundle.spec.operating_points} == {
        (precision, engine) for precision in ("fp16", "int8") for engine in ("openvino-cpu", "onnxruntime-cpu")
    }
    with Screener(bundle) as screener:
        assert screener.screen(chest(5, "covid", 64)).precision == "int8"


def test_stages_run_in_order_each_once(first: tuple[Built, list[str]]) -> None:
    names = [outcome.name for outcome in first[0].stages if not outcome.name.startswith("films-")]
    assert names == [
        "data",
        "pretrain-trained",
        "teacher-trained",
        "teacher-own",
        "fuse",
        "curves",
        "pretrain-student-resnet10t",
        "distill-resnet10t",
        "onnx-resnet10t",
        "student",
        "misfits",
        "scores-fp32",
        "maps",
        "fp16",
        "scores-fp16",
        "int8",
        "scores-int8",
    ]
    assert all(outcome.how == "ran" for outcome in first[0].stages)


def test_the_bundle_says_where_it_comes_from(first: tuple[Built, list[str]]) -> None:
    bundle = Bundle.open(first[0].path)
    origin = bundle.manifest.provenance
    assert origin["recipe_text"] == RECIPE
    assert origin["data"] == "phantoms"
    assert origin["student"] == "resnet10t"
    assert origin["libraries"] == versions()
    assert origin["made_with"] == {}
    assert sum(origin["films"].values()) == 120
    assert "Research software" in bundle.card()
    assert not re.search(r"(?<![.\d])120(?!\d)", bundle.card())  # the films of the build; 0.120 may be a limit


def test_the_evaluation_has_every_model_on_every_engine(first: tuple[Built, list[str]]) -> None:
    told = Bundle.open(first[0].path).evaluation()
    names = [model["name"] for model in told["models"]]
    engines = ("openvino-cpu", "onnxruntime-cpu")
    students = [f"student {precision} {engine}" for precision in ("fp32", "fp16", "int8") for engine in engines]
    assert names == ["ensemble fp32 pytorch", *students]
    assert [row["precision"] for row in told["agreement"]] == ["fp32", "fp16", "int8"]
    assert told["agreement"][0]["largest_difference"] < 1e-4
    assert len(told["gate"]) == 5
    judged = {name for report in told["gate"] for row in report["rows"] for name in row["point"].split(" and ")}
    assert judged - {""} == {"screening", "balanced"}
    assert all([point["name"] for point in row["points"]] == ["screening", "balanced"] for row in told["agreement"])
    possible = {"built"} if find_spec("tensorrt_rtx") else {"built", "absent"}  # TensorRT itself wants a GPU
    assert {row["tensorrt"]["outcome"] for row in told["precisions"]} <= possible


def test_a_change_runs_what_depends_on_it_and_nothing_else(folder: Path, first: tuple[Built, list[str]]) -> None:
    built, told = build(folder, RECIPE.replace("qat: never", "qat: always"))
    ran = [outcome.name for outcome in built.stages if outcome.how == "ran"]
    assert ran == ["int8-qat", "scores-int8-qat"]
    assert "teacher-trained: cached" in told
    assert Bundle.open(built.path).evaluation()["precisions"][1]["method"] == "qat"


def test_what_failed_and_what_was_trained_for_it_are_told_apart(folder: Path, first: tuple[Built, list[str]]) -> None:
    before = Bundle.open(build(folder, RECIPE)[0].path)
    failed, trained = (
        before.evaluation(),
        Bundle.open(build(folder, RECIPE.replace("qat: never", "qat: always"))[0].path),
    )
    told = trained.evaluation()
    assert [row["name"] for row in told["agreement"]] == ["fp32", "fp16", "int8-qat"]
    assert told["gate"][-1]["comparison"].startswith("student int8-qat onnxruntime-cpu against student fp32")
    both = {key: [*failed[key], *told[key][-2:]] for key in ("models", "gate")}
    both["precisions"] = [{**failed["precisions"][-1], "packed": False}, told["precisions"][-1]]
    workshop = Workshop(folder / "work" / "tiny")
    recipe = load_recipe(folder / "tiny.yaml")
    bench = Bench(recipe, workshop, gather_films(recipe, workshop), folder, lambda _: nullcontext(Silent()))
    card = write_card(bench, before.manifest.provenance, both)
    points = card.partition("At the threshold of each")[2].partition("## The gate")[0]
    models = re.findall(r"^\| (student \S+)", points, re.MULTILINE)
    assert set(models) == {"student int8-qat"}
    lines = [line for line in card.partition("## The gate")[2].splitlines() if line.startswith("- ")]
    assert len({line.partition(":")[0] for line in lines}) == len(lines) == 7


def test_training_between_integers_depends_on_the_films_that_it_is_calibrated_on(
    folder: Path, first: tuple[Built, list[str]]
) -> None:
    text = RECIPE.replace("qat: never", "qat: always")
    before = build(folder, text)[0]
    more = build(folder, text.replace("calibration_films: 16", "calibration_films: 20"))[0]
    assert [outcome.name for outcome in more.stages if outcome.how == "ran"] == ["int8-qat", "scores-int8-qat"]
    old, new = (
        next(outcome.folder for outcome in built.stages if outcome.name == "int8-qat") for built in (before, more)
    )
    ranges = (old / RANGES).read_text()
    assert ranges != (new / RANGES).read_text()
    # killed after its first epoch; what calibration observes by now, on a new version or more threads, is not the same
    old.rename(new.with_name(f"{new.name}.partial"))
    (new.with_name(f"{new.name}.partial") / DONE).unlink()
    shutil.rmtree(new)
    again = build(folder, text.replace("calibration_films: 16", "calibration_films: 20"))[0]
    assert [outcome.name for outcome in again.stages if outcome.how == "resumed"] == ["int8-qat"]
    assert (new / RANGES).read_text() == ranges


def test_the_same_recipe_gives_the_same_bytes(folder: Path, first: tuple[Built, list[str]]) -> None:
    before = Bundle.open(build(folder, RECIPE)[0].path).digest
    again, told = build(folder, RECIPE)
    assert Bundle.open(again.path).digest == before
    assert all(line.endswith("cached") for line in told if not line.startswith(("gate", "films: ")))


@pytest.mark.usefixtures("first")
def test_a_link_to_where_the_bundle_goes_stays(folder: Path) -> None:
    (folder / "link.cxr").symlink_to("real.cxr")
    recipe = folder / "tiny.yaml"
    for _ in range(2):
        Build(load_recipe(recipe), recipe, folder / "work", tell=str, silent=True).run(folder / "link.cxr")
        assert (folder / "link.cxr").is_symlink()
        assert Bundle.open(folder / "real.cxr").precisions == ("fp16", "int8")


def test_a_stage_of_older_libraries_is_told_of_or_made_anew(folder: Path, first: tuple[Built, list[str]]) -> None:
    """Weights stay, and the provenance says what they were made with; what was measured is keyed by its engines."""
    stages = {outcome.name: outcome.folder for outcome in build(folder, RECIPE)[0].stages}
    for name, libraries in (("fuse", {**versions(), "torch": "2.0"}), ("teacher-trained", {})):
        done = json.loads((stages[name] / DONE).read_text())
        (stages[name] / DONE).write_text(json.dumps({**done, "libraries": libraries}))
    built, _ = build(folder, RECIPE)
    assert {outcome.how for outcome in built.stages} == {"cached"}
    told = Bundle.open(built.path).manifest.provenance
    assert told["made_with"] == {"fuse": {"torch": "2.0"}, "teacher-trained": "not recorded"}
    for name, library in (("int8", "onnxruntime"), ("scores-int8", "openvino"), ("fp16", "onnxconverter-common")):
        inputs = json.loads((stages[name] / DONE).read_text())["inputs"]["inputs"]
        assert inputs["libraries"][library] == versions(library)[library]


def test_a_student_that_fell_behind_is_not_packed(folder: Path, first: tuple[Built, list[str]]) -> None:
    strict = RECIPE.replace(
        "student_gate: *wide", "student_gate: {auroc: 0.001, accept_inconclusive: false, minimum_films: 2}"
    )
    with pytest.raises(StageError, match=r"the student fell behind the ensemble: .*; distill it longer"):
        build(folder, strict)


def test_a_disk_without_room_for_the_bundle_is_one_sentence(folder: Path, first: tuple[Built, list[str]]) -> None:
    (folder / "tiny.yaml").write_text(RECIPE)
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from edgecxr.errors import StageError
        from edgecxr.export.pipeline import Build
        from edgecxr.export.recipe import load_recipe

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        path = Path(sys.argv[1])
        try:
            Build(load_recipe(path), path, path.parent / "work", tell=lambda line: None).run(path.parent / "x.cxr")
        except StageError as error:
            print(error)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(folder / "tiny.yaml")]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == f"{folder / 'x.cxr'}: cannot be written: File too large; make room, and build again\n"
    assert not list(folder.glob("*x.cxr*"))


def test_the_result_is_plain_json(first: tuple[Built, list[str]]) -> None:
    told = json.loads(json.dumps(first[0].to_json()))
    assert [item["name"] for item in told["candidates"]] == ["fp16", "int8"]
    assert "reproduces the golden set" in first[0].summary()

"""An ensemble's maps are its members', fused as their logits are, and the student's are held against them."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

from edgecxr.bundle import Bundle  # noqa: E402
from edgecxr.export.ensemble_maps import ensemble_maps  # noqa: E402
from edgecxr.export.pipeline import Build, Built  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402
from edgecxr.spec import Head, PreprocessSpec  # noqa: E402
from edgecxr.teachers.architecture import build  # noqa: E402
from edgecxr.teachers.ensemble import Ensemble, Fusion, HeadFusion  # noqa: E402
from edgecxr.teachers.teacher import MemberRecord, MemberTeacher  # noqa: E402

HEAD = Head(name="diagnosis", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal")
RECIPE = """\
name: mapped
version: "1"
data: {phantom: {films_per_finding: 40, size: 96}, folds: {train: [0, 1, 2], validate: [3], test: [4]}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid, pneumonia], reference: normal}
    column: label
preprocess: {size: 96}
training: {epochs: 1, batch: 16, average: 0, autocast: "off"}
teachers:
  - {name: finer, architecture: resnet10t, preprocess: {size: 128}, zooms: [1.0, 1.2]}
  - {name: coarser, architecture: test_resnet, preprocess: {size: 64}}
student:
  architecture: resnet10t
  distillation: {epochs: 2, batch: 16, average: 0, autocast: "off"}
quantize: {precisions: [fp16]}
gate: {auroc: 0.9, sensitivity: 0.99, specificity: 0.99, flip_rate: 0.99, ece: 0.9, minimum_films: 2,
  refusal_flips: 0.99, cam_correlation: 0.01, cam_pointing: 0.01, accept_inconclusive: true}
student_gate: {auroc: 0.9, sensitivity: 0.99, specificity: 0.99, flip_rate: 0.99, ece: 0.9, minimum_films: 2,
  accept_inconclusive: true}
golden: {frames: 3, size: 96}
card: {intended_use: tests, limits: all, data: drawn films}
"""


def member(name: str, architecture: str, spec: PreprocessSpec) -> MemberTeacher:
    """An untrained teacher."""
    torch.manual_seed(len(name))
    record = MemberRecord(name=name, architecture=architecture, heads=(HEAD,), preprocess=spec)
    return MemberTeacher(record, build(architecture, 3, size=spec.size), device="cpu")


def ensemble(*members: MemberTeacher) -> Ensemble:
    """All with one weight, at temperatures of their own."""
    count = len(members)
    part = HeadFusion(
        head=HEAD, weights=(1 / count,) * count, temperatures=tuple(1.0 + i for i in range(count)), temperature=1.5
    )
    return Ensemble(members, Fusion(members=tuple(one.name for one in members), heads=(part,)))


def films(spec: PreprocessSpec) -> NDArray[np.float32]:
    """The same four pictures at the side of `spec`."""
    return np.random.default_rng(spec.size).random((4, 1, spec.size, spec.size), dtype=np.float32)


def test_means_of_the_fused_maps_are_the_fused_logits() -> None:
    two = ensemble(
        member("small", "test_resnet", PreprocessSpec(size=64)), member("large", "resnet10t", PreprocessSpec(size=128))
    )
    maps = ensemble_maps(two, PreprocessSpec(size=32))
    assert maps is not None
    found = maps(films)
    assert found.shape == (4, 3, 4, 4)
    np.testing.assert_allclose(found.mean((2, 3)), two.logits(films), rtol=1e-3, atol=1e-4)
    assert float(found.mean(1).abs().max()) < 1e-4  # centred over the classes


def test_members_without_maps_or_on_whose_input_films_lie_otherwise_have_no_part() -> None:
    flat = member("flat", "test_vit", PreprocessSpec(size=160))
    stretched = member("stretched", "test_resnet", PreprocessSpec(size=64, aspect="stretch"))
    mapped = member("mapped", "test_resnet", PreprocessSpec(size=64))
    assert ensemble_maps(ensemble(flat, stretched), PreprocessSpec(size=64)) is None
    maps = ensemble_maps(ensemble(flat, stretched, mapped), PreprocessSpec(size=64))
    assert maps is not None
    assert maps.shares == pytest.approx((1 / 3,))
    assert [one is not None for one in maps.maps] == [False, False, True]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("mapped")
    path = folder / "mapped.yaml"
    path.write_text(RECIPE)
    return Build(load_recipe(path), path, folder / "work", tell=lambda _: None, silent=True).run()


def test_the_gate_holds_the_maps_of_the_student_against_those_of_the_ensemble(built: Built) -> None:
    report = Bundle.open(built.path).evaluation()["gate"][0]
    assert report["comparison"] == "student fp32 openvino-cpu against ensemble fp32 pytorch"
    rows = {(row["metric"], row["finding"]): row for row in report["rows"]}
    stages = {stage.name: stage.folder for stage in built.stages}
    maps = torch.from_numpy(np.load(stages["maps"] / "maps.npy"))
    theirs = torch.nn.functional.interpolate(maps, (3, 3), mode="bilinear", antialias=True).numpy()
    with np.load(stages["scores-fp32"] / "openvino-cpu.test.npz") as stored:
        ours = stored["cam"] - stored["cam"].mean(axis=1, keepdims=True)
    for column, finding in enumerate(HEAD.classes[1:], start=1):
        pairs = zip(theirs[:, column], ours[:, column], strict=True)
        expected = sorted(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs)
        row = rows["cam_correlation", finding]
        middle = len(expected) // 2  # of an even number the gate takes the lower one
        assert row["candidate"] == pytest.approx(expected[middle - (len(expected) % 2 == 0)], abs=1e-5)
        assert (row["films"], row["verdict"], row["margin"]) == (len(ours), "told", None)
        assert (rows["cam_pointing", finding]["films"], rows["cam_pointing", finding]["verdict"]) == (len(ours), "told")
    json.dumps(report, allow_nan=False)


def test_without_margins_of_its_own_a_student_has_those_of_the_precisions_but_for_the_maps(tmp_path: Path) -> None:
    path = tmp_path / "mapped.yaml"
    lines = RECIPE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("student_gate"))
    path.write_text("\n".join(lines[:start] + lines[start + 2 :]))
    margins = load_recipe(path).student_margins
    assert margins.auroc == 0.9
    assert (margins.cam_correlation, margins.cam_pointing) == (None, None)

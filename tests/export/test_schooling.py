"""What a network takes over from `pretrain`: all but its classifier, whose outputs stand for other classes there."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

from edgecxr.export.bench import Bench  # noqa: E402
from edgecxr.export.films import gather_films  # noqa: E402
from edgecxr.export.fusion import fuse_members  # noqa: E402
from edgecxr.export.recipe import load_recipe  # noqa: E402
from edgecxr.export.schooling import record_of  # noqa: E402
from edgecxr.export.stages import Workshop  # noqa: E402
from edgecxr.export.students import choose_student  # noqa: E402
from edgecxr.teachers.progress import Silent  # noqa: E402
from edgecxr.teachers.teacher import open_member  # noqa: E402
from edgecxr.teachers.weights import read_weights  # noqa: E402

RECIPE = """\
name: still
version: "1"
data: {phantom: {films_per_finding: 40, size: 64}, folds: {train: [0, 1], validate: [3], test: [4]}}
heads:
  - head: {name: diagnosis, kind: softmax, classes: [normal, covid, pneumonia], reference: normal}
    column: label
preprocess: {size: 32}
training: &still {epochs: 1, batch: 16, average: 0, autocast: "off", learning_rate: 1.0e-9}
pretrain:
  heads:
    - head: {name: earlier, kind: softmax, classes: [pneumonia, normal, covid]}
      column: label
  folds: [1, 2]
  training: *still
teachers:
  - {name: plain, architecture: test_resnet}
  - {name: keeping, architecture: test_resnet, pretrain: plain, keep: {covid: covid}}
student: {architecture: test_resnet, distillation: *still}
card: {intended_use: tests, limits: all, data: drawn films}
"""  # as many classes before as after, in another order, and steps so small that a network ends as it began


def test_of_as_many_outputs_none_is_taken_over_by_its_position(tmp_path: Path) -> None:
    path = tmp_path / "still.yaml"
    path.write_text(RECIPE)
    plan, workshop = load_recipe(path), Workshop(tmp_path / "work")
    bench = Bench(plan, workshop, gather_films(plan, workshop), tmp_path, lambda _: nullcontext(Silent()))
    choose_student(bench, fuse_members(bench))

    def weights(stage: str, name: str) -> dict[str, Any]:
        return read_weights(workshop.outcomes[stage].folder / name, ())

    earlier = weights("pretrain-plain", "weights.safetensors")
    for stage, kept in (("teacher-plain", {}), ("teacher-keeping", {1: 2})):
        network = weights(stage, "weights.safetensors")
        torch.testing.assert_close(network["body.conv1.0.weight"], earlier["body.conv1.0.weight"], rtol=0, atol=1e-6)
        for place in range(3):
            same = torch.isclose(network["body.fc.weight"][place], earlier["body.fc.weight"], atol=1e-6).all(1)
            assert same.tolist() == [kept.get(place) == other for other in range(3)]
    before, student = (
        weights(f"{name}-test_resnet", "student.safetensors") for name in ("pretrain-student", "distill")
    )
    torch.testing.assert_close(student["backbone.conv1.0.weight"], before["backbone.conv1.0.weight"], rtol=0, atol=1e-6)
    assert not torch.isclose(student["head.weight"], before["head.weight"], atol=1e-6).flatten(1).all(1).any()
    folder = workshop.outcomes["teacher-keeping"].folder
    assert open_member(folder).member.folds == {"train": (0, 1, 2), "validate": (3,), "test": (4,)}
    alone = plan.teachers[0].model_copy(update={"pretrain": False})
    assert record_of(bench, alone, "test_resnet").folds["train"] == (0, 1)

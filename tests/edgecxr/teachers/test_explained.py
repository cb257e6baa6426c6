"""A network laid open gives its teacher's logits, class by class, whatever range and order the teacher has."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.spec import Head
from edgecxr.teachers.architecture import build
from edgecxr.teachers.explained import lay_open
from edgecxr.teachers.foreign import CheckpointSource, load_foreign

HEAD = Head(name="diagnosis", kind="softmax", classes=("normal", "covid"), reference="normal")


def source(folder: Path, **changes: object) -> CheckpointSource:
    torch.manual_seed(0)
    body = build("resnet10t", 3, 3).body
    torch.nn.init.normal_(body.fc.weight)
    torch.save(body.state_dict(), folder / "a.pt")
    settings = {"name": "a", "kind": "checkpoint", "checkpoint": "a.pt", "architecture": "resnet10t", "channels": 3}
    settings |= {"size": 64, "low": 0, "high": 255, "mean": (120, 110, 100), "std": (60,)}
    return CheckpointSource.model_validate(settings | {"classes": ("covid", "_", "normal")} | changes)


def test_a_foreign_teacher_is_laid_open_with_its_range_and_order(tmp_path: Path) -> None:
    teacher = load_foreign(source(tmp_path), [HEAD], base=tmp_path)
    opened = lay_open(teacher)
    images = np.random.default_rng(0).random((3, 1, 64, 64), dtype=np.float32)
    with torch.no_grad():
        logits = opened.body(opened.values(images))[:, opened.columns].numpy()
    np.testing.assert_allclose(logits, teacher.logits(images), rtol=1e-4, atol=1e-4)
    low, high = opened.extremes
    assert low.flatten().tolist() == pytest.approx([-2, -110 / 60, -100 / 60])
    assert high.flatten().tolist() == pytest.approx([135 / 60, 145 / 60, 155 / 60])


def test_probabilities_have_no_logits_to_go_back_from(tmp_path: Path) -> None:
    teacher = load_foreign(source(tmp_path), [HEAD], base=tmp_path)
    teacher.source = source(tmp_path, outputs="probabilities")
    with pytest.raises(StageError, match="no logits to go back from"):
        lay_open(teacher)

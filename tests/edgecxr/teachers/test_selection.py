import numpy as np
import pytest

from edgecxr.spec import Head
from edgecxr.teachers.metrics import accuracy
from edgecxr.teachers.selection import Standing, select, standing

pytestmark = pytest.mark.train
HEADS = (
    Head(name="diagnosis", kind="softmax", classes=("normal", "covid")),
    Head(name="signs", kind="sigmoid", classes=("mass", "edema")),
)


def candidate(name, right, loss):
    return Standing(name=name, architecture=name, accuracy=right, loss=loss)


def test_accuracy_decides_then_the_loss():
    found = select([candidate("a", 0.8, 0.1), candidate("b", 0.9, 0.9), candidate("c", 0.9, 0.5)], 2)
    assert found.chosen == ("c", "b")
    assert [item.name for item in found.candidates] == ["c", "b", "a"]


def test_a_candidate_stands_by_its_labelled_validation_films():
    logits = np.array([[2, 0, 1, -1], [0, 2, 1, -1], [0, 2, -1, -1]], np.float32)
    targets = {
        "diagnosis": np.array([0, 0, -1]),
        "signs": np.array([[1, 1], [np.nan, 0], [0, np.nan]], np.float32),
    }
    found = standing("x", "resnet18", logits, targets, HEADS)
    assert found.accuracy == accuracy(logits, targets, HEADS) == pytest.approx((1 / 2 + 3 / 4) / 2)
    soft = np.log1p(np.exp(-2)) + np.log1p(np.exp(2))
    signs = 3 * np.log1p(np.exp(-1)) + np.log1p(np.exp(1))
    assert found.loss == pytest.approx((soft + signs) / 3, rel=1e-5)


def test_no_label_gives_no_accuracy():
    assert np.isnan(accuracy(np.zeros((2, 2)), {"diagnosis": np.array([-1, -1])}, HEADS[:1]))

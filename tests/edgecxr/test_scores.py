import numpy as np
import pytest

from edgecxr.errors import EngineError, StatisticsError
from edgecxr.scores import class_labels, columns, predicted, probabilities
from edgecxr.spec import Head

CHEST = Head(name="chest", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal")
SIGNS = Head(name="signs", kind="sigmoid", classes=("effusion", "mass"))
HEADS = (CHEST, SIGNS)


def test_each_head_has_its_columns() -> None:
    assert columns(HEADS) == [slice(0, 3), slice(3, 5)]


def test_softmax_and_sigmoid_after_the_temperature() -> None:
    logits = np.array([[1.0, 2.0, 3.0, 0.0, -4.0]], np.float32)
    found = probabilities(logits, HEADS, (2.0, 4.0))
    odds = np.exp([0.5, 1.0, 1.5])
    assert found[0, :3] == pytest.approx(odds / odds.sum(), abs=1e-12)
    assert found[0, 3:] == pytest.approx([0.5, 1 / (1 + np.e)], abs=1e-12)
    assert probabilities(logits[0], HEADS, (2.0, 4.0)).tolist() == found[0].tolist()


def test_large_logits_stay_probabilities() -> None:
    found = probabilities([[1e4, -1e4, 0, 1e4, -1e4]], HEADS, (1, 1))
    assert found.tolist() == [[1, 0, 0, 1, 0]]


def test_the_most_probable_class() -> None:
    assert predicted(np.array([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]]), CHEST).tolist() == [1, 0]
    with pytest.raises(ValueError, match="'signs' is a sigmoid head"):
        predicted(np.zeros((1, 2)), SIGNS)


def test_labels_of_all_heads_side_by_side() -> None:
    targets = {"signs": [[1, np.nan], [0, 1], [np.nan, np.nan]], "chest": [2, -1, 0]}
    expected = [[0, 0, 1, 1, np.nan], [np.nan, np.nan, np.nan, 0, 1], [1, 0, 0, np.nan, np.nan]]
    assert np.array_equal(class_labels(HEADS, targets), np.array(expected), equal_nan=True)


def test_an_engine_that_failed_gives_no_probability() -> None:
    with pytest.raises(EngineError, match="2 of 5 logits are NaN or infinite: the engine failed"):
        probabilities([[np.nan, 0, 0, np.inf, 0]], HEADS, (1, 1))
    with pytest.raises(EngineError, match=r"shape \(1, 4\); the heads have 5 classes"):
        probabilities(np.zeros((1, 4)), HEADS, (1, 1))
    with pytest.raises(EngineError, match="1 temperatures for 2 heads"):
        probabilities(np.zeros((1, 5)), HEADS, (1,))


def test_targets_that_are_not_of_these_heads_are_refused() -> None:
    with pytest.raises(StatisticsError, match="no targets for head\\(s\\) signs; there are: chest"):
        class_labels(HEADS, {"chest": [0]})
    with pytest.raises(StatisticsError, match="want \\(N,\\) of -1 … 2"):
        class_labels((CHEST,), {"chest": [0, 3]})
    with pytest.raises(StatisticsError, match="want \\(N, 2\\) of 0, 1 or NaN"):
        class_labels((SIGNS,), {"signs": [[0, 2]]})

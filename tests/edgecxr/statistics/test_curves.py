"""Curves and tables against sklearn and against counting."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix

from edgecxr.errors import StatisticsError
from edgecxr.statistics.auroc import auroc
from edgecxr.statistics.calibration import ece
from edgecxr.statistics.curves import (
    average_precision,
    confusion,
    precision_recall,
    reliability,
    roc,
    thin,
    weighted_average_precision,
)

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.random(150) < 0.3
SCORES = np.round(RANDOM.random(150) + 0.4 * LABELS, 2)


def test_the_roc_curve_runs_from_corner_to_corner_over_the_area() -> None:
    x, y = roc(LABELS, SCORES)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all()
    assert np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) == pytest.approx(auroc(LABELS, SCORES), abs=1e-12)


def test_recall_rises_and_precision_ends_at_the_share_of_positives() -> None:
    recall, precision = precision_recall(LABELS, SCORES)
    assert (recall[0], precision[0], recall[-1]) == (0, 1, 1)
    assert (np.diff(recall) >= 0).all()
    assert precision[-1] == pytest.approx(LABELS.mean())


def test_average_precision_is_that_of_sklearn_also_under_weights() -> None:
    assert average_precision(LABELS, SCORES) == pytest.approx(average_precision_score(LABELS, SCORES), abs=1e-12)
    counts = np.random.default_rng(1).integers(0, 3, (4, 150)).astype(float)
    ours = weighted_average_precision(counts, LABELS, SCORES)
    theirs = [average_precision_score(LABELS, SCORES, sample_weight=row) for row in counts]
    assert ours == pytest.approx(np.array(theirs), abs=1e-12)


def test_no_positive_film_drawn_is_not_a_precision() -> None:
    assert np.isnan(weighted_average_precision((~LABELS).astype(float)[None], LABELS, SCORES)[0])


def test_thinning_keeps_the_ends() -> None:
    curve = roc(np.arange(2000) % 2 == 0, np.random.default_rng(2).random(2000))
    x, y = thin(curve, 50)
    assert len(x) == len(y) == 50
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert thin((x, y), 50) == (x, y)


def test_reliability_bins_add_up_to_the_calibration_error() -> None:
    probabilities = SCORES / 2
    bins = reliability(probabilities, LABELS)
    assert sum(bin.count for bin in bins) == 150
    assert [bin.count for bin in bins] == [10] * 15
    gaps = [bin.count * abs(bin.mean_probability - bin.observed.value) for bin in bins]
    assert sum(gaps) / 150 == pytest.approx(ece(probabilities, LABELS), abs=1e-12)


def test_rows_are_the_truth_and_columns_the_answer() -> None:
    truth, answer = RANDOM.integers(0, 3, 90), RANDOM.integers(0, 3, 90)
    assert (confusion(truth, answer, 4)[:3, :3] == confusion_matrix(truth, answer)).all()
    assert confusion([0, 0], [1, 1], 2).tolist() == [[0, 2], [0, 0]]


def test_what_has_no_curve_is_refused() -> None:
    for curve in (roc, precision_recall, average_precision):
        with pytest.raises(StatisticsError, match="2 positive and 0 negative films"):
            curve([1, 1], [0.1, 0.2])
    with pytest.raises(StatisticsError, match="pairs of 0 … 2, no -1"):
        confusion([0, -1], [0, 1], 3)
    with pytest.raises(StatisticsError, match="0 films"):
        reliability([], [])

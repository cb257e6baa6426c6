import numpy as np
import pytest

from edgecxr.errors import StatisticsError
from edgecxr.statistics.chosen import sensitivity_at, specificity_at
from edgecxr.statistics.proportion import wilson

labelled = np.array([0] * 10 + [1] * 5)
scored = np.array([*np.arange(10) / 10, 0.35, 0.75, 0.85, 0.95, 0.99])


def brute(labels, scores, specificity):
    """The best sensitivity over every threshold, one by one."""
    best = 0.0
    for threshold in [*scores, np.inf]:
        called = scores >= threshold
        if (~called[labels == 0]).mean() >= specificity - 1e-9:
            best = max(best, called[labels == 1].mean())
    return best


@pytest.mark.parametrize(("specificity", "found", "threshold"), [(0.9, 3, 0.85), (1.0, 2, 0.95), (0.3, 5, 0.3)])
def test_sensitivity_at_a_chosen_specificity(specificity, found, threshold):
    rate = sensitivity_at(labelled, scored, specificity, samples=100)
    assert rate.interval.value == found / 5
    assert (scored >= rate.threshold).sum() == (scored >= threshold).sum()
    assert rate.interval.low <= wilson(found, 5).low
    assert rate.interval.high >= wilson(found, 5).high


def test_it_is_the_best_over_all_thresholds_ties_included():
    generator = np.random.default_rng(0)
    for _ in range(40):
        labels = np.r_[0, 1, generator.integers(0, 2, 30)]
        scores = generator.integers(0, 12, 32) / 12 + labels * 0.1
        for wanted in (0.0, 0.5, 0.8, 0.9, 1.0):
            assert sensitivity_at(labels, scores, wanted, samples=20).interval.value == brute(labels, scores, wanted)


def test_specificity_is_the_mirror_and_its_threshold_calls_as_said():
    rate = specificity_at(labelled, scored, 0.8, samples=100)
    called = scored >= rate.threshold
    assert called[labelled == 1].mean() >= 0.8
    assert (~called[labelled == 0]).mean() == rate.interval.value == 0.8


def test_nothing_called_is_the_only_way_where_negatives_lead():
    rate = sensitivity_at([0, 1, 1], [0.9, 0.5, 0.4], 1.0, samples=20)
    assert (rate.interval.value, rate.threshold) == (0.0, float("inf"))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    truth = 0.6405  # of N(1.64, 1) against N(0, 1) at specificity 0.9: P(Z > 1.2816 - 1.64)
    held = 0
    for trial in range(100):
        labels = np.repeat([0, 1], 60)
        rate = sensitivity_at(labels, generator.normal(size=120) + 1.64 * labels, 0.9, samples=200, seed=trial)
        held += rate.interval.low <= truth <= rate.interval.high
    assert held >= 90


def test_a_class_that_is_absent_is_an_error():
    with pytest.raises(StatisticsError, match="0 positive and 2 negative"):
        sensitivity_at([0, 0], [0.1, 0.2], 0.9)

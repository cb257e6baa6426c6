"""AUROC against a count over all pairs, DeLong against the placements as the 1988 paper writes them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from edgecxr.errors import StatisticsError
from edgecxr.statistics.auroc import auroc, delong, delong_difference, weighted_auroc
from edgecxr.statistics.proportion import paired_difference, wilson


def psi(x: float, y: float) -> float:
    return 1.0 if y < x else 0.5 if y == x else 0.0


def pair_count(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    pairs = [psi(x, y) for x in scores[labels] for y in scores[~labels]]
    return sum(pairs) / len(pairs)


def textbook_covariance(labels: NDArray[np.bool_], *models: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, K) of the areas: S10 / m + S01 / n, every component a double loop (DeLong 1988, section 3)."""
    v10 = [[np.mean([psi(x, y) for y in s[~labels]]) for x in s[labels]] for s in models]
    v01 = [[np.mean([psi(x, y) for x in s[labels]]) for y in s[~labels]] for s in models]
    m, n = int(labels.sum()), int((~labels).sum())
    return np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n


def sample(
    seed: int, n: int = 40, digits: int = 1
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Labels and two correlated scores, rounded so that there are ties."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % 3 == 0)
    film = random.normal(size=n) + labels
    a, b = (np.round(film + random.normal(size=n), digits) for _ in range(2))
    return labels, a, b


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_the_area_counts_pairs_and_half_of_the_ties(films: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in films])
    scores = np.array([score for _, score in films], float)
    if labels.all() or not labels.any():
        return
    assert auroc(labels, scores) == pytest.approx(pair_count(labels, scores), abs=1e-12)
    assert weighted_auroc(labels.astype(float), scores, np.ones((1, len(labels))))[0] == pytest.approx(
        pair_count(labels, scores), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(5))
def test_sklearn_gives_the_same_area(seed: int) -> None:
    labels, a, _ = sample(seed, 200)
    assert auroc(labels, a) == pytest.approx(roc_auc_score(labels, a), abs=1e-12)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_difference_has_the_textbook_variance(digits: int) -> None:
    labels, a, b = sample(3, 60, digits)
    covariance = textbook_covariance(labels, a, b)
    found = delong_difference(labels, a, b)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.interval.value == pytest.approx(pair_count(labels, b) - pair_count(labels, a), abs=1e-12)
    assert found.interval.high - found.interval.value == pytest.approx(1.959964 * error, rel=1e-6)
    assert found.interval.value - found.interval.low == pytest.approx(1.959964 * error, rel=1e-6)


def test_the_interval_is_symmetric_on_the_logit_scale() -> None:
    labels, a, _ = sample(5)
    found = delong(labels, a)
    error = np.sqrt(textbook_covariance(labels, a)[0, 0]) / (found.value * (1 - found.value))
    odds = [np.log(p / (1 - p)) for p in (found.low, found.value, found.high)]
    assert odds[2] - odds[1] == pytest.approx(1.959964 * error, rel=1e-6)
    assert odds[1] - odds[0] == pytest.approx(1.959964 * error, rel=1e-6)


def test_a_monotone_change_of_scores_changes_nothing() -> None:
    labels, a, b = sample(6)
    assert delong(labels, np.exp(a)) == delong(labels, a)
    same = delong_difference(labels, a, np.exp(a))
    assert (same.interval.value, same.interval.low, same.interval.high, same.p_value) == (0, 0, 0, 1)
    assert delong_difference(labels, b, a).interval.value == -delong_difference(labels, a, b).interval.value


def test_perfect_separation_still_has_an_interval() -> None:
    labels = np.arange(30) >= 20
    assert delong(labels, np.arange(30.0)) == wilson(10, 10)
    assert delong(labels, -np.arange(30.0)) == wilson(0, 10)


def test_two_models_without_an_error_are_not_shown_to_be_equal_by_few_films() -> None:
    labels = np.arange(20) < 10
    found = delong_difference(labels, labels * 2.0 + np.arange(20) / 100, labels * 3.0)
    unchanged = paired_difference(np.ones(10), np.ones(10))
    assert (found.interval.value, found.p_value) == (0, 1)
    assert (found.interval.low, found.interval.high) == pytest.approx((unchanged.low, unchanged.high))
    assert found.interval.low < -0.2


def test_two_models_that_rank_every_film_alike_are_equal_also_without_an_error() -> None:
    scores = np.arange(20)
    found = delong_difference(scores >= 10, scores, scores**3)
    assert (found.interval.value, found.interval.low, found.interval.high, found.p_value) == (0, 0, 0, 1)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    """Binormal scores one standard deviation apart: AUROC = Phi(1 / sqrt 2) = 0.7602."""
    random = np.random.default_rng(0)
    labels = np.arange(100) < 30
    held = held_difference = 0
    for _ in range(600):
        film = random.normal(size=100)
        a, b = (labels + (film + random.normal(size=100)) / np.sqrt(2) for _ in range(2))
        single = delong(labels, a)
        held += single.low <= 0.76025 <= single.high
        difference = delong_difference(labels, a, b).interval
        held_difference += difference.low <= 0 <= difference.high
    assert 0.92 < held / 600 < 0.98
    assert 0.92 < held_difference / 600 < 0.98


def test_weights_are_repeated_films() -> None:
    labels, a, _ = sample(7)
    counts = np.random.default_rng(1).integers(0, 4, (3, len(a)))
    for row, area in zip(counts, weighted_auroc(labels.astype(float), a, counts.astype(float)), strict=True):
        assert area == pytest.approx(auroc(np.repeat(labels, row), np.repeat(a, row)), abs=1e-12)


def test_unknown_labels_and_absent_classes_under_weights() -> None:
    labels = np.array([1, np.nan, 0, 1.0])
    areas = weighted_auroc(labels, np.array([0.9, 5.0, 0.1, 0.05]), np.array([[1.0, 1, 1, 1], [1, 1, 0, 1]]))
    assert areas[0] == 0.5
    assert np.isnan(areas[1])


def test_what_cannot_be_computed_says_how_many_films_there_are() -> None:
    with pytest.raises(StatisticsError, match="0 positive and 3 negative films: at least 1 of each"):
        auroc([0, 0, 0], [1, 2, 3])
    with pytest.raises(StatisticsError, match="1 positive and 2 negative films: at least 2 of each"):
        delong([0, 0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
        auroc([0, 1, 1], [1, np.nan, 3])
    with pytest.raises(StatisticsError, match="not all 0 or 1"):
        auroc([0, 1, -1], [1, 2, 3])
    with pytest.raises(StatisticsError, match=r"shape \(2,\), but there are 3"):
        auroc([0, 1, 1], [1, 2])

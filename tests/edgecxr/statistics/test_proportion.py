"""Intervals of proportions against published figures, roots found separately, and simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from edgecxr.errors import StatisticsError
from edgecxr.statistics.proportion import films_needed, paired_difference, sensitivity, specificity, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (3, 20), (20, 20), (81, 263), (1, 1)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    ours, theirs = wilson(successes, n), binomtest(successes, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_of_newcombe_1998() -> None:
    """Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3: 81/263 and 0/20."""
    assert (round(wilson(81, 263).low, 4), round(wilson(81, 263).high, 4)) == (0.2553, 0.3662)
    assert (round(wilson(0, 20).low, 4), round(wilson(0, 20).high, 4)) == (0.0, 0.1611)


def tango_statistic(n: int, b: int, c: int, delta: float) -> float:
    """Tango's score, the restricted maximum likelihood found by a search over the share of lost films."""
    grid = np.linspace(max(0, -delta), (1 - delta) / 2, 400_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = n - b - c
        terms = [
            count * np.log(share)
            for count, share in ((b, grid + delta), (c, grid), (kept, 1 - 2 * grid - delta))
            if count
        ]
        share = grid[np.nanargmax(sum(terms))]
    return float((b - c - n * delta) / np.sqrt(n * (2 * share + delta - delta**2)))


@pytest.mark.parametrize(("n", "b", "c"), [(54, 12, 9), (44, 1, 10), (36, 8, 1), (25, 0, 3)])
def test_tango_limits_are_where_the_score_is_1_96(n: int, b: int, c: int) -> None:
    first = np.zeros(n, bool)
    second = np.zeros(n, bool)
    second[:b] = True
    first[b : b + c] = True
    found = paired_difference(first, second)
    assert found.value == pytest.approx((b - c) / n)
    assert tango_statistic(n, b, c, found.low) == pytest.approx(1.959964, abs=2e-3)
    assert tango_statistic(n, b, c, found.high) == pytest.approx(-1.959964, abs=2e-3)


def test_unchanged_films_show_only_so_much() -> None:
    z = 1.959964
    for n in (5, 25, 400):
        found = paired_difference(np.ones(n, bool), np.ones(n, bool))
        assert (found.low, found.high) == pytest.approx((-(z**2) / (n + z**2), z**2 / (n + z**2)), abs=1e-6)
    needed = films_needed(0.02)
    assert needed == 189
    assert paired_difference(np.ones(needed, bool), np.ones(needed, bool)).low >= -0.02
    assert paired_difference(np.ones(needed - 1, bool), np.ones(needed - 1, bool)).low < -0.02


def test_total_change_reaches_the_ends() -> None:
    lost = paired_difference(np.ones(8, bool), np.zeros(8, bool))
    assert (lost.value, lost.low) == (-1, -1)
    assert lost.high == pytest.approx(-(8 - 1.959964**2) / (8 + 1.959964**2), abs=1e-6)
    gained = paired_difference(np.zeros(8, bool), np.ones(8, bool))
    assert (gained.value, gained.high) == (1, 1)
    assert gained.low == pytest.approx(-lost.high, abs=1e-6)


def test_tango_holds_the_truth_where_the_bootstrap_does_not() -> None:
    """25 films, one in 25 lost on average: the percentile bootstrap is [0, 0] whenever none is."""
    random = np.random.default_rng(2)
    held = 0
    for _ in range(500):
        first = random.random(25) < 0.9
        second = first & (random.random(25) > 0.04)
        found = paired_difference(first, second)
        held += found.low <= -0.036 <= found.high
    assert held / 500 > 0.93


def test_sensitivity_and_specificity_count_the_threshold_itself_as_positive() -> None:
    labels, scores = [1, 1, 1, 0, 0, 0, 0], [0.5, 0.4, 0.9, 0.5, 0.1, 0.2, 0.3]
    assert sensitivity(labels, scores, 0.5) == wilson(2, 3)
    assert specificity(labels, scores, 0.5) == wilson(3, 4)


def test_what_is_not_a_proportion_is_refused() -> None:
    with pytest.raises(StatisticsError, match="3 of 2 films"):
        wilson(3, 2)
    with pytest.raises(StatisticsError, match="0 of 0 films"):
        wilson(0, 0)
    with pytest.raises(StatisticsError, match="sensitivity needs positive films: 0 of 2"):
        sensitivity([0, 0], [0.1, 0.2], 0.5)
    with pytest.raises(StatisticsError, match="specificity needs negative films: 0 of 2"):
        specificity([1, 1], [0.1, 0.2], 0.5)
    with pytest.raises(StatisticsError, match="paired samples of 1 and 2 films"):
        paired_difference([1], [1, 0])

"""The bootstrap against resampling film by film, and its coverage."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecxr.errors import StatisticsError
from edgecxr.statistics.bootstrap import paired_bootstrap, weighted_mean, weighted_median


def test_the_interval_is_that_of_films_drawn_one_by_one() -> None:
    random = np.random.default_rng(0)
    values = random.exponential(size=80)
    means = [values[random.integers(80, size=80)].mean() for _ in range(20_000)]
    found = paired_bootstrap(weighted_mean, values, samples=20_000)
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.01)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert paired_bootstrap(weighted_mean, values, seed=4) == paired_bootstrap(weighted_mean, values, seed=4)
    assert paired_bootstrap(weighted_mean, values, seed=4) != paired_bootstrap(weighted_mean, values, seed=5)


def test_every_resample_keeps_the_size_of_each_stratum() -> None:
    strata = np.array(["covid"] * 7 + ["normal"] * 20 + ["pneumonia"] * 3)
    seen: list[NDArray[np.float64]] = []

    def keep(weights: NDArray[np.float64], films: NDArray[np.float64]) -> NDArray[np.float64]:
        seen.append(weights)
        return weights @ films

    paired_bootstrap(keep, np.ones(30), strata=strata, samples=100)
    for weights in seen:
        for name, size in (("covid", 7), ("normal", 20), ("pneumonia", 3)):
            assert (weights[:, strata == name].sum(axis=1) == size).all()


def test_what_belongs_to_one_film_is_drawn_together() -> None:
    a = np.random.default_rng(2).normal(size=40)

    def gap(weights: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return weighted_mean(weights, y) - weighted_mean(weights, x)

    found = paired_bootstrap(gap, a, a + 1)
    assert (found.low, found.high) == pytest.approx((1, 1), abs=1e-9)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=50)
    whole = paired_bootstrap(weighted_mean, values, samples=501)
    monkeypatch.setattr("edgecxr.statistics.bootstrap.CHUNK", 50 * 7)
    assert paired_bootstrap(weighted_mean, values, samples=501) == whole


def test_the_basic_interval_is_the_percentile_one_turned_over() -> None:
    values = np.random.default_rng(4).exponential(size=60)
    straight, turned = paired_bootstrap(weighted_mean, values), paired_bootstrap(weighted_mean, values, kind="basic")
    assert turned.low == pytest.approx(2 * straight.value - straight.high)
    assert turned.high == pytest.approx(2 * straight.value - straight.low)


def test_ninety_five_of_a_hundred_intervals_hold_the_mean() -> None:
    random = np.random.default_rng(5)
    intervals = [paired_bootstrap(weighted_mean, random.normal(size=60), samples=400) for _ in range(300)]
    assert 0.90 < np.mean([found.low <= 0 <= found.high for found in intervals]) < 0.98


def test_the_median_of_counted_films() -> None:
    values = np.array([3.0, 1.0, 2.0, 10.0])
    assert weighted_median(np.array([[1.0, 1, 1, 0], [0, 5, 1, 1], [1, 1, 1, 1]]), values).tolist() == [2, 1, 2]


def test_a_statistic_that_most_resamples_lack_is_refused() -> None:
    def rare(weights: NDArray[np.float64], films: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(weights[:, 0] > 0, weights @ films, np.nan)

    with pytest.raises(StatisticsError, match=r"too few films: \d+ of 500 resamples of 20 lack a class"):
        paired_bootstrap(rare, np.ones(20), samples=500)
    with pytest.raises(StatisticsError, match=r"have \[2, 3\] films"):
        paired_bootstrap(weighted_mean, np.ones(2), np.ones(3))

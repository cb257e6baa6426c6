"""Temperature, calibration error and Brier score on samples whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from sklearn.metrics import brier_score_loss

from edgecxr.errors import StatisticsError
from edgecxr.statistics.calibration import brier, ece, ece_change, ece_interval, fit_temperature, weighted_ece


def drawn(probabilities: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """One class per row, drawn with that row's probabilities."""
    uniform = np.random.default_rng(seed).random((len(probabilities), 1))
    return (uniform > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_softmax_temperature_is_found_again(true: float) -> None:
    logits = np.random.default_rng(0).normal(size=(8000, 3)) * 2
    targets = drawn(softmax(logits, axis=1), 1)
    targets[::10] = -1
    assert fit_temperature(logits * true, targets, "softmax") == pytest.approx(true, rel=0.06)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_sigmoid_temperature_is_found_again_past_unknown_labels(true: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 4)) * 2
    targets = (random.random(logits.shape) < expit(logits)).astype(np.float32)
    targets[random.random(logits.shape) < 0.3] = np.nan
    assert fit_temperature(logits * true, targets, "sigmoid") == pytest.approx(true, rel=0.06)


def test_the_temperature_has_the_smallest_loss_of_a_grid() -> None:
    random = np.random.default_rng(2)
    logits, targets = random.normal(size=(60, 3)) * 4, random.integers(0, 3, 60)

    def loss(temperature: float) -> float:
        chosen = softmax(logits / temperature, axis=1)[np.arange(60), targets]
        return float(-np.log(chosen).sum() + np.log(temperature) ** 2 / 2)

    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 2000))
    assert fit_temperature(logits, targets, "softmax") == pytest.approx(min(grid, key=loss), rel=5e-3)


def test_films_without_an_error_do_not_push_probabilities_to_0_and_1() -> None:
    targets = np.arange(200) % 3
    logits = np.eye(3)[targets] * 8
    temperature = fit_temperature(logits, targets, "softmax")
    assert 0.3 < temperature < 1
    assert softmax(logits / temperature, axis=1).max() < 1


def brute_ece(probabilities: NDArray[np.float64], targets: NDArray[np.bool_], bins: int) -> float:
    films = sorted(zip(probabilities, targets, strict=True), key=lambda film: film[0])
    total = 0.0
    for index in range(bins):
        part = films[index * len(films) // bins : (index + 1) * len(films) // bins]
        if part:
            total += len(part) * abs(np.mean([p for p, _ in part]) - np.mean([t for _, t in part]))
    return total / len(films)


@pytest.mark.parametrize("films", [15, 16, 100, 223])
def test_the_calibration_error_is_the_definition(films: int) -> None:
    random = np.random.default_rng(films)
    probabilities, targets = random.random(films), random.random(films) < 0.3
    assert ece(probabilities, targets) == pytest.approx(brute_ece(probabilities, targets, 15), abs=1e-12)


def test_fewer_films_than_bins_are_a_bin_each() -> None:
    assert ece([0.2, 0.9], [0, 1]) == pytest.approx(0.15)


def test_honest_probabilities_have_a_small_error_and_shifted_ones_the_shift() -> None:
    random = np.random.default_rng(3)
    probabilities = random.random(50_000) * 0.6 + 0.2
    targets = random.random(50_000) < probabilities
    assert ece(probabilities, targets) < 0.01
    assert ece(probabilities + 0.15, targets) == pytest.approx(0.15, abs=0.01)


def test_all_films_once_is_the_error_itself() -> None:
    random = np.random.default_rng(4)
    probabilities, targets = random.random(90), random.random(90) < 0.5
    assert weighted_ece(np.ones((2, 90)), probabilities, targets).tolist() == [ece(probabilities, targets)] * 2


def films(random: np.random.Generator, count: int, shift: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(logits of honest probabilities, truth); with `shift` added to the logits the probabilities are no longer so."""
    logits = random.normal(0, 2, count)
    return logits + shift, random.random(count) < expit(logits)


@pytest.mark.parametrize(("shift", "held"), [(0.0, 0.93), (0.3, 0.8), (0.8, 0.75)])
def test_the_interval_of_a_calibration_error_holds_the_error_of_the_population(shift: float, held: float) -> None:
    random = np.random.default_rng(6)
    many = random.normal(0, 2, 200_000)
    truth = np.abs(expit(many + shift) - expit(many)).mean()
    hits = 0
    for _ in range(120):
        logits, targets = films(random, 209, shift)
        found = ece_interval(expit(logits), targets, samples=200)
        assert 0 <= found.low <= found.value <= found.high
        hits += found.low <= truth <= found.high
    assert hits / 120 >= held


def test_a_calibration_error_that_chance_gives_as_well_has_an_interval_from_0() -> None:
    logits, targets = films(np.random.default_rng(7), 209, 0)
    assert ece(expit(logits), targets) > 0.03
    assert ece_interval(expit(logits), targets).low == 0
    assert ece_interval(expit(logits + 2), targets).low > 0.1


@pytest.mark.parametrize("kind", ["shift", "noise"])
@pytest.mark.parametrize("count", [209, 1000])
def test_a_real_loss_of_calibration_is_not_shown_to_be_small_by_chance(kind: str, count: int) -> None:
    """Of the population: 0.045 by a shift of the logits, 0.04 by noise that ranks the films anew."""
    random = np.random.default_rng(8)
    shown = 0
    for _ in range(100):
        honest = random.beta(1, 2, count)
        targets = random.random(count) < honest
        moved = expit(logit(honest) + 0.3) if kind == "shift" else honest + random.normal(0, 0.13, count)
        found = ece_change(honest, moved.clip(0, 1), targets, samples=100)
        assert found.low <= found.value <= found.high
        shown += found.high <= 0.03
    assert shown <= 3


def test_probabilities_that_hardly_move_cannot_lose_their_calibration() -> None:
    logits, targets = films(np.random.default_rng(9), 209, 0)
    same = ece_change(expit(logits), expit(logits), targets)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    near = ece_change(expit(logits), expit(logits + 0.02), targets)
    assert -0.01 < near.low < near.value < near.high < 0.01


def test_a_candidate_that_is_better_calibrated_is_shown_to_be_so_by_many_films() -> None:
    logits, targets = films(np.random.default_rng(10), 20_000, 0.5)
    assert ece_change(expit(logits), expit(logits - 0.5), targets, samples=200).high < 0


def test_brier_is_that_of_sklearn() -> None:
    random = np.random.default_rng(5)
    probabilities, targets = random.random(90), random.random(90) < 0.5
    assert brier(probabilities, targets) == pytest.approx(brier_score_loss(targets, probabilities), abs=1e-12)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(StatisticsError, match="0 labelled films"):
        fit_temperature(np.zeros((3, 2)), [-1, -1, -1], "softmax")
    with pytest.raises(StatisticsError, match="want one class index per film"):
        fit_temperature(np.zeros((3, 2)), [0, 1, 2], "softmax")
    with pytest.raises(StatisticsError, match="0 known labels"):
        fit_temperature(np.zeros((2, 1)), [[np.nan], [np.nan]], "sigmoid")
    with pytest.raises(StatisticsError, match="want the same shape"):
        fit_temperature(np.zeros((2, 2)), [[0.0], [1.0]], "sigmoid")
    with pytest.raises(StatisticsError, match="must be \\(N, K\\) and finite"):
        fit_temperature([[np.inf, 0]], [0], "softmax")
    with pytest.raises(StatisticsError, match="0 films"):
        ece([], [])

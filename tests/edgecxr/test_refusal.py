"""The gate on synthetic embeddings: rectified, correlated features, as a pooled ReLU layer gives them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecxr.errors import EngineError, Refusal, RefusalReason, StatisticsError
from edgecxr.refusal import EmbeddingGate

D = 96


def films(count: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    """(count, D) >= 0: twelve hidden factors, mixed and rectified, with a little noise; `shift` moves the factors."""
    mixing = np.random.default_rng(99).normal(size=(12, D))
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(count, 12)) + shift
    return np.asarray(np.maximum(0, hidden @ mixing + 1 + 0.3 * random.normal(size=(count, D))), np.float32)


TRAIN, VALIDATION = films(600, 0), films(250, 1)
GATE = EmbeddingGate.fit(TRAIN, validation=VALIDATION)


def hellinger(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sqrt(embeddings.astype(float) / embeddings.astype(float).sum(axis=1, keepdims=True))


def test_the_distance_is_mahalanobis_under_the_written_out_covariance() -> None:
    assert 1 < len(GATE.basis) < D
    along, spread = GATE.basis.astype(float), GATE.spread.astype(float)
    covariance = along.T @ np.diag(spread[:-1] ** 2) @ along + spread[-1] ** 2 * (np.eye(D) - along.T @ along)
    centred = hellinger(VALIDATION) - GATE.mean.astype(float)
    expected = np.sqrt(np.einsum("nd,de,ne->n", centred, np.linalg.inv(covariance), centred))
    assert GATE.distance(VALIDATION) == pytest.approx(expected, rel=1e-4)


def test_the_limit_is_the_conformal_quantile_of_the_validation_films_times_slack() -> None:
    """250 films at 0.995: the ceil(251 * 0.995) = 250th, the largest."""
    assert GATE.distance(VALIDATION).max() == pytest.approx(1 / 1.05, rel=1e-5)
    loose = EmbeddingGate.fit(TRAIN, validation=VALIDATION, quantile=0.9, slack=1.0)
    assert np.sort(loose.distance(VALIDATION))[225] == pytest.approx(1, rel=1e-5)  # the ceil(251 * 0.9) = 226th


@pytest.mark.parametrize("misfits", [None, films(300, 10)[:, ::-1]], ids=["one distance", "two"])
def test_about_one_new_film_in_two_hundred_is_refused_without_slack(misfits: NDArray[np.float32] | None) -> None:
    gate = EmbeddingGate.fit(TRAIN, validation=films(2000, 2), misfits=misfits, slack=1.0)
    assert 0.001 < (gate.distance(films(20_000, 3)) > 1).mean() < 0.010


@pytest.mark.parametrize(
    "other",
    [
        films(200, 4, shift=12.0),
        np.random.default_rng(5).random((200, D)) * 4,
        films(200, 6)[:, ::-1],
        np.zeros((5, D)),
        np.eye(D)[:5],
    ],
    ids=["factors moved", "noise", "features exchanged", "nothing active", "one feature alone"],
)
def test_what_is_unlike_the_training_films_is_refused(other: NDArray[np.float32]) -> None:
    assert (GATE.distance(other) > 1).mean() > 0.9


def test_misfits_that_lie_among_the_films_are_learned() -> None:
    """All factors moved by 1.5 standard deviations: inside the cloud for the first distance."""
    seen, unseen, held = films(400, 11, shift=1.5), films(400, 12, shift=1.5), films(3000, 13)
    gate = EmbeddingGate.fit(TRAIN, validation=VALIDATION, misfits=seen, variants=films(100, 14))
    assert (GATE.distance(unseen) > 1).mean() < 0.1
    assert (gate.distance(unseen) > 1).mean() > 0.9
    assert (gate.distance(held) > 1).mean() < 0.01


def test_a_refused_film_is_told_why_and_an_accepted_one_how_far_it_is() -> None:
    assert GATE.check(TRAIN[0]) == pytest.approx(GATE.distance(TRAIN[:1])[0])
    assert GATE.check(TRAIN[0] * 10) == pytest.approx(GATE.check(TRAIN[0]))  # a stronger exposure, the same film
    with pytest.raises(Refusal, match=r"not_frontal_chest: unlike the frontal .*: \d.* times as far as") as caught:
        GATE.check(TRAIN[0][::-1])
    assert caught.value.reason is RefusalReason.NOT_FRONTAL_CHEST


def test_a_stored_gate_measures_the_same(tmp_path: Path) -> None:
    gate = EmbeddingGate.fit(TRAIN, validation=VALIDATION, misfits=films(60, 15, shift=1.0))
    np.savez(tmp_path / "gate.npz", **gate.to_arrays())
    with np.load(tmp_path / "gate.npz", allow_pickle=False) as stored:
        again = EmbeddingGate.from_arrays(stored)
    assert again.distance(VALIDATION).tolist() == gate.distance(VALIDATION).tolist()


def test_a_wide_embedding_still_fits_in_a_bundle() -> None:
    wide = np.random.default_rng(8).random((600, 1280))
    arrays = EmbeddingGate.fit(wide, validation=wide[:50]).to_arrays()
    assert sum(array.nbytes for array in arrays.values()) < 600_000


def test_few_films_and_idle_features_still_make_a_gate() -> None:
    few = films(30, 9)
    few[:, :10] = 0
    gate = EmbeddingGate.fit(few, validation=few[:20])
    assert np.isfinite(gate.distance(few)).all()


def test_an_engine_that_failed_is_not_a_refused_film() -> None:
    with pytest.raises(EngineError, match="NaN or infinite"):
        GATE.check(np.full(D, np.nan))
    with pytest.raises(EngineError, match=rf"shape \(1, 7\); the refusal gate wants \(N, {D}\)"):
        GATE.check(np.zeros(7))


def test_what_makes_no_gate_is_refused() -> None:
    with pytest.raises(StatisticsError, match=r"training embeddings of shape \(5, 96\): want 20 different ones"):
        EmbeddingGate.fit(TRAIN[:5], validation=VALIDATION)
    with pytest.raises(StatisticsError, match=r"validation embeddings .* want 20 different ones"):
        EmbeddingGate.fit(TRAIN, validation=np.ones((30, D)))
    with pytest.raises(StatisticsError, match="want the same embedding size"):
        EmbeddingGate.fit(TRAIN, validation=VALIDATION[:, :50])
    with pytest.raises(StatisticsError, match="a quantile in"):
        EmbeddingGate.fit(TRAIN, validation=VALIDATION, quantile=1.0)


def test_damaged_arrays_are_refused() -> None:
    arrays = GATE.to_arrays()
    with pytest.raises(StatisticsError, match="lacks basis; it has mean, spread, weights"):
        EmbeddingGate.from_arrays({name: array for name, array in arrays.items() if name != "basis"})
    with pytest.raises(StatisticsError, match="misshapen or not finite"):
        EmbeddingGate.from_arrays({**arrays, "mean": arrays["mean"][:-1]})
    with pytest.raises(StatisticsError, match="not above zero"):
        EmbeddingGate.from_arrays({**arrays, "spread": np.zeros_like(arrays["spread"])})

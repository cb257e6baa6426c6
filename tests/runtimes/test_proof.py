"""Agreement of activation maps: a shape must match, a level earns nothing."""

import numpy as np
import pytest

from edgecxr.runtimes.proof import map_agreement

MAPS = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)
LEVELS = np.array([5.0, -3.0, 100.0], np.float32)[:, None, None]


def test_equal_maps_agree_and_negated_ones_are_opposite() -> None:
    np.testing.assert_allclose(map_agreement(MAPS, MAPS), [1, 1], atol=1e-12)
    np.testing.assert_allclose(map_agreement(MAPS, -MAPS), [-1, -1], atol=1e-12)


def test_level_and_scale_do_not_count() -> None:
    np.testing.assert_allclose(map_agreement(MAPS, 3 * MAPS + LEVELS), [1, 1], atol=1e-6)
    other = np.random.default_rng(2).normal(size=MAPS.shape).astype(np.float32)
    assert np.abs(map_agreement(MAPS + LEVELS, other + LEVELS)).max() < 0.5


def test_it_is_pearson_for_one_class() -> None:
    other = MAPS[:, :1] + 0.7 * MAPS[:, 1:2]
    wanted = [np.corrcoef(MAPS[n, 0].ravel(), other[n, 0].ravel())[0, 1] for n in range(2)]
    assert map_agreement(MAPS[:, :1], other) == pytest.approx(wanted, abs=1e-6)


def test_flat_maps_agree_with_flat_maps_only() -> None:
    flat = np.full_like(MAPS, 2.5)
    np.testing.assert_array_equal(map_agreement(flat, flat), [1, 1])
    np.testing.assert_array_equal(map_agreement(flat, MAPS), [0, 0])
    np.testing.assert_array_equal(map_agreement(MAPS, flat), [0, 0])

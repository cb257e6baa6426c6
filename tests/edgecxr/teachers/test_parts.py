"""Maps of joined networks are added up on the finest cells, and keep their means."""

import numpy as np
import pytest

pytest.importorskip("torch")

from edgecxr.teachers.parts import weighted_maps

pytestmark = pytest.mark.train


def test_a_map_alone_stays() -> None:
    one = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(weighted_maps([1.0], [one]), one)


@pytest.mark.parametrize(("coarse", "fine"), [((2, 2), (4, 4)), ((3, 2), (7, 5)), ((2, 7), (5, 3))])
def test_means_add_up_whatever_the_cells(coarse: tuple[int, int], fine: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    maps = [random.normal(size=(3, *shape)).astype(np.float32) for shape in (coarse, fine)]
    found = weighted_maps([0.25, 0.75], maps)
    assert found.shape == (3, max(coarse[0], fine[0]), max(coarse[1], fine[1]))
    wanted = 0.25 * maps[0].mean(axis=(1, 2)) + 0.75 * maps[1].mean(axis=(1, 2))
    np.testing.assert_allclose(found.mean(axis=(1, 2)), wanted, atol=1e-6)


def test_a_coarse_cell_lies_where_it_lay() -> None:
    coarse, nothing = np.float32([[[1, 2], [3, 4]]]), np.zeros((1, 4, 4), np.float32)
    np.testing.assert_allclose(weighted_maps([2.0, 1.0], [coarse, nothing])[0], 2 * np.kron(coarse[0], np.ones((2, 2))))

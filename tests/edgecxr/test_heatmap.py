"""Maps against interpolation point by point, against the score they split, and against themselves."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from edgecxr.errors import EngineError
from edgecxr.heatmap import colour_overlay, display_gray, evidence, fidelity, relevance, signed_overlay, upsample
from edgecxr.scores import probabilities
from edgecxr.spec import Box, Head, PreprocessSpec

CHEST = Head(name="chest", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal")
SIGNS = Head(name="signs", kind="sigmoid", classes=("effusion",))
RANDOM = np.random.default_rng(0)


def at(cells: NDArray[np.float64], row: float, column: float) -> float:
    """Bilinear value at (row, column) in cells, a cell's value at its centre, flat outside."""
    h, w = cells.shape
    y, x = min(max(row - 0.5, 0), h - 1), min(max(column - 0.5, 0), w - 1)
    i, j = min(math.floor(y), h - 2), min(math.floor(x), w - 2)
    a, b = y - i, x - j
    top = (1 - b) * cells[i, j] + b * cells[i, j + 1]
    return float((1 - a) * top + a * ((1 - b) * cells[i + 1, j] + b * cells[i + 1, j + 1]))


@pytest.mark.parametrize(("height", "width"), [(300, 240), (90, 200), (224, 224)])
def test_every_film_pixel_takes_the_cell_that_saw_it(height: int, width: int) -> None:
    cells = RANDOM.normal(size=(7, 6))
    box = PreprocessSpec(size=224).placement(height, width)
    found = upsample(cells, box, 224, (height, width))
    assert (found.shape, found.dtype) == ((height, width), np.float32)
    for row, column in RANDOM.integers(0, (height, width), (50, 2)):
        y = (box.top + (row + 0.5) / height * box.height) / 224 * 7
        x = (box.left + (column + 0.5) / width * box.width) / 224 * 6
        assert found[row, column] == pytest.approx(at(cells, y, x), abs=1e-5)


def test_a_lit_cell_is_lit_where_it_lies() -> None:
    cells = np.zeros((7, 7))
    cells[5, 1] = 1
    found = upsample(cells, Box(0, 0, 224, 224), 224, (224, 224))
    assert np.unravel_index(found.argmax(), found.shape) in [(y, x) for y in range(174, 178) for x in range(46, 50)]


def test_the_evidence_of_all_cells_averages_to_the_log_odds_of_the_film() -> None:
    cam = RANDOM.normal(size=(4, 5, 3)) * 4
    found = evidence(cam, (CHEST, SIGNS), (1.7, 0.6))
    film = probabilities(cam.mean(axis=(1, 2)), (CHEST, SIGNS), (1.7, 0.6))
    assert found.mean(axis=(1, 2)) == pytest.approx(logit(film), abs=1e-9)
    assert found[3] == pytest.approx(cam[3] / 0.6)


def test_what_all_classes_share_is_no_evidence() -> None:
    cam, shared = RANDOM.normal(size=(3, 5, 5)), RANDOM.normal(size=(5, 5)) * 9
    assert evidence(cam + shared, (CHEST,), (1.0,)) == pytest.approx(evidence(cam, (CHEST,), (1.0,)), abs=1e-9)


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9])
def test_a_positive_film_lights_up_and_a_negative_one_is_dim(threshold: float) -> None:
    cells = RANDOM.normal(size=(7, 7)) * 5
    positive = relevance(cells - cells.mean() + logit(threshold) + 0.5, threshold)
    negative = relevance(cells - cells.mean() + logit(threshold) - 4, threshold)
    assert positive.max() == pytest.approx(1)
    assert positive.min() == 0
    assert 0 < negative.max() <= expit(logit(threshold) - 4) / threshold + 1e-6
    assert negative.max() < 0.3


def test_weak_evidence_stays_pale() -> None:
    assert relevance(np.full((3, 3), 0.22), 0.5) == pytest.approx(0.1)


def test_the_film_is_cut_out_of_the_model_input() -> None:
    image = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    gray = display_gray(image, Box(0, 1, 8, 6), -1, 1)
    assert (gray.shape, gray.dtype) == ((8, 6), np.uint8)
    assert gray[0, 0] == round((image[0, 1] + 1) / 2 * 255)
    assert display_gray(image, Box(0, 0, 8, 8), -1, 1)[7, 7] == 255


def test_without_relevance_the_film_is_shown_as_it_is() -> None:
    gray = RANDOM.integers(0, 256, (20, 30)).astype(np.uint8)
    plain = colour_overlay(gray, np.zeros((20, 30)))
    assert (plain == gray[..., None]).all()
    lit = colour_overlay(gray, np.ones((20, 30)))
    assert (lit.shape, lit.dtype) == ((20, 30, 3), np.uint8)
    assert (lit[..., 0].astype(int) > lit[..., 2]).all()  # inferno's top is yellow


def test_a_map_is_like_itself_and_like_its_multiple() -> None:
    cam = RANDOM.normal(size=(12, 2, 7, 7))
    found = fidelity(cam, cam * 3 + 5)
    assert found.correlation == pytest.approx(1)
    assert found.pointing.all()


def test_correlation_is_that_of_numpy_and_pointing_counts_cells() -> None:
    a, b = RANDOM.normal(size=(2, 5, 3, 4, 6))
    found = fidelity(a, b)
    assert found.correlation[2, 1] == pytest.approx(np.corrcoef(a[2, 1].ravel(), b[2, 1].ravel())[0, 1])
    one, other = np.zeros((1, 1, 7, 7)), np.zeros((1, 1, 7, 7))
    one[0, 0, 2, 6], other[0, 0, 3, 5] = 1, 1
    assert fidelity(one, other).pointing.all()
    assert not fidelity(one, other, tolerance=0).pointing.any()
    wrapped = np.zeros((1, 1, 7, 7))
    wrapped[0, 0, 3, 0] = 1  # next in memory, far on the film
    assert not fidelity(one, wrapped).pointing.any()


def test_a_flat_reference_is_not_judged_and_a_candidate_that_went_flat_has_lost_its_map() -> None:
    a = RANDOM.normal(size=(3, 1, 7, 7))
    a[1, 0, 0, 0] = 9  # where the highest of equal cells is found
    b = a.copy()
    b[1] = 0.1
    found = fidelity(a, b)
    assert found.judged.all()
    assert found.correlation[:, 0] == pytest.approx([1, 0, 1])
    assert found.pointing[:, 0].tolist() == [True, False, True]
    assert fidelity(b, a).judged[:, 0].tolist() == [True, False, True]


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EngineError, match=r"shape \(2, 7, 7\): want \(3, h, w\), finite"):
        evidence(np.zeros((2, 7, 7)), (CHEST,), (1.0,))
    with pytest.raises(EngineError, match="finite"):
        evidence(np.full((3, 7, 7), np.nan), (CHEST,), (1.0,))
    with pytest.raises(ValueError, match=r"want the same \(N, C, h, w\)"):
        fidelity(np.zeros((1, 1, 7, 7)), np.zeros((1, 1, 6, 7)))
    with pytest.raises(ValueError, match=r"want the same \(H, W\), film uint8"):
        colour_overlay(np.zeros((4, 4), np.uint8), np.zeros((4, 5)))


def test_signed_overlay_is_red_for_blue_against_and_the_film_where_nothing_is() -> None:
    gray = np.full((1, 3), 100, np.uint8)
    against, nothing, speaks = signed_overlay(gray, np.array([[-1.0, 0.0, 1.0]]))[0].astype(int)
    assert nothing.tolist() == [100, 100, 100]
    assert against[2] > against[0] + 100
    assert speaks[0] > speaks[2] + 100
    with pytest.raises(ValueError, match="want the same"):
        signed_overlay(gray, np.zeros((3, 1)))

import numpy as np
import pytest

from edgecxr.export.misfits import MISFITS, VARIANTS, misfits, variants
from edgecxr.kernels import preprocess
from edgecxr.phantom import OTHER_KINDS, chest
from edgecxr.spec import PreprocessSpec

SPEC = PreprocessSpec(size=64, range_low=-1, range_high=1)
FILMS = preprocess([chest(seed, size=64) for seed in range(18)], SPEC)[:, 0]


def test_misfits_and_variants_are_model_inputs() -> None:
    wrong, right = misfits(FILMS, SPEC), variants(FILMS, SPEC)
    assert wrong.shape == (18 + 10 + 12 * len(OTHER_KINDS), 64, 64)
    assert right.shape == FILMS.shape
    for images in (wrong, right):
        assert images.dtype == np.float32
        assert images.min() >= -1
        assert images.max() <= 1
        assert (images.std(axis=(1, 2)) > 0.01).all()


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.3, 0.7)])
def test_ends_of_a_range_that_float16_does_not_have_are_no_matter(low: float, high: float) -> None:
    spec = PreprocessSpec(size=64, range_low=low, range_high=high)
    stored = np.asarray(preprocess([chest(seed, size=64) for seed in range(18)], spec)[:, 0], np.float16)
    for images in (misfits(stored, spec), variants(stored, spec)):
        assert np.isfinite(images).all()


def test_every_alteration_alters_and_keeps_the_shape() -> None:
    image = (FILMS[0] + 1) / 2
    for alteration in MISFITS + VARIANTS:
        altered = alteration(image, np.random.default_rng(0))
        assert altered.shape == image.shape
        assert abs(altered - image).mean() > 1e-3


def test_the_same_seed_makes_the_same_pictures() -> None:
    assert (misfits(FILMS, SPEC, 3) == misfits(FILMS, SPEC, 3)).all()
    assert (variants(FILMS, SPEC, 3) != variants(FILMS, SPEC, 4)).any()


def test_films_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(18, 64, 32\): want \(N, 64, 64\)"):
        misfits(FILMS[:, :, :32], SPEC)

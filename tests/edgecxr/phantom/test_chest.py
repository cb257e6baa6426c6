import numpy as np
import pytest

from edgecxr.phantom import FINDINGS, OTHER_KINDS, chest, other


def test_a_phantom_is_a_12_bit_film():
    film = chest(3, "covid", 128)
    assert film.pixels.dtype == np.uint16
    assert film.shape == (128, 128)
    assert film.bits_stored == 12
    assert film.pixels.max() <= 4095
    assert film.pixels.flags.c_contiguous
    assert not film.inverted


def test_the_same_seed_gives_the_same_film_and_another_seed_another():
    assert np.array_equal(chest(5, "normal", 96).pixels, chest(5, "normal", 96).pixels)
    assert not np.array_equal(chest(5, "normal", 96).pixels, chest(6, "normal", 96).pixels)


@pytest.mark.parametrize("seed", range(4))
def test_a_finding_takes_air_out_of_the_lungs(seed):
    normal = chest(seed, "normal", 128).pixels.astype(int)
    for finding in ("covid", "pneumonia"):
        changed = (chest(seed, finding, 128).pixels - normal)[30:105]
        assert (changed > 80).sum() > 40, finding
        assert (changed > 80).sum() > (changed < -80).sum()


def test_sizes_show_the_same_patient():
    small, large = (chest(8, "pneumonia", size).pixels.astype(float) for size in (128, 512))
    shrunk = large.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_the_apex_of_the_heart_points_to_the_right_of_the_image(seed):
    pixels = chest(seed, "normal", 256).pixels.astype(float)
    low = pixels[140:185]
    assert low[:, 150:180].mean() > low[:, 76:106].mean()


def test_bone_is_bright_and_lungs_are_dark():
    pixels = chest(1, "normal", 256).pixels.astype(float)
    assert pixels[100:130, 124:132].mean() > 1.5 * pixels[100:130, 50:90].mean()


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_misfits_are_deterministic_pictures_with_contrast(kind):
    film = other(2, kind, 96)
    assert film.shape == (96, 96)
    assert film.pixels.dtype == np.uint16
    assert film.pixels.max() <= 4095
    assert np.ptp(film.pixels) > 300
    assert np.array_equal(film.pixels, other(2, kind, 96).pixels)


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="finding 'flu': a phantom has one of normal, covid, pneumonia"):
        chest(0, "flu")
    with pytest.raises(ValueError, match="kind 'foot': choose one of hand, hip"):
        other(0, "foot")
    with pytest.raises(ValueError, match="size 8: a phantom needs at least 32"):
        chest(0, FINDINGS[0], 8)

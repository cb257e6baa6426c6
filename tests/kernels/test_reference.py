"""The reference against numbers worked by hand from the standard, never against itself."""

import numpy as np
import pytest

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.kernels import reference
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec


def film(values, **fields) -> Radiograph:
    return Radiograph(np.array(values), bits_stored=12, **fields)


def row(*values, dtype=np.uint16) -> np.ndarray:
    return np.array([values], dtype=dtype)


@pytest.mark.parametrize(
    ("window", "values", "expected"),
    [
        # PS3.3 C.11.2.1.2, the four worked examples of its note
        (Window(2048, 4096), [-1, 0, 1, 2047.5, 4095, 4096], [0, 0, (1 - 2047.5) / 4095 + 0.5, 0.5, 1, 1]),
        (Window(2048, 1), [2047, 2047.5, 2048], [0, 0, 1]),
        (Window(0, 100), [-50, -0.5, 49, 50], [0, 0.5, 1, 1]),
        (Window(0, 1), [-1, -0.5, 0], [0, 0, 1]),
        # PS3.3 C.11.2.1.3.2, LINEAR_EXACT
        (Window(2048, 4096, "LINEAR_EXACT"), [0, 1024, 2048, 4096, 4097], [0, 0.25, 0.5, 1, 1]),
        (Window(2048, 1, "LINEAR_EXACT"), [2047.5, 2048, 2048.25, 2048.5, 2049], [0, 0.5, 0.75, 1, 1]),
        (Window(0, 100, "LINEAR_EXACT"), [-50, 25, 50, 51], [0, 0.75, 1, 1]),
        # PS3.3 C.11.2.1.3.1, SIGMOID: 1/(1+e^-2) = 0.8807970779778823
        (Window(100, 40, "SIGMOID"), [100, 120, 80], [0.5, 0.8807970779778823, 0.1192029220221177]),
        (Window(0, 1e-3, "SIGMOID"), [-60000, 60000], [0, 1]),
    ],
)
def test_window_gives_the_numbers_of_the_standard(window, values, expected):
    np.testing.assert_allclose(reference.windowed(np.array(values, dtype=float), window), expected, rtol=0, atol=1e-15)


def test_rescale_is_slope_then_intercept():
    np.testing.assert_array_equal(
        reference.modality_values(film(row(0, 512), slope=2, intercept=-1024)), [[-1024.0, 0.0]]
    )


def test_modality_lut_wins_over_rescale_and_extends_its_ends():
    lut = Lut(first=10, values=np.array([7, 8, 300], dtype=np.uint16), bits=12)
    values = reference.modality_values(film(row(0, 10, 11, 12, 4000), slope=5, modality_lut=lut))
    np.testing.assert_array_equal(values, [[7, 7, 8, 300, 300]])


def test_voi_lut_wins_over_the_window_and_is_divided_by_its_greatest_entry():
    lut = Lut(first=100, values=np.array([0, 341, 1023], dtype=np.uint16), bits=10)
    values = reference.film_values(
        film(row(99, 100, 101, 102, 103), voi_lut=lut, window=Window(0, 1)), PreprocessSpec()
    )
    np.testing.assert_allclose(values, [[0, 0, 1 / 3, 1, 1]], atol=1e-15)


def test_voi_lut_input_is_rounded_half_up():
    lut = Lut(first=0, values=np.array([0, 1], dtype=np.uint16), bits=1)
    values = reference.film_values(film(row(0, 1), slope=0.01, intercept=0.49, voi_lut=lut), PreprocessSpec())
    np.testing.assert_array_equal(values, [[0, 1]])


def test_percentile_pair_is_nearest_rank():
    # 200 values 1..200: 0.5 % has rank 1 (value 1), 99.5 % rank 199 (value 199)
    values = reference.film_values(film(np.arange(1, 201, dtype=np.uint16).reshape(10, 20)), PreprocessSpec())
    flat = values.ravel()
    assert flat[0] == 0
    assert flat[99] == 99 / 198
    assert flat[198] == flat[199] == 1


def test_percentile_pair_leaves_padding_out():
    pixels = row(*([0] * 100), *range(1000, 1200))
    values = reference.film_values(film(pixels, padding=(0, 10)), PreprocessSpec())
    np.testing.assert_array_equal(values[0, :100], 0)
    assert values[0, 100] == 0
    assert values[0, 101] == 1 / 198
    assert values[0, -1] == 1


def test_equal_percentiles_fall_back_to_least_and_greatest():
    pixels = np.full((20, 50), 500, dtype=np.uint16)
    pixels[0, 0], pixels[0, 1] = 400, 800
    values = reference.film_values(film(pixels), PreprocessSpec())
    assert values[0, 0] == 0
    assert values[0, 1] == 1
    assert values[5, 5] == 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [({}, "modality value 500; nothing was exposed"), ({"padding": (500, 500)}, "every pixel is padding")],
)
def test_film_without_contrast_is_refused(fields, message):
    flat = film(np.full((4, 4), 500, dtype=np.uint16), source="a.dcm", **fields)
    with pytest.raises(Refusal, match=f"a.dcm: every pixel.*{message.split()[-1]}") as caught:
        reference.film_values(flat, PreprocessSpec())
    assert caught.value.reason is RefusalReason.NO_CONTRAST
    assert message in caught.value.detail


def test_film_of_padding_is_refused_whatever_its_window():
    with pytest.raises(Refusal, match="every pixel is padding"):
        reference.film_values(film(row(3, 3), padding=(0, 5), window=Window(2, 4)), PreprocessSpec())


def test_polarity_turns_after_the_window_and_leaves_padding_black():
    window = Window(50.5, 101)  # 0 up to 0, 1 above 100
    values = reference.film_values(
        film(row(0, 25, 100, 7), window=window, inverted=True, padding=(7, 7)), PreprocessSpec()
    )
    np.testing.assert_allclose(values, [[1, 0.75, 0, 0]], atol=1e-15)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (3, 2, [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]),  # shrink by 1.5: each mean covers one and a half samples
        (5, 2, [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]),
        (4, 1, [[0.25] * 4]),
        (2, 4, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]),  # half-pixel centres: positions 0, 0.25, 0.75, 1
        (1, 3, [[1], [1], [1]]),
        (3, 3, np.eye(3)),
    ],
)
def test_resampling_weights(source, target, expected):
    np.testing.assert_allclose(reference.resampling_matrix(source, target), expected, atol=1e-15)


def test_axes_are_decided_separately():
    # 32 x 2 film stretched to 16 x 16: rows are averaged in pairs, columns interpolated
    pixels = np.zeros((32, 2), dtype=np.uint8)
    pixels[::2, 1] = 200
    tensor = reference.preprocess_frame(
        film(pixels, window=Window(100, 200, "LINEAR_EXACT")), PreprocessSpec(size=16, aspect="stretch")
    )
    assert tensor.shape == (1, 16, 16)
    np.testing.assert_allclose(tensor[0, :, 0], 0)
    np.testing.assert_allclose(tensor[0, :, -1], 0.5)
    np.testing.assert_allclose(tensor[0, 3, 7], 0.5 * (7.5 * 2 / 16 - 0.5), rtol=1e-6)


def test_outside_of_the_box_is_range_low_and_the_range_is_reached():
    pixels = np.full((8, 16), 255, dtype=np.uint8)
    spec = PreprocessSpec(size=16, range_low=-1.0, range_high=3.0, dtype="float16")
    tensor = reference.preprocess_frame(film(pixels, window=Window(127.5, 255, "LINEAR_EXACT")), spec)
    assert tensor.dtype == np.float16
    np.testing.assert_array_equal(tensor[0, :4], -1)
    np.testing.assert_array_equal(tensor[0, 4:12], 3)
    np.testing.assert_array_equal(tensor[0, 12:], -1)


def test_signed_values_keep_their_sign():
    values = reference.film_values(
        film(row(-100, 0, 100, dtype=np.int16), window=Window(0, 200, "LINEAR_EXACT")), PreprocessSpec()
    )
    np.testing.assert_array_equal(values, [[0, 0.5, 1]])

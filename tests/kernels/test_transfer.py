"""Folding steps 1 to 3, against numbers worked by hand; test_native.py holds the rest to the reference."""

import numpy as np
import pytest

from edgecxr.errors import Refusal
from edgecxr.kernels.transfer import Ramp, Table, fold
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

PIXELS = np.array([[0, 4000]], dtype=np.uint16)


def folded(counts=None, pixels=PIXELS, **fields):
    def count(pixels, together):
        if counts is None:
            raise RuntimeError("the pixels were counted without need")
        return counts.copy()

    return fold(Radiograph(pixels, 12, **fields), PreprocessSpec(), count)


def test_linear_window_becomes_a_ramp_over_stored_values():
    # c = 2048, w = 4096: 0 at m = 0, 1 at m = 4095; x = (m + 1024) / 2
    assert folded(window=Window(2048, 4096), slope=2, intercept=-1024) == Ramp(zero=512, span=2047.5, falling=False)


def test_polarity_and_negative_slope_turn_the_ramp():
    window = Window(2048, 4096)
    assert folded(window=window, inverted=True) == Ramp(zero=4095, span=4095, falling=True)
    assert folded(window=window, slope=-1) == Ramp(zero=0, span=4095, falling=True)
    assert folded(window=window, slope=-1, inverted=True) == Ramp(zero=-4095, span=4095, falling=False)


@pytest.mark.parametrize(
    "fields",
    [
        {"window": Window(100, 1)},
        {"window": Window(100, 10)},
        {"window": Window(100, 400), "slope": 100.0},
        {"window": Window(100, 400), "slope": 0.0},
        {"window": Window(1e12, 400)},
        {"window": Window(100, 400, "SIGMOID")},
        {"window": Window(100, 400), "modality_lut": Lut(0, np.arange(9, dtype=np.uint16), 12)},
        {"voi_lut": Lut(0, np.arange(9, dtype=np.uint16), 12)},
    ],
)
def test_what_is_no_wide_straight_line_becomes_a_table(fields):
    assert isinstance(folded(**fields), Table)


def test_table_is_indexed_by_bit_pattern():
    pixels = np.zeros((1, 1), dtype=np.int8)
    table = folded(pixels=pixels, window=Window(0.5, 1), padding=(100, 127))  # 1 above m = 0
    assert table.values.dtype == np.float32
    assert table.values[0] == 0
    assert table.values[1] == 1
    assert table.values[99] == 1
    assert table.values[100] == 0  # padding
    assert table.values[128] == 0  # stored -128


def test_percentile_pair_of_a_falling_slope():
    counts = np.zeros(65536, dtype=np.int64)
    counts[1:201] = 1
    # m = -x: least is -200, second greatest -2
    assert folded(counts, slope=-1) == Ramp(zero=200, span=198, falling=True)


def test_padding_alone_has_no_contrast():
    counts = np.zeros(65536, dtype=np.int64)
    counts[5] = 2
    with pytest.raises(Refusal, match="no_contrast: film: every pixel is padding"):
        folded(counts, padding=(5, 5))


def test_one_flat_value_has_no_contrast():
    counts = np.zeros(65536, dtype=np.int64)
    counts[5] = 2
    with pytest.raises(Refusal, match="no_contrast: film: every pixel has the modality value 5"):
        folded(counts)

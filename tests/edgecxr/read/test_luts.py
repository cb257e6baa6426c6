"""Lookup tables and windows: as the header holds them, and refused where it contradicts itself."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edgecxr.errors import Refusal
from edgecxr.kernels import preprocess
from edgecxr.radiograph import Window
from edgecxr.read import read_radiograph
from edgecxr.spec import PreprocessSpec

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]


def table(values, first=0, bits=12, vr="US", count=None, syntax=ExplicitVRLittleEndian):
    """One item of a LUT sequence, for a data set of this transfer syntax."""
    item = Dataset()
    count = len(values) if count is None else count
    item.add_new("LUTDescriptor", vr, [count % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(values, ">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes())
    item.ModalityLUTType = "US"
    return item


def apply(lut, values):
    return lut.values[np.clip(values.astype(int) - lut.first, 0, len(lut.values) - 1)]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_modality_table_wins_over_rescale(write_dicom, film, syntax):
    values = 4095 - np.arange(4096)
    path = write_dicom(
        film(), syntax, ModalityLUTSequence=[table(values, syntax=syntax)], RescaleSlope=2, RescaleIntercept=3
    )
    radiograph = read_radiograph(path)
    assert (radiograph.slope, radiograph.intercept) == (1, 0)
    assert (radiograph.modality_lut.first, radiograph.modality_lut.bits) == (0, 12)
    np.testing.assert_array_equal(radiograph.modality_lut.values, values)
    assert radiograph.notes == ("Modality LUT Sequence and rescale are both present; the table is used",)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_tables_give_what_pydicom_gives(write_dicom, film, syntax):
    tables = {
        "ModalityLUTSequence": [table(np.arange(100, 3100), first=500, bits=16, syntax=syntax)],
        "VOILUTSequence": [table(np.arange(2000) * 2, first=700, bits=16, syntax=syntax)],
    }
    path = write_dicom(film(), syntax, **tables)
    radiograph = read_radiograph(path)
    header = pydicom.dcmread(path)
    modality = apply_modality_lut(film(), header)
    np.testing.assert_array_equal(apply(radiograph.modality_lut, film()), modality)
    np.testing.assert_array_equal(apply(radiograph.voi_lut, modality), apply_voi_lut(modality, header))


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("dtype", "intercept"), [("int16", 0), ("uint16", -1024)])
def test_table_that_begins_below_zero(write_dicom, film, syntax, dtype, intercept):
    item = table(range(2000), first=-1000, vr="SS", syntax=syntax)
    path = write_dicom(film(dtype), syntax, VOILUTSequence=[item], RescaleIntercept=intercept, RescaleSlope=1)
    assert read_radiograph(path).voi_lut.first == -1000


def test_table_of_65536_entries(write_dicom, film):
    values = np.arange(65536)
    radiograph = read_radiograph(write_dicom(film(), ModalityLUTSequence=[table(values, bits=16)]))
    np.testing.assert_array_equal(radiograph.modality_lut.values, values)


def test_table_of_bytes(write_dicom, film):
    item = table([5 | 6 << 8, 7], bits=8, count=3)
    assert read_radiograph(write_dicom(film(), VOILUTSequence=[item])).voi_lut.values.tolist() == [5, 6, 7]


def test_voi_table_wins_over_window(write_dicom, film):
    path = write_dicom(film(), VOILUTSequence=[table(range(4096))], WindowCenter=5, WindowWidth=9)
    radiograph = read_radiograph(path)
    assert (radiograph.window, len(radiograph.voi_lut.values)) == (None, 4096)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (table([1, 2, 5000], bits=12), "entry 5000 does not fit into 12 bits"),
        (table([1, 2, 3], bits=17), "entries of 17 bits; 8 to 16 are defined"),
        (table([1, 2, 3], count=9), "9 entries declared, 6 bytes given"),
    ],
)
def test_broken_table(write_dicom, film, item, words):
    with pytest.raises(Refusal, match=f"contradictory: Modality LUT: {words}"):
        read_radiograph(write_dicom(film(), ModalityLUTSequence=[item]))
    with pytest.raises(Refusal, match=f"contradictory: VOI LUT: {words}"):
        read_radiograph(write_dicom(film(), VOILUTSequence=[item]))
    radiograph = read_radiograph(write_dicom(film(), VOILUTSequence=[item], WindowCenter=2000, WindowWidth=99))
    assert radiograph.window == Window(2000, 99)
    assert radiograph.notes == (f"VOI LUT: {words}; the window is used",)


def test_first_table_of_several(write_dicom, film):
    path = write_dicom(film(), VOILUTSequence=[table([1, 2]), table([3, 4])])
    radiograph = read_radiograph(path)
    assert radiograph.voi_lut.values.tolist() == [1, 2]
    assert radiograph.notes == ("the header has 2 items of VOI LUT Sequence; the first is used",)


@pytest.mark.parametrize(("function", "width"), [("LINEAR_EXACT", 0.25), ("SIGMOID", 0.25), ("LINEAR", 1), ("", 1)])
def test_narrow_windows(write_dicom, film, function, width):
    path = write_dicom(film(), WindowCenter=2000, WindowWidth=width, VOILUTFunction=function)
    assert read_radiograph(path).window == Window(2000, width, function or "LINEAR")


@pytest.mark.parametrize("text", ["abc", "1e999", "nan", "1,5"])
def test_number_that_is_none(write_dicom, film, text):
    path = write_dicom(film(), WindowCenter="12345678", WindowWidth=100)
    path.write_bytes(path.read_bytes().replace(b"12345678", text.ljust(8).encode()))
    with pytest.raises(Refusal, match="contradictory: WindowCenter is no decimal number"):
        read_radiograph(path)


@pytest.mark.parametrize(
    ("dtype", "value", "limit", "expected"),
    [
        ("uint16", 0, None, (0, 0)),
        ("uint16", 4095, 4000, (4000, 4095)),
        ("int16", -2048, None, (-2048, -2048)),
        ("int16", -2000, -2048, (-2048, -2000)),
        ("uint16", None, 7, None),
    ],
)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_padding(write_dicom, film, syntax, dtype, value, limit, expected):
    path = write_dicom(film(dtype), syntax, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    assert read_radiograph(path).padding == expected


def test_padding_written_with_the_wrong_sign(write_dicom, film):
    path = write_dicom(film("int16"), PixelPaddingValue=-2000)
    path.write_bytes(path.read_bytes().replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US"))
    assert read_radiograph(path).padding == (-2000, -2000)


FAR = {"WindowCenter": -9000, "WindowWidth": 4000}  # below everything


@pytest.mark.parametrize(
    ("transform", "padded"),
    [
        (FAR, False),
        (FAR | {"PixelPaddingValue": 0}, True),
        ({"WindowCenter": 10, "WindowWidth": 20, "PixelPaddingValue": 0}, True),  # the padding alone is inside
        ({"VOILUTSequence": [table(range(9), first=5000)]}, False),
        ({"VOILUTSequence": [table([7] * 4096)]}, False),
        ({"ModalityLUTSequence": [table(range(4096))]} | FAR, False),
        (
            {"ModalityLUTSequence": [table([9] * 4000 + list(range(96)))], "WindowCenter": 4000, "WindowWidth": 99},
            False,
        ),
    ],
)
def test_what_shows_none_of_the_film_is_refused(write_dicom, film, transform, padded):
    pixels = film().clip(500, 3900)
    if padded:
        pixels[:3] = 0
    with pytest.raises(Refusal, match=r"contradictory: .* has "):
        read_radiograph(write_dicom(pixels, **transform))


@pytest.mark.parametrize(
    "transform",
    [
        {"WindowCenter": 500, "WindowWidth": 20},  # of the darkest pixels alone
        {"VOILUTSequence": [table([0] * 3800 + [9])]},
        {"ModalityLUTSequence": [table([0] * 3800 + [9])], "WindowCenter": 9, "WindowWidth": 2},
        FAR | {"VOILUTFunction": "SIGMOID"},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095} | FAR,  # no film at all: the preprocessing says so
    ],
)
def test_what_shows_a_little_of_the_film_is_read(write_dicom, film, transform):
    pixels = film().clip(500, 3900)
    assert read_radiograph(write_dicom(pixels, **transform)).pixels.shape == pixels.shape


def test_contrast_between_the_rows_that_are_looked_at_first_counts(write_dicom):
    pixels = np.full((130, 9), 700, np.uint16)
    pixels[70] = 1500
    assert read_radiograph(write_dicom(pixels, WindowCenter=1500, WindowWidth=200)).window
    assert read_radiograph(write_dicom(pixels, VOILUTSequence=[table([0] * 1000 + [9])])).voi_lut


def test_a_slope_beyond_every_number_is_no_fault_of_ours(write_dicom, film):
    path = write_dicom(film(), VOILUTSequence=[table(range(4096))], RescaleSlope="1e308", RescaleIntercept=0)
    with pytest.raises(Refusal, match="no numbers to use"):
        preprocess([read_radiograph(path)], PreprocessSpec(size=32))

"""The 67 real and hostile DICOM files: what each gives, decided file by file; pixels against manifest and twins.

The manifest's `min_max` was made by pydicom with other decoders (GDCM, pylibjpeg, pyjpegls).
"""

import csv
from typing import NamedTuple

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.kernels import preprocess
from edgecxr.radiograph import Window
from edgecxr.read import DEFAULT, read_radiograph
from edgecxr.read.dicom import open_dataset
from edgecxr.read.guard import load
from edgecxr.read.layout import read_layout
from edgecxr.read.pixels import decode
from edgecxr.spec import PreprocessSpec

pytestmark = pytest.mark.shared_data


class Read(NamedTuple):
    """A film that is read."""

    dtype: str
    shape: tuple[int, int]
    bits: int
    extremes: tuple[int, int]
    inverted: bool


XRV = "torchxrayvision__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
FAKE = "torchxrayvision__Fake_MONOHR1.dcm"
READ = {
    "pylibjpeg-data__966_fixed.dcm": Read("uint16", (2128, 2000), 12, (0, 4095), True),
    "pylibjpeg-data__RG1_JLSN.dcm": Read("uint16", (1955, 1841), 15, (871, 26481), True),
    "pylibjpeg-data__RG1_J2KI.dcm": Read("uint16", (1955, 1841), 15, (803, 26512), True),
    "Registration__cxr.dcm": Read("uint16", (2140, 1760), 10, (132, 1018), True),
    XRV: Read("uint8", (1024, 1024), 8, (0, 254), False),
    FAKE: Read("uint8", (1024, 1024), 8, (0, 254), True),
}
REFUSED = {
    # chest films
    "pylibjpeg-data__966.dcm": ("unreadable", "tile-parts lose their order"),
    "pylibjpeg-data__JPEG2KLossless_1s_1f_u_16_16.dcm": ("contradictory", "window shows values 70 to 5380"),
    "highdicom__dx_image.dcm": ("not_a_chest", "CANINE LATERAL THORAX"),
    "dicom-test-files__jpeg-baseline.dcm": ("not_a_chest", "Canine"),
    "pydicom__chrJapMulti.dcm": ("no_pixels", ""),
    "pydicom__chrJapMultiExplicitIR6.dcm": ("no_pixels", ""),
    "pydicom__chrKoreanMulti.dcm": ("no_pixels", ""),
    # radiographs of other parts
    "dicom-test-files__RG2_JLSL": ("not_a_chest", "HIP"),
    "dicom-test-files__RG2_JPLL": ("not_a_chest", "HIP"),
    "dicom-test-files__RG2_JPLY": ("not_a_chest", "HIP"),
    "pylibjpeg-data__RG2_JPLY_fixed.dcm": ("not_a_chest", "HIP"),
    "dicom-test-files__RG3_JLSL": ("not_a_chest", "EXTREMITY"),
    "dicom-test-files__RG3_J2KR": ("not_a_chest", "EXTREMITY"),
    "dicom-test-files__RG3_JPLL": ("not_a_chest", "EXTREMITY"),
    "dicom-test-files__RG3_RLE": ("not_a_chest", "EXTREMITY"),
    "dicom-test-files__RG3_JPLY": ("not_a_chest", "EXTREMITY"),
    "dicom-test-files__RG3_JLSN": ("not_a_chest", "EXTREMITY"),
    "dicom-test-files__RG3_J2KI": ("not_a_chest", "EXTREMITY"),
    "pylibjpeg-data__NM_Kakadu44_SOTmarkerincons.dcm": ("not_a_chest", "HAND"),
    # other modalities
    "pydicom-data__MR-SIEMENS-DICOM-WithOverlays.dcm": ("not_a_radiograph", "MR Image Storage"),
    "pydicom-data__bad_sequence.dcm": ("not_a_radiograph", "CT Image Storage"),
    "pydicom-data__explicit_VR-UN.dcm": ("not_a_radiograph", "CT Image Storage"),
    "pydicom-data__parametric_map_float.dcm": ("not_a_radiograph", "Parametric Map Storage"),
    "pydicom-data__liver.dcm": ("not_a_radiograph", "Segmentation Storage"),
    "pydicom__liver_1frame.dcm": ("not_a_radiograph", "Segmentation Storage"),
    "pydicom-data__gdcm-US-ALOKA-16_big.dcm": ("not_a_radiograph", "Ultrasound"),
    "pylibjpeg-data__JPEGLossless_1s_1f_i_16_16_bad.dcm": ("not_a_radiograph", "CT Image Storage"),
    "pylibjpeg-data__ELSCINT1_JP2vsJ2K.dcm": ("not_a_radiograph", "CT Image Storage"),
    "pylibjpeg-data__TOSHIBA_J2K_SIZ0_PixRep1.dcm": ("not_a_radiograph", "CT Image Storage"),
    "pylibjpeg-data__TOSHIBA_J2K_SIZ1_PixRep0.dcm": ("not_a_radiograph", "CT Image Storage"),
    "pydicom__J2K_pixelrep_mismatch.dcm": ("not_a_radiograph", "CT Image Storage"),
    "pydicom__MR_small_padded.dcm": ("not_a_radiograph", "MR Image Storage"),
    "pydicom__MR_small_bigendian.dcm": ("not_a_radiograph", "MR Image Storage"),
    "pydicom__MR_small_implicit.dcm": ("not_a_radiograph", "MR Image Storage"),
    "pydicom__badVR.dcm": ("not_a_radiograph", "RT Dose Storage"),
    "pydicom__examples_overlay.dcm": ("not_a_radiograph", "MR Image Storage"),
    "pydicom__examples_palette.dcm": ("not_a_radiograph", "Ultrasound"),
    "pydicom__test-SR.dcm": ("not_a_radiograph", "Comprehensive SR Storage"),
    "pydicom__JPEG2000-embedded-sequence-delimiter.dcm": ("not_a_radiograph", "NM"),
    # secondary captures that do not say what they show
    "pydicom-data__HTJ2KLossless_08_RGB.dcm": ("not_a_radiograph", "nothing says"),
    "pydicom-data__JLSL_16_15_1_1F.dcm": ("not_a_radiograph", "nothing says"),
    "pydicom__nested_priv_SQ.dcm": ("not_a_radiograph", "nothing says"),
    "pydicom-data__mlut_18.dcm": ("not_a_radiograph", "OT"),
    "pydicom-data__vlut_04.dcm": ("not_a_radiograph", "OT"),
    "pydicom-data__SC_rgb.dcm": ("not_a_radiograph", "OT"),
    "pydicom-data__SC_rgb_16bit_2frame.dcm": ("not_a_radiograph", "OT"),
    "pylibjpeg-data__JPEGLosslessP14SV1_1s_1f_u_16_16.dcm": ("not_a_radiograph", "OT"),
    "pylibjpeg-data__JPEGBaseline_1s_1f_u_08_08.dcm": ("not_a_radiograph", "OT"),
    "pydicom__image_dfl.dcm": ("not_a_radiograph", "OT"),
    "pydicom__SC_ybr_full_422_uncompressed.dcm": ("not_a_radiograph", "OT"),
    "pydicom__SC_rgb_small_odd.dcm": ("not_a_radiograph", "OT"),
    # broken or bare
    "pydicom-data__OT-PAL-8-face.dcm": ("unreadable", "transfer syntax"),
    "pydicom__ExplVR_BigEndNoMeta.dcm": ("unreadable", "transfer syntax"),
    "pydicom__meta_missing_tsyntax.dcm": ("unreadable", "transfer syntax"),
    "pydicom__no_meta.dcm": ("unreadable", "neither DICOM"),
    "pydicom-data__emri_small_jpeg_2k_lossless_too_short.dcm": ("truncated", "40,316"),
    "pydicom__MR_truncated.dcm": ("truncated", "8,130 are left"),
    "pydicom__rtplan_truncated.dcm": ("truncated", "711 are left"),
    "pydicom__no_meta_group_length.dcm": ("no_pixels", ""),
    "pydicom__UN_sequence.dcm": ("no_pixels", ""),
    "pydicom__empty_charset_LEI.dcm": ("no_pixels", ""),
}
# What the pixels of a grayscale image that is no chest film give, where that differs from the manifest.
PIXELS_REFUSED = {
    "pylibjpeg-data__966.dcm": RefusalReason.UNREADABLE,
    "pylibjpeg-data__TOSHIBA_J2K_SIZ0_PixRep1.dcm": RefusalReason.CONTRADICTORY,
    "pylibjpeg-data__TOSHIBA_J2K_SIZ1_PixRep0.dcm": RefusalReason.CONTRADICTORY,
    "pydicom__J2K_pixelrep_mismatch.dcm": RefusalReason.CONTRADICTORY,
    "pydicom__JPEG2000-embedded-sequence-delimiter.dcm": RefusalReason.TOO_LARGE,
    "pydicom__MR_truncated.dcm": RefusalReason.TRUNCATED,
    "pydicom__badVR.dcm": RefusalReason.CONTRADICTORY,
}
# Two lossy 12-bit films on which every decoder of the manifest failed; their lossless twins are the check below.
ONLY_HERE = {"dicom-test-files__RG2_JPLY": (0, 960), "dicom-test-files__RG3_JPLY": (0, 1024)}


@pytest.fixture(scope="module")
def manifest(shared_dicom):
    with open(shared_dicom.parent / "manifest.csv", newline="") as handle:
        return {row["file"]: row for row in csv.DictReader(handle)}


@pytest.fixture(scope="module")
def stored(shared_dicom):
    """stored(name) -> Frame: the pixels of a file, whatever it shows."""

    def read(name):
        header, syntax, _ = open_dataset(load(shared_dicom / name, DEFAULT), DEFAULT)
        return decode(header, syntax, read_layout(header, DEFAULT), DEFAULT)

    return read


def test_every_file_has_its_line(manifest, shared_dicom):
    assert set(READ) | set(REFUSED) == set(manifest) == {path.name for path in shared_dicom.iterdir()}
    assert len(READ) + len(REFUSED) == 67


@pytest.mark.parametrize("name", READ)
def test_film_is_read(shared_dicom, manifest, name):
    radiograph = read_radiograph(shared_dicom / name)
    pixels = radiograph.pixels
    extremes = int(pixels.min()), int(pixels.max())
    assert (
        Read(pixels.dtype.name, radiograph.shape, radiograph.bits_stored, extremes, radiograph.inverted) == READ[name]
    )
    assert "{}..{}".format(*extremes) == manifest[name]["min_max"]


@pytest.mark.parametrize("name", REFUSED)
def test_file_is_refused(shared_dicom, name):
    reason, words = REFUSED[name]
    with pytest.raises(Refusal, match=f"^{reason}: .*{words}"):
        read_radiograph(shared_dicom / name)


def test_pixels_of_every_grayscale_image(manifest, stored):
    """Whatever they show: as the manifest's decoders gave them, or refused."""
    checked = 0
    for name, row in manifest.items():
        if (
            not row["photometric"].startswith("MONOCHROME")
            or row["rows"] == ""
            or row["bits_allocated"] not in ("8", "16")
        ):
            continue
        if row["pydicom_decode"] == "no pixel data":
            continue
        if name in PIXELS_REFUSED:
            with pytest.raises(Refusal, match=PIXELS_REFUSED[name].value):
                stored(name)
            continue
        frame = stored(name)
        extremes = ONLY_HERE.get(name) or tuple(map(int, row["min_max"].split("..")))
        assert (int(frame.values.min()), int(frame.values.max())) == extremes, name
        assert frame.values.shape == (int(row["rows"]), int(row["cols"])), name
        checked += 1
    assert checked == 35


@pytest.mark.parametrize(
    ("names", "lossy"),
    [
        (("RG2_JLSL", "RG2_JPLL"), ("RG2_JPLY",)),
        (("RG3_JLSL", "RG3_JPLL", "RG3_J2KR", "RG3_RLE"), ("RG3_JPLY", "RG3_JLSN", "RG3_J2KI")),
    ],
)
def test_one_film_in_several_syntaxes_is_one_film(stored, names, lossy):
    """NEMA WG04 published each radiograph in every syntax: four codecs that share no code agree to the bit."""
    frames = [stored(f"dicom-test-files__{name}").values for name in names]
    for other in frames[1:]:
        np.testing.assert_array_equal(frames[0], other)
    for name in lossy:
        difference = np.abs(stored(f"dicom-test-files__{name}").values.astype(int) - frames[0])
        assert difference.mean() < 4, name


def test_second_decoders_agree(shared_dicom, stored):
    """Lossless JPEG by two other implementations, RLE by pydicom's own, uncompressed films by pydicom."""
    for name in ("Registration__cxr.dcm", "dicom-test-files__RG2_JPLL", "pydicom-data__bad_sequence.dcm"):
        header, _, _ = open_dataset(load(shared_dicom / name, DEFAULT), DEFAULT)
        element = header.element("PixelData")
        stream = b"".join(header.data[start:stop] for start, stop in element.parts[1:])
        for decoder in (imagecodecs.ljpeg_decode, imagecodecs.jpegsof3_decode):
            np.testing.assert_array_equal(stored(name).values, decoder(stream))
    rle = pydicom.dcmread(shared_dicom / "dicom-test-files__RG3_RLE")
    rle.decompress(decoding_plugin="pydicom")
    np.testing.assert_array_equal(stored("dicom-test-files__RG3_RLE").values, rle.pixel_array)
    for name in ("highdicom__dx_image", "pydicom-data__mlut_18", "pydicom__MR_small_bigendian", "pydicom__image_dfl"):
        header = pydicom.dcmread(shared_dicom / f"{name}.dcm")
        np.testing.assert_array_equal(stored(f"{name}.dcm").values, header.pixel_array)


def test_headers_are_as_pydicom_reads_them(shared_dicom):
    radiograph = read_radiograph(shared_dicom / "Registration__cxr.dcm")
    header = pydicom.dcmread(shared_dicom / "Registration__cxr.dcm")
    assert radiograph.window == Window(float(header.WindowCenter), float(header.WindowWidth))
    assert radiograph.identity["SOPInstanceUID"] == header.SOPInstanceUID
    lut = radiograph.modality_lut
    ours = lut.values[np.clip(radiograph.pixels.astype(int) - lut.first, 0, len(lut.values) - 1)]
    np.testing.assert_array_equal(ours, apply_modality_lut(radiograph.pixels, header))


def test_photometric_twins(shared_dicom):
    """The same pixels, once declared MONOCHROME1: read alike, and mirrored in gray by the chain."""
    true, fake = read_radiograph(shared_dicom / XRV), read_radiograph(shared_dicom / FAKE)
    np.testing.assert_array_equal(true.pixels, fake.pixels)
    assert (true.inverted, fake.inverted) == (False, True)
    tensors = preprocess([true, fake], PreprocessSpec(size=64))
    np.testing.assert_allclose(tensors[0], 1 - tensors[1], atol=1e-5)

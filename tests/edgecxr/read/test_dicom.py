"""DICOM files made here, in every transfer syntax: pixels exact and header as written, or the reason why not."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.kernels import preprocess
from edgecxr.radiograph import Window
from edgecxr.read import read_radiograph
from edgecxr.spec import PreprocessSpec

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
LOSSLESS = [RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless]
LOSSY = [(JPEGExtended12Bit, "uint16", 40), (JPEGBaseline8Bit, "uint8", 12), (JPEG2000, "uint16", 40)]
LOSSY += [(JPEGLSNearLossless, "uint16", 2), (JPEGLSNearLossless, "uint8", 2)]


def refusal(path, **options):
    with pytest.raises(Refusal, match=": ") as caught:
        read_radiograph(path, **options)
    return caught.value


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("syntax", NATIVE + LOSSLESS, ids=lambda uid: uid.name[:40])
def test_lossless_film_is_exact(write_dicom, film, syntax, dtype):
    pixels = film(dtype)
    radiograph = read_radiograph(write_dicom(pixels, syntax))
    assert radiograph.pixels.dtype == pixels.dtype
    assert radiograph.pixels.flags.c_contiguous
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert radiograph.bits_stored == (8 if dtype == "uint8" else 12)


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless], ids=lambda uid: uid.name[:40])
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_signed_film_is_exact(write_dicom, film, syntax, dtype):
    pixels = film(dtype)
    radiograph = read_radiograph(write_dicom(pixels, syntax))
    assert radiograph.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(radiograph.pixels, pixels)


@pytest.mark.parametrize(("syntax", "dtype", "tolerance"), LOSSY)
def test_lossy_film_is_near(write_dicom, film, syntax, dtype, tolerance):
    pixels = film(dtype)
    radiograph = read_radiograph(write_dicom(pixels, syntax))
    assert radiograph.pixels.dtype == pixels.dtype
    assert np.abs(radiograph.pixels.astype(int) - pixels).max() <= tolerance


def test_encapsulated_uncompressed_film_is_exact(write_dicom, film):
    pixels = film("uint16", (8, 8))
    path = write_dicom(pixels, UID("1.2.840.10008.1.2.1.98"), fragments=[pixels.tobytes()])
    np.testing.assert_array_equal(read_radiograph(path).pixels, pixels)


def test_syntax_without_decoder_is_refused(write_dicom, film):
    assert refusal(write_dicom(film(), MPEG2MPML, fragments=[b"abcd"])).reason is RefusalReason.UNSUPPORTED_SYNTAX


def test_header_is_read_as_written(write_dicom, film):
    path = write_dicom(
        film("int16"), WindowCenter=-30.5, WindowWidth=800, VOILUTFunction="SIGMOID", RescaleSlope="0.5",
        RescaleIntercept=-7, PixelPaddingValue=-2048, PixelPaddingRangeLimit=-2040,
    )  # fmt: skip
    radiograph = read_radiograph(path)
    assert radiograph.window == Window(-30.5, 800, "SIGMOID")
    assert (radiograph.slope, radiograph.intercept, radiograph.padding) == (0.5, -7, (-2048, -2040))
    assert (radiograph.inverted, radiograph.source, radiograph.notes) == (False, str(path), ())
    assert radiograph.identity["StudyInstanceUID"] == "1.2.3"
    assert radiograph.identity["BodyPartExamined"] == "CHEST"


def test_identity_holds_no_name(write_dicom, film):
    radiograph = read_radiograph(write_dicom(film(), PatientName="Doe^Jane", PatientID="4711"))
    assert "Doe" not in str(radiograph.identity)
    assert "4711" not in str(radiograph.identity)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLosslessSV1, JPEG2000Lossless])
def test_negative_and_positive_twins_give_the_same_tensor(write_dicom, film, syntax):
    pixels = film()
    shown = {"WindowCenter": 2048, "WindowWidth": 4096}
    positive = read_radiograph(write_dicom(pixels, syntax, **shown))
    negative = read_radiograph(
        write_dicom(
            4095 - pixels, syntax, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", **shown
        )
    )
    assert (positive.inverted, negative.inverted) == (False, True)
    tensors = preprocess([positive, negative], PreprocessSpec(size=32))
    np.testing.assert_allclose(tensors[0], tensors[1], atol=1e-6)
    assert np.ptp(tensors[0]) > 0.5


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "contradiction"),
    [
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME1", "IDENTITY", True, True),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME2", "INVERSE", True, True),
    ],
)
def test_polarity(write_dicom, film, photometric, shape, inverted, contradiction):
    path = write_dicom(film(), PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    radiograph = read_radiograph(path)
    assert radiograph.inverted is inverted
    assert any("contradicts itself" in note for note in radiograph.notes) is contradiction


def test_file_without_preamble_is_read(write_dicom, film, tmp_path):
    path = write_dicom(film())
    bare = tmp_path / "bare"
    bare.write_bytes(path.read_bytes()[132:])
    radiograph = read_radiograph(bare)
    np.testing.assert_array_equal(radiograph.pixels, film())
    assert radiograph.notes == ("the file has no preamble",)


def test_file_without_meta_information_is_refused(write_dicom, film, tmp_path):
    bare = tmp_path / "bare"
    content = write_dicom(film()).read_bytes()
    bare.write_bytes(content[content.index(b"\x08\x00\x16\x00UI") :])
    assert "transfer syntax" in refusal(bare).detail


def test_file_without_transfer_syntax_is_refused(write_dicom, film):
    path = write_dicom(film())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"\0" * 20))
    assert str(refusal(path)).startswith("unreadable: the file names no transfer syntax")


def test_element_twice_is_refused(write_dicom, film):
    path = write_dicom(film())
    rows = b"\x28\x00\x10\x00US\x02\x00\x3d\x00"
    path.write_bytes(path.read_bytes().replace(rows, rows + rows))
    assert str(refusal(path)) == "contradictory: the header holds (0028,0010) twice"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2}, RefusalReason.MULTI_FRAME),
        ({"NumberOfFrames": 0}, RefusalReason.CONTRADICTORY),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, RefusalReason.NOT_GRAYSCALE),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, RefusalReason.NOT_GRAYSCALE),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, RefusalReason.UNSUPPORTED_PIXELS),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, RefusalReason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 6, "HighBit": 5}, RefusalReason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 17, "HighBit": 16}, RefusalReason.CONTRADICTORY),
        ({"BitsStored": 12, "HighBit": 9}, RefusalReason.CONTRADICTORY),
        ({"Rows": 0}, RefusalReason.CONTRADICTORY),
        ({"Rows": 60}, RefusalReason.CONTRADICTORY),
        ({"Rows": 62}, RefusalReason.TRUNCATED),
        ({"Rows": None}, RefusalReason.UNREADABLE),
        ({"PixelData": None}, RefusalReason.NO_PIXELS),
        ({"RescaleSlope": 0}, RefusalReason.CONTRADICTORY),
        ({"WindowCenter": 100, "WindowWidth": 0.5}, RefusalReason.CONTRADICTORY),
        ({"WindowCenter": 100}, RefusalReason.CONTRADICTORY),
        ({"WindowCenter": 90000, "WindowWidth": 100}, RefusalReason.CONTRADICTORY),
        ({"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, RefusalReason.UNSUPPORTED_PIXELS),
        ({"PresentationLUTShape": "LIN OD"}, RefusalReason.UNSUPPORTED_PIXELS),
    ],
)
def test_image_that_is_refused(write_dicom, dataset, save, film, elements, reason):
    path = save(dataset(film())) if "PixelData" in elements else write_dicom(film(), **elements)
    assert refusal(path).reason is reason


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SOPClassUID": CTImageStorage, "Modality": "CT"}, RefusalReason.NOT_A_RADIOGRAPH),
        ({"Modality": "MG"}, RefusalReason.NOT_A_RADIOGRAPH),
        ({"Modality": None}, RefusalReason.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "CR"}, None),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, None),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT", "BodyPartExamined": ""}, "not_a_radiograph"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "US"}, RefusalReason.NOT_A_RADIOGRAPH),
        ({"BodyPartExamined": "RIBCAGE"}, RefusalReason.NOT_A_CHEST),
        ({"BodyPartExamined": "HIP"}, RefusalReason.NOT_A_CHEST),
        ({"BodyPartExamined": "CHEST ABDOMEN"}, RefusalReason.NOT_A_CHEST),
        ({"BodyPartExamined": "TÓRAX"}, None),
        ({"BodyPartExamined": "CHEST 2 VIEWS PA AND LAT"}, None),
        ({"BodyPartExamined": "CHEST LATERAL"}, RefusalReason.NOT_FRONTAL_CHEST),
        ({"BodyPartExamined": None}, None),
        ({"ViewPosition": "LL"}, RefusalReason.NOT_FRONTAL_CHEST),
        ({"ViewPosition": "LLO"}, RefusalReason.NOT_FRONTAL_CHEST),
        ({"ViewPosition": "LATERAL"}, RefusalReason.NOT_FRONTAL_CHEST),
        ({"ViewPosition": "PA LATERAL"}, RefusalReason.NOT_FRONTAL_CHEST),
        ({"ViewPosition": "CHEST AP LAT"}, RefusalReason.NOT_FRONTAL_CHEST),
        ({"ViewPosition": "AP"}, None),
        ({"ViewPosition": None}, None),
        ({"PatientSpeciesDescription": "Canine"}, RefusalReason.NOT_A_CHEST),
        ({"PatientSpeciesDescription": "Homo sapiens"}, None),
        ({"PatientBreedDescription": "Beagle"}, RefusalReason.NOT_A_CHEST),
        ({"AcquisitionDeviceProcessingDescription": "CANINE THORAX"}, RefusalReason.NOT_A_CHEST),
        ({"AcquisitionDeviceProcessingDescription": "Chest lat", "ViewPosition": ""}, "not_frontal_chest"),
        ({"AcquisitionDeviceProcessingDescription": "Chest PA/lat", "ViewPosition": ""}, None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS:UserWarning", "ignore:The value length:UserWarning")
def test_admission(write_dicom, film, elements, reason):
    path = write_dicom(film(), SpecificCharacterSet="ISO_IR 192", **elements)
    if reason is None:
        np.testing.assert_array_equal(read_radiograph(path).pixels, film())
    else:
        assert refusal(path).reason is RefusalReason(reason)


@pytest.mark.parametrize(
    ("sequence", "meaning", "reason"),
    [
        ("AnatomicRegionSequence", "Chest", None),
        ("AnatomicRegionSequence", "Hand", RefusalReason.NOT_A_CHEST),
        ("ViewCodeSequence", "left lateral", RefusalReason.NOT_FRONTAL_CHEST),
        ("ViewCodeSequence", "postero-anterior", None),
        ("PatientSpeciesCodeSequence", "Felis catus", RefusalReason.NOT_A_CHEST),
        ("PatientSpeciesCodeSequence", "homo sapiens", None),
    ],
)
def test_admission_by_code(write_dicom, film, sequence, meaning, reason):
    item = Dataset()
    item.CodeMeaning = meaning
    path = write_dicom(film(), **{sequence: [item], "ViewPosition": "", "BodyPartExamined": ""})
    if reason is None:
        assert read_radiograph(path).shape == (61, 47)
    else:
        assert refusal(path).reason is reason


@pytest.mark.parametrize("view", ["", "PA"])
def test_an_examination_of_several_views_is_noted_where_the_film_has_none(write_dicom, film, view):
    text = "CHEST PA AND LAT"
    for element in ("BodyPartExamined", "AcquisitionDeviceProcessingDescription"):
        notes = read_radiograph(write_dicom(film(), **{element: text, "ViewPosition": view})).notes
        assert (f"the header says {text!r} and not which view this film is" in notes) is (view == "")


def test_notes_tell_what_was_odd(write_dicom, film):
    path = write_dicom(
        film(), BodyPartExamined="", ViewPosition="VIEW X", PatientOrientation=["H", "L"], BurnedInAnnotation="YES",
        WindowCenter=[2000, 100], WindowWidth=[4000, 200],
    )  # fmt: skip
    assert read_radiograph(path).notes == (
        "text is burnt into the film",
        "the header names no body part",
        "the view 'VIEW X' is unknown here",
        "patient orientation 'H/L'; a frontal film is L/F. It is not turned",
        "the header has 2 windows; the first is used",
    )


def test_threads_read_the_same(write_dicom, film):
    pixels = film("uint16", (301, 211))
    paths = [write_dicom(pixels, syntax) for syntax in (*NATIVE, *LOSSLESS)] * 4
    with ThreadPoolExecutor(8) as pool:
        for radiograph in pool.map(read_radiograph, paths):
            np.testing.assert_array_equal(radiograph.pixels, pixels)


@pytest.mark.parametrize(
    "shape",
    [
        {"PixelAspectRatio": [2, 1]},
        {"PixelSpacing": [0.14, 0.28]},
        {"ImagerPixelSpacing": [0.2, 0.1]},
        {"PixelSpacing": [0.14, 0.14], "PixelAspectRatio": [1, 2]},
    ],
)
def test_pixels_that_are_not_square_are_refused(write_dicom, film, shape):
    assert "the pixels are not square" in str(refusal(write_dicom(film(), **shape)))


@pytest.mark.parametrize(
    "shape", [{"PixelSpacing": [0.14, 0.143]}, {"PixelAspectRatio": [1, 1]}, {"ImagerPixelSpacing": [0, 0]}]
)
def test_pixels_that_are_nearly_square_are_read(write_dicom, film, shape):
    assert read_radiograph(write_dicom(film(), **shape)).pixels.shape == film().shape

"""Report and capture, read back with pydicom: right study, own series, the record's values, whatever the header."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from edgecxr.errors import DrawingError, RefusalReason, ResultError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import ResultSection
from edgecxr.runtimes.node.drawing_process import Picture
from edgecxr.runtimes.node.results import build
from edgecxr.runtimes.node.results.drawing import BANNER

KINDS = pytest.mark.parametrize("kind", ["sr", "capture"])
SOURCE_OF = {"StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "StudyTime", "PatientSex", "StudyID"}


def raw(dataset: pydicom.Dataset, keyword: str) -> bytes:
    """The bytes of a value, as they would be written."""
    value = dataset.get_item(keyword).value
    return bytes(value or b"")


def texts(dataset: pydicom.Dataset) -> list[str]:
    """Every TEXT of a report, depth first."""
    found = [dataset.TextValue] if dataset.get("ValueType") == "TEXT" else []
    return found + [text for item in dataset.get("ContentSequence", ()) for text in texts(item)]


def numbers(dataset: pydicom.Dataset) -> list[float]:
    """Every NUM of a report."""
    own = [float(dataset.MeasuredValueSequence[0].NumericValue)] if dataset.get("ValueType") == "NUM" else []
    return own + [value for item in dataset.get("ContentSequence", ()) for value in numbers(item)]


def meanings(dataset: pydicom.Dataset) -> list[str]:
    """The meaning of every CODE of a report."""
    own = [dataset.ConceptCodeSequence[0].CodeMeaning] if dataset.get("ValueType") == "CODE" else []
    return own + [value for item in dataset.get("ContentSequence", ()) for value in meanings(item)]


@KINDS
def test_it_lies_in_the_study_of_the_image_and_a_series_of_its_own(phantom: Any, kind: str) -> None:
    source, made = pydicom.dcmread(phantom.path), phantom.build(kind)
    for keyword in SOURCE_OF:
        assert made[keyword].value == source[keyword].value
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert made.SeriesInstanceUID.startswith("2.25.")
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert (made.Manufacturer, made.InstitutionName, made.StationName) == ("EdgeCXR", "Clinic", "UNIT1")
    assert made.DeviceSerialNumber == "SN-7"
    assert phantom.result.record["bundle"] in made.SoftwareVersions
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert phantom.build("sr").SeriesInstanceUID != phantom.build("capture").SeriesInstanceUID


@KINDS
def test_it_is_the_same_to_the_byte_when_it_is_made_again(phantom: Any, kind: str, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    assert phantom.save(kind, first).read_bytes() == phantom.save(kind, second).read_bytes()


@KINDS
def test_times_are_those_of_the_decision_in_the_zone_that_is_stated(phantom: Any, kind: str) -> None:
    made = phantom.build(kind)
    assert (made.ContentDate, made.ContentTime, made.TimezoneOffsetFromUTC) == ("20260921", "195820", "+0545")
    assert (made.InstanceCreationDate, made.InstanceCreationTime) == ("20260921", "195820")
    west = phantom.build(kind, ResultSection(timezone="-0330"))
    assert (west.ContentDate, west.ContentTime, west.TimezoneOffsetFromUTC) == ("20260921", "104320", "-0330")


@KINDS
def test_the_zone_of_the_image_holds_for_the_whole_object(altered: Callable[..., Any], kind: str) -> None:
    made = altered(TimezoneOffsetFromUTC="-0500").build(kind)
    assert (made.TimezoneOffsetFromUTC, made.ContentTime) == ("-0500", "091320")
    assert made.StudyTime == "080000"


@KINDS
def test_without_a_zone_the_machines_own_is_stated(phantom: Any, kind: str) -> None:
    made = phantom.build(kind, ResultSection())
    assert len(made.TimezoneOffsetFromUTC) == 5
    assert made.TimezoneOffsetFromUTC[0] in "+-"


def test_the_report_has_the_values_of_the_record(phantom: Any) -> None:
    record = phantom.result.record
    made = highdicom.sr.ComprehensiveSR.from_dataset(phantom.build("sr"))
    groups = made.content.get_image_measurement_groups()
    assert len(groups) == len(record["findings"])
    for group, finding in zip(groups, record["findings"], strict=True):
        values = [float(one.value) for one in group.get_measurements()]
        assert values == pytest.approx([finding["probability"], finding["threshold"]], rel=1e-8)
        decision = [code.value.meaning for code in group.get_qualitative_evaluations()]
        assert decision == [finding["decision"].capitalize()]
        assert group.tracking_identifier.startswith(finding["name"])
        assert group.tracking_uid
    source = pydicom.dcmread(phantom.path)
    evidence = (source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID, source.SOPClassUID)
    assert made.get_evidence() == [evidence]
    assert made.content.get_observer_contexts(codes.DCM.Device)


def test_the_report_says_which_algorithm_and_what_it_is_for(phantom: Any) -> None:
    record = phantom.result.record
    said = texts(phantom.build("sr"))
    assert record["model"]["name"] in said
    assert record["model"]["version"] in said
    assert f"bundle SHA-256: {record['bundle']}" in said
    assert f"engine: {record['engine']}" in said
    assert f"operating point: {record['operating_point']}" in said
    assert "RESEARCH USE ONLY - NOT FOR DIAGNOSIS" in said


def test_a_finding_without_a_standard_code_keeps_its_name(phantom: Any) -> None:
    findings = [{**finding, "name": "honeycomb_lung pattern"} for finding in phantom.result.record["findings"][:1]]
    made = phantom.recorded(findings=findings).build("sr")
    assert "honeycomb lung pattern" in meanings(made)
    assert made.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99EDGECXR"


@pytest.mark.parametrize("reason", list(RefusalReason))
def test_the_report_of_a_refused_image_has_a_reason_and_no_number(phantom: Any, reason: RefusalReason) -> None:
    made = phantom.refused(reason, "because … of “ジ” it").build("sr")
    assert numbers(made) == []
    assert "Finding" not in str(made)
    assert "Refused: not screened" in meanings(made)
    assert reason.value.replace("_", " ") in meanings(made)
    assert any("because ..." in text for text in texts(made))
    assert not {"Positive", "Negative", "Plain X-ray of chest"} & set(meanings(made))
    assert "Imaging procedure" in meanings(made)


def test_a_result_in_doubt_says_so(phantom: Any) -> None:
    doubtful = replace(phantom, result=replace(phantom.result, doubt="its engine failed its next proof"))
    told = "IN DOUBT: its engine failed its next proof"
    assert f"Note: {told}" in texts(doubtful.build("sr"))
    assert told in doubtful.build("capture").ImageComments
    assert "IN DOUBT" not in " ".join(texts(phantom.build("sr")))
    before, after = (case.build("capture").pixel_array for case in (phantom, doubtful))
    assert not np.array_equal(before[:BANNER], after[:BANNER])
    assert np.array_equal(before[BANNER:], after[BANNER:])


def test_the_capture_is_a_colour_picture_that_measures_nothing(phantom: Any) -> None:
    made = phantom.build("capture")
    pixels = made.pixel_array
    assert pixels.shape == (made.Rows, made.Columns, 3)
    assert max(pixels.shape) <= 1024
    assert made.PhotometricInterpretation == "RGB"
    assert "PixelSpacing" not in made
    assert "ImagerPixelSpacing" not in made
    assert made.BurnedInAnnotation == "NO"
    assert made.ImageType[0] == "DERIVED"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(phantom.path).SOPInstanceUID
    assert "RESEARCH USE ONLY" in made.DerivationDescription


def test_a_film_that_names_the_patient_gives_a_capture_that_says_so(altered: Callable[..., Any]) -> None:
    assert altered(BurnedInAnnotation="YES").build("capture").BurnedInAnnotation == "YES"
    assert altered(BurnedInAnnotation="NO").build("capture").BurnedInAnnotation == "NO"
    assert "BurnedInAnnotation" not in altered(BurnedInAnnotation=None).build("capture")


def test_once_lossy_always_lossy(phantom: Any, altered: Callable[..., Any]) -> None:
    assert phantom.build("capture").LossyImageCompression == "00"
    assert altered(LossyImageCompression="01").build("capture").LossyImageCompression == "01"


def test_the_capture_of_a_decided_film_has_colour_and_of_a_refused_one_has_none(phantom: Any) -> None:
    def coloured(pixels: Any) -> int:  # inside the film, below the banner
        film = pixels[60:600].astype(int)
        return int((np.ptp(film, axis=2) > 20).sum())

    assert coloured(phantom.build("capture").pixel_array) > 1000
    refused = phantom.refused(RefusalReason.NOT_FRONTAL_CHEST, "far away").build("capture")
    assert coloured(refused.pixel_array) == 0
    assert "REFUSED" in refused.DerivationDescription


@pytest.mark.parametrize("shape", [(64, 1024), (1024, 64), (32, 32), (700, 1400), (1400, 700)])
def test_the_capture_holds_films_of_every_shape(phantom: Any, tmp_path: Path, shape: tuple[int, int]) -> None:
    film = chest(1, size=max(shape))
    cut = replace(film, pixels=np.ascontiguousarray(film.pixels[: shape[0], : shape[1]]))
    made = replace(phantom, path=write_dicom(cut, tmp_path / "cut.dcm")).build("capture")
    assert max(made.Rows, made.Columns) <= 1024
    assert made.Columns >= 640


def test_many_findings_fit(phantom: Any) -> None:
    first = phantom.result.record["findings"][0]
    long = [{**first, "probability": n / 30} for n in range(20)]
    assert max(phantom.recorded(findings=long).build("capture").pixel_array.shape) <= 1024


@KINDS
@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        (b"\\ISO 2022 IR 149", b"Kim^Huijung=\x1b$)C\xb1\xe8\x1b(B"),
        (b"GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"),
        (b"ISO_IR 192", "Ærø^Žluťoučký".encode()),
        (None, "Иванов^Иван".encode("cp1251")),
        (b"NO SUCH SET", "Иванов^Иван".encode("cp1251")),
        (b"ISO_IR 192", b"<script>alert('x')</script>^\"&"),
    ],
)
def test_names_keep_their_bytes(
    altered: Callable[..., Any], kind: str, charset: bytes | None, name: bytes, tmp_path: Path
) -> None:
    case = altered(SpecificCharacterSet=charset, PatientName=name)
    made = case.build(kind)
    assert raw(made, "PatientName").rstrip() == name
    assert raw(pydicom.dcmread(case.save(kind, tmp_path)), "PatientName").rstrip() == name
    declared = "SpecificCharacterSet" in made
    assert declared == (charset is not None and charset != b"NO SUCH SET")


@KINDS
@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientSex", b"X", b""),
        ("PatientBirthDate", b"1960.01.01", b""),
        ("PatientBirthDate", b"19600231", b""),
        ("PatientBirthDate", b"19600228", b"19600228"),
        ("PatientID", b"1" * 65, b""),
        ("PatientID", b"1" * 64, b"1" * 64),
        ("PatientID", b"a\\b", b""),
        ("PatientID", b"a\x07b", b""),
        ("PatientName", b"x" * 65, b""),
        ("PatientName", b"a^b^c^d^e^f", b""),
        ("AccessionNumber", b"12345678901234567", b""),
        ("StudyTime", b"25", b""),
        ("StudyDate", b"", b""),
        ("StudyID", None, b""),
        ("ReferringPhysicianName", None, b""),
    ],
)
def test_illegal_values_are_left_empty(
    altered: Callable[..., Any], kind: str, keyword: str, value: bytes | None, kept: bytes
) -> None:
    made = altered(**{keyword: value}).build(kind)
    assert keyword in made
    assert raw(made, keyword).rstrip() == kept
    noted = f"{keyword} of the image is not legal in DICOM and was left out"
    said = texts(made) if kind == "sr" else [made.ImageComments]
    assert any(noted in text for text in said) == bool(value and not kept)


@KINDS
def test_what_acquired_the_image_is_said_in_ascii(altered: Callable[..., Any], kind: str) -> None:
    made = altered(Manufacturer="Works of X\\ray", StationName="ROOM 2").build(kind)
    assert len(made.ContributingEquipmentSequence) == 1
    made = altered(Manufacturer="Works", StationName="ROOM 2", InstitutionName="Klinik Süd".encode()).build(kind)
    acquisition = made.ContributingEquipmentSequence[1]
    assert (acquisition.Manufacturer, acquisition.StationName) == ("Works", "ROOM 2")
    assert "InstitutionName" not in acquisition


@KINDS
def test_an_illegal_optional_value_is_dropped(altered: Callable[..., Any], kind: str) -> None:
    assert "PatientAge" not in altered(PatientAge="55").build(kind)
    assert altered(PatientAge="055Y").build(kind).PatientAge == "055Y"


@KINDS
def test_a_uid_with_leading_zeros_is_kept_so_that_the_study_stays_one(altered: Callable[..., Any], kind: str) -> None:
    made = altered(StudyInstanceUID="1.2.03.4").build(kind)
    assert raw(made, "StudyInstanceUID").rstrip(b"\0") == b"1.2.03.4"


@KINDS
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_image_of_no_study_gives_no_object(altered: Callable[..., Any], kind: str, keyword: str) -> None:
    with pytest.raises(ResultError, match=f"no {keyword}"):
        altered(**{keyword: None}).build(kind)
    with pytest.raises(ResultError, match=f"{keyword} is no UID"):
        altered(**{keyword: "1.2.drop"}).build(kind)


@KINDS
def test_a_png_gives_no_object(phantom: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ResultError, match="not a DICOM file"):
        replace(phantom, path=path).build(kind)


@KINDS
@pytest.mark.parametrize("share", [0.6, 0.2])
def test_a_truncated_image_has_a_result_in_its_study(
    screened: Callable[[Path], Any], phantom: Any, kind: str, share: float, tmp_path: Path
) -> None:
    data = phantom.path.read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(data[: int(len(data) * share)])
    case = screened(path)
    assert case.result.record["reason"] == "truncated"
    made = case.build(kind)
    assert made.StudyInstanceUID == pydicom.dcmread(phantom.path).StudyInstanceUID


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.481.5", "1.2.3.4"])
def test_what_is_no_image_is_not_called_one(altered: Callable[..., Any], sop_class: str) -> None:
    case = altered(SOPClassUID=sop_class).refused(RefusalReason.NOT_A_RADIOGRAPH, "it is a plan")
    made = case.build("sr")
    kinds = {item.ValueType for item in _items(made)}
    assert "COMPOSITE" in kinds
    assert "IMAGE" not in kinds
    (study,) = made.CurrentRequestedProcedureEvidenceSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPClassUID == sop_class
    assert "SourceImageSequence" not in case.build("capture")


def _items(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [item for child in dataset.get("ContentSequence", ()) for item in (child, *_items(child))]


def test_other_kinds_and_results_of_other_images_are_refused(phantom: Any) -> None:
    with pytest.raises(ResultError, match="choose one of sr, capture"):
        phantom.build("pdf")
    with pytest.raises(ResultError, match="the result is of image 8, not of image 7"):
        replace(phantom, result=replace(phantom.result, image=8)).build("sr")


@pytest.mark.shared_data
@KINDS
def test_every_shared_file_has_a_result_or_a_reason(
    shared_dicom: Path, screened: Callable[[Path], Any], phantom: Any, kind: str
) -> None:
    made = 0
    for path in sorted(shared_dicom.iterdir()):
        case = replace(phantom.refused(RefusalReason.UNREADABLE, "as a test"), path=path)
        try:
            result = case.build(kind)
        except ResultError:
            continue
        made += 1
        assert result.StudyInstanceUID
        assert kind != "sr" or not numbers(result)
    assert made > 40


@pytest.mark.parametrize("given_up", [False, True])
def test_a_film_whose_drawing_fails_keeps_no_result_back(phantom: Any, given_up: bool) -> None:
    def fails(tallest: int, longest: int) -> Picture:
        raise DrawingError("its drawing failed twice: the drawing process died (SIGSEGV)", given_up=given_up)

    made = phantom.image, phantom.result, phantom.path, "2.25.1"
    settings = ResultSection()
    assert numbers(build("sr", *made, settings=settings, draw=fails)) == numbers(phantom.build("sr"))
    if not given_up:
        with pytest.raises(DrawingError, match="SIGSEGV"):
            build("capture", *made, settings=settings, draw=fails)
        return
    capture = build("capture", *made, settings=settings, draw=fails)
    for text in (capture.ImageComments, capture.DerivationDescription):
        assert "No picture: its drawing failed twice: the drawing process died (SIGSEGV). Result of" in text
        assert "Heatmap by" not in text
    assert capture.pixel_array.shape[0] < phantom.build("capture").pixel_array.shape[0]

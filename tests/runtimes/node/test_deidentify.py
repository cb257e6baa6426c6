"""De-identified copies: nothing of the patient is in the bytes, what belongs together stays together."""

import copy
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.uid import generate_uid

from edgecxr.errors import ResultError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.deidentify import Deidentifier

SECRET = "Zebulon"
PLANTED: dict[str, Any] = {
    **dict.fromkeys(("LO", "LT", "PN", "SH", "ST", "UC", "UT", "AE"), SECRET),
    "CS": SECRET.upper(),
    "DA": "19870706",
    "DT": "19870706123456",
    "TM": "123456.7654",
    "AS": "077Y",
    "UI": "1.2.826.0.1.3680043.8.498.987654321",
    "UR": f"http://{SECRET}",
    **dict.fromkeys(("OB", "UN", "OW"), SECRET.encode() + b" "),
}
TRACES = (b"zebulon", b"19870706", b"123456", b"077Y".lower(), b"987654321")


@pytest.fixture
def film(tmp_path: Path) -> pydicom.FileDataset:
    return pydicom.dcmread(write_dicom(chest(1, size=64), tmp_path / "film.dcm"))


def saved(dataset: pydicom.FileDataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def copied(source: Path, folder: Path, **options: Any) -> pydicom.FileDataset:
    return pydicom.dcmread(Deidentifier().write(source, folder, **options))


def plant(dataset: Dataset, depth: int) -> None:
    """Every attribute of table E.1-1, and inside every sequence of it, with a value that must not come out."""
    for tag in table.ALL_TAGS:
        if len(tag) > 2 or not dictionary_has_tag(tag) or tag[0] < 8 or (tag[0] << 16) + tag[1] == 0x00080018:
            continue
        vr = dictionary_VR(tag)
        if vr == "SQ" and depth:
            item = Dataset()
            plant(item, depth - 1)
            dataset[tag] = DataElement(tag, vr, [item])
        elif vr in PLANTED:
            dataset[tag] = DataElement(tag, vr, PLANTED[vr])


def test_no_attribute_of_the_table_comes_out_at_any_depth(tmp_path: Path, film: pydicom.FileDataset) -> None:
    inner = Dataset()
    plant(inner, 0)
    kept = Dataset()
    kept.CodeValue = "kept"
    kept.ReferencedImageSequence = [copy.deepcopy(inner)]
    film.ViewCodeSequence = [kept]
    plant(film, 1)
    source = saved(film, tmp_path / "source.dcm")
    assert all(trace in source.read_bytes().lower() for trace in TRACES)
    path = Deidentifier().write(source, tmp_path)
    data = path.read_bytes().lower()
    assert [trace for trace in TRACES if trace in data] == []
    assert pydicom.dcmread(path).ViewCodeSequence[0].CodeValue == "kept"


def test_what_table_and_standard_do_not_know(tmp_path: Path, film: pydicom.FileDataset) -> None:
    block = film.private_block(0x0029, "MAKER", create=True)
    block.add_new(1, "LO", SECRET)
    film.add_new(0x60003000, "OW", SECRET.encode() + b" ")
    film.add_new(0x60000010, "US", 8)
    film.add_new(0x00091001, "LO", SECRET)
    film.add_new(0x00080A0A, "LO", SECRET)
    item = Dataset()
    item.private_block(0x0029, "MAKER", create=True).add_new(1, "LO", SECRET)
    film.ViewCodeSequence = [item]
    film.file_meta.SourceApplicationEntityTitle = SECRET
    film.file_meta.PrivateInformationCreatorUID = generate_uid()
    film.file_meta.PrivateInformation = SECRET.encode() + b" "
    film.preamble = (SECRET.encode() * 30)[:128]
    path = Deidentifier().write(saved(film, tmp_path / "source.dcm"), tmp_path)
    assert SECRET.lower().encode() not in path.read_bytes().lower()
    assert not any(int(tag[3], 16) % 2 or tag[:2] == "60" for tag in pydicom.dcmread(path).to_json_dict())


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big", "deflated", "jpeg_lossless"])
def test_pixels_stay_and_the_method_is_told(tmp_path: Path, syntax: str) -> None:
    source = write_dicom(chest(1, size=64), tmp_path / "film.dcm", syntax=syntax)
    original, made = pydicom.dcmread(source), copied(source, tmp_path)
    assert made.PixelData == original.PixelData
    assert made.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
    assert made.PatientIdentityRemoved == "YES"
    assert "Basic Application" in made.DeidentificationMethod
    assert len(made.DeidentificationMethod) <= 64
    code = made.DeidentificationMethodCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID != original.SOPInstanceUID
    for keyword in ("Rows", "BitsStored", "PhotometricInterpretation", "Modality", "SOPClassUID"):
        assert made[keyword].value == original[keyword].value
    assert (made.get("StudyDate"), made.get("PatientBirthDate", "")) == ("", "")


def test_uids_and_patients_are_replaced_consistently(tmp_path: Path, film: pydicom.FileDataset) -> None:
    sources = []
    for number, patient in enumerate(["A", "B", "A"]):
        film.PatientID, film.PatientName = patient, f"Name^{patient}"
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        sources.append(saved(film, tmp_path / f"{number}.dcm"))
    deidentifier = Deidentifier()
    made = [pydicom.dcmread(deidentifier.write(source, tmp_path)) for source in sources]
    assert [str(one.PatientID) for one in made] == ["P00001", "P00002", "P00001"]
    assert [str(one.PatientName) for one in made] == ["P00001", "P00002", "P00001"]
    assert len({one.StudyInstanceUID for one in made}) == 1
    assert len({one.SOPInstanceUID for one in made}) == 3
    assert made[0].StudyInstanceUID != film.StudyInstanceUID
    assert made[0].StudyInstanceUID.is_valid
    again = pydicom.dcmread(Deidentifier().write(sources[0], tmp_path))
    assert again.StudyInstanceUID != made[0].StudyInstanceUID


@pytest.mark.parametrize("value", ["YES", "PERHAPS"])
def test_a_burnt_in_name_is_not_let_out(tmp_path: Path, film: pydicom.FileDataset, value: str) -> None:
    film.add_new("BurnedInAnnotation", "CS", value)
    source = saved(film, tmp_path / "source.dcm")
    with pytest.raises(ResultError, match="BurnedInAnnotation is YES"):
        Deidentifier().write(source, tmp_path)
    assert copied(source, tmp_path, allow_burned_in=True).PatientIdentityRemoved == "YES"


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.77.1.4"]
)
def test_pictures_of_anything_are_not_let_out(tmp_path: Path, film: pydicom.FileDataset, uid: str) -> None:
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = uid
    source = saved(film, tmp_path / "source.dcm")
    with pytest.raises(ResultError, match="in their pixels"):
        Deidentifier().write(source, tmp_path)
    assert copied(source, tmp_path, allow_burned_in=True).SOPClassUID == uid


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM", bytes(128) + b"DICM\2\0\x10\0UI\x04\0junk"]
)
def test_what_is_no_sound_dicom_file_is_not_let_out(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "source").write_bytes(data)
    with pytest.raises(ResultError, match="only a sound DICOM file can be de-identified"):
        Deidentifier().write(tmp_path / "source", tmp_path)


def test_a_film_that_breaks_off_is_not_let_out(tmp_path: Path, film: pydicom.FileDataset) -> None:
    source = saved(film, tmp_path / "source.dcm")
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(ResultError, match="only a sound DICOM file"):
        Deidentifier().write(source, tmp_path)


@pytest.mark.shared_data
def test_real_files_lose_their_names_or_are_not_let_out(shared_dicom: Path, tmp_path: Path) -> None:
    deidentifier, made = Deidentifier(), 0
    for source in sorted(path for path in shared_dicom.iterdir() if path.stat().st_size < 20_000_000):
        try:
            path = deidentifier.write(source, tmp_path, allow_burned_in=True)
        except ResultError:
            continue
        made += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # real headers have values that the standard does not allow
            original, header = pydicom.dcmread(source), path.read_bytes()
            for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID"):
                raw = str(original.get(keyword) or "").encode("utf-8", "surrogateescape")
                assert len(raw) < 6 or raw not in header, (source.name, keyword)
    assert made > 20


@pytest.mark.peers
def test_dciodvfy_finds_no_new_error(tmp_path: Path, film: pydicom.FileDataset) -> None:
    source = saved(film, tmp_path / "source.dcm")

    def errors(path: Path) -> set[str]:
        done = subprocess.run([str(shutil.which("dciodvfy")), path], capture_output=True, text=True, check=False)
        return {line for line in done.stderr.splitlines() if line.startswith("Error")}

    assert errors(Deidentifier().write(source, tmp_path)) - errors(source) == set()


def test_pixels_decode_as_before(tmp_path: Path) -> None:
    source = write_dicom(chest(1, size=64), tmp_path / "film.dcm")
    assert np.array_equal(pydicom.dcmread(source).pixel_array, copied(source, tmp_path).pixel_array)

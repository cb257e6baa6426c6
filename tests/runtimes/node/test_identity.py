"""Whose film it is, from headers that are sound, foreign, cut short or no DICOM at all."""

from pathlib import Path

import pydicom
import pytest

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.identity import COLUMNS, read_identity


@pytest.fixture
def film(tmp_path: Path) -> pydicom.FileDataset:
    return pydicom.dcmread(write_dicom(chest(1, size=64), tmp_path / "film.dcm"))


def saved(film: pydicom.FileDataset, path: Path) -> Path:
    film.save_as(path)
    return path


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big", "deflated", "jpeg_lossless"])
def test_every_column_in_each_way_of_writing(tmp_path: Path, syntax: str) -> None:
    path = write_dicom(chest(1, size=64), tmp_path / "film.dcm", syntax=syntax)
    header = pydicom.dcmread(path)
    found = read_identity(path)
    assert list(found) == list(COLUMNS)
    assert found["patient_name"] == "Phantom^EdgeCXR"
    assert found["study_instance"] == header.StudyInstanceUID
    assert found["series_instance"] == header.SeriesInstanceUID
    assert (found["patient_sex"], found["study_date"], found["accession"]) == ("O", "20260101", "")


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 144", "Люкceмбypг"), ("ISO_IR 192", "山田^太郎"), ("ISO_IR 100", "Buc^Jérôme"), ("GB18030", "王^小东")],
)
def test_names_are_decoded_by_the_character_set(
    tmp_path: Path, film: pydicom.FileDataset, character_set: str, name: str
) -> None:
    film.SpecificCharacterSet, film.PatientName = character_set, name
    assert read_identity(saved(film, tmp_path / "named.dcm"))["patient_name"] == name


def test_code_extensions(tmp_path: Path, film: pydicom.FileDataset) -> None:
    film.SpecificCharacterSet, film.PatientName = ["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"
    assert read_identity(saved(film, tmp_path / "named.dcm"))["patient_name"] == "Yamada^Tarou=山田^太郎"


@pytest.mark.parametrize("character_set", [b"", b"NO SUCH SET ", b"ISO_IR 999"])
def test_a_character_set_that_is_absent_or_wrong_still_shows_something(
    tmp_path: Path, film: pydicom.FileDataset, character_set: bytes
) -> None:
    path = saved(film, tmp_path / "film.dcm")
    data = path.read_bytes().replace(b"CS\x0a\x00ISO_IR 192", b"CS\x0a\x00" + character_set[:10].ljust(10))
    path.write_bytes(data.replace(b"Phantom^EdgeCXR", b"Jos\xe9^EdgeCXRRR"))
    assert read_identity(path)["patient_name"].endswith("^EdgeCXRRR")


def test_a_film_cut_in_its_pixels_still_has_a_name(tmp_path: Path, film: pydicom.FileDataset) -> None:
    path = saved(film, tmp_path / "film.dcm")
    path.write_bytes(path.read_bytes()[:-2000])
    assert read_identity(path)["patient_name"] == "Phantom^EdgeCXR"


def test_control_characters_are_not_shown(tmp_path: Path, film: pydicom.FileDataset) -> None:
    path = saved(film, tmp_path / "film.dcm")
    path.write_bytes(path.read_bytes().replace(b"Phantom^EdgeCXR", b"A\x07\x1b[31m^B\r\nCDEF"))
    assert read_identity(path)["patient_name"].isprintable()


@pytest.mark.parametrize("content", [b"", b"x", b"\x89PNG\r\n\x1a\n" + b"\0" * 200, b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_has_no_identity(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert set(read_identity(path).values()) == {""}
    assert set(read_identity(tmp_path / "absent").values()) == {""}


@pytest.mark.shared_data
def test_no_real_or_hostile_file_raises(shared_dicom: Path) -> None:
    for path in sorted(shared_dicom.iterdir()):
        assert all(value.isprintable() and len(value) <= 1024 for value in read_identity(path).values()), path.name

"""What programs that nobody here wrote say of the result objects."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

from edgecxr.errors import RefusalReason, ResultError
from edgecxr.phantom import SYNTAXES, chest, write_dicom

pytestmark = pytest.mark.peers

KINDS = ("sr", "capture")
WAIVED_BY_SR_VALIDATOR = (
    # Context group 100 (PS3.16) is baseline and extensible; "plain X-ray of chest" is what was done.
    '(399208008,SCT,"Plain X-ray of chest") not found in context group 100',
    # TID 1501 row 13: qualitative evaluations are of any concept; the validator knows the templates of 2022.
    '(decision,99EDGECXR,"Screening decision"): Content Item not in template',
    '(outcome,99EDGECXR,"Screening outcome"): Content Item not in template',
    '(reason,99EDGECXR,"Reason for refusal"): Content Item not in template',
    # TID 1500 is extensible: what the result may be used for, and what was odd about the image.
    '(121106,DCM,"Comment"): Content Item not in template',
)
WAIVED_BY_DCENTVFY = (
    # It counts the Accession Number of an SR, which lies in the study (PS3.3 C.7.2.1), to the series of an image.
    "Different information entities for attribute - Element=<AccessionNumber>",
)
OF_THE_IMAGE = (
    # Bytes of names are kept. Where the image declares no character set for them, no object of its study can be clean.
    "Character invalid for character repertoire",
    # UIDs of the image under which there is no standard root are kept: the study must stay one.
    "Illegal root for UID",
    # The sum of the above, which are each reported on their own.
    "Dicom dataset contains invalid data values for Value Representations",
)


@pytest.fixture(scope="module")
def cases(
    phantom: Any, screened: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, Any]]:
    """Films decided and refused, of both modalities, whole and cut."""
    folder = tmp_path_factory.mktemp("cases")
    cut = folder / "cut.dcm"
    cut.write_bytes(phantom.path.read_bytes()[:100_000])
    file = pydicom.dcmread(phantom.path)
    file.PatientName, file.PatientID = "<script>alert(1)</script>^\"&'", "';DROP TABLE--"
    file.StudyInstanceUID = "2.25.77"
    file.save_as(folder / "hostile.dcm")
    return [
        ("decided", phantom),
        ("normal", screened(write_dicom(chest(5, "normal", size=300), folder / "normal.dcm", modality="CR"))),
        ("hand", screened(write_dicom(chest(5, size=300), folder / "hand.dcm", body_part="HAND"))),
        ("cut", screened(cut)),
        ("hostile", screened(folder / "hostile.dcm")),
        ("unlike", phantom.refused(RefusalReason.NOT_FRONTAL_CHEST, "far from every film … of “training”")),
    ]


@pytest.fixture(scope="module")
def objects(cases: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, str, Path]]:
    """Every case as report and capture, on disk."""
    root = tmp_path_factory.mktemp("objects")
    out = []
    for name, case in cases:
        (root / name).mkdir()
        out += [(case, kind, case.save(kind, root / name)) for kind in KINDS]
    return out


def complaints(text: str, waived: tuple[str, ...]) -> list[str]:
    """Lines that complain, but for the waived ones."""
    lines = [line for line in text.splitlines() if "Error" in line or "Warning" in line]
    return [line for line in lines if not any(waiver in line for waiver in waived)]


def errors(text: str, waived: tuple[str, ...] = ()) -> list[str]:
    return [line for line in complaints(text, waived) if "Error" in line]


def faults(text: str) -> list[str]:
    """What a program of dcmtk calls an error."""
    return [line for line in text.splitlines() if line.startswith(("E:", "F:"))]


def test_dciodvfy_finds_no_error(objects: list[tuple[Any, str, Path]], peer: Callable[..., str]) -> None:
    for _, kind, path in objects:
        said = peer("dciodvfy", path)
        assert {"sr": "ComprehensiveSR", "capture": "SCImage"}[kind] in said
        assert errors(said) == []


def test_dsrdump_reads_the_report(objects: list[tuple[Any, str, Path]], peer: Callable[..., str]) -> None:
    for case, kind, path in objects:
        if kind == "capture":
            continue
        said = peer("dsrdump", "+Pl", path)
        assert "Imaging Measurement Report" in said
        assert not faults(said)
        assert "RESEARCH USE ONLY - NOT FOR DIAGNOSIS" in said
        decided = case.result.status == "ok"
        assert ('"Probability"' in said) == decided
        assert ('"Refused: not screened"' in said) != decided


def test_dcentvfy_finds_one_patient_and_one_study(
    objects: list[tuple[Any, str, Path]], peer: Callable[..., str]
) -> None:
    for case, _, path in objects:
        if case.path.name != "cut.dcm":  # which it cannot read
            assert complaints(peer("dcentvfy", case.path, path), WAIVED_BY_DCENTVFY) == []


def test_the_report_obeys_its_template(objects: list[tuple[Any, str, Path]], peer: Callable[..., str]) -> None:
    for _, _, path in [one for one in objects if one[1] == "sr"]:
        said = peer("DicomSRValidator", path)
        assert "Found Root Template TID_1500 (MeasurementReport)" in said
        assert "IOD validation complete" in said
        assert complaints(said, WAIVED_BY_SR_VALIDATOR) == []


@pytest.mark.parametrize("syntax", ["implicit", "jpeg_lossless", "deflated", "big"])
def test_results_of_films_in_every_encoding_are_clean(
    phantom: Any, peer: Callable[..., str], syntax: str, tmp_path: Path
) -> None:
    assert syntax in SYNTAXES
    case = replace(phantom, path=write_dicom(chest(3, size=128), tmp_path / "film.dcm", syntax=syntax))
    for kind in KINDS:
        assert errors(peer("dciodvfy", case.save(kind, tmp_path))) == []


@dataclass(frozen=True)
class Archive:
    """A running Orthanc."""

    dicom: int
    http: int

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("orthanc")
    archive = Archive(*(_free_port() for _ in range(2)))
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "DicomPort": archive.dicom,
                "HttpPort": archive.http,
                "DicomAlwaysAllowStore": True,
                "AuthenticationEnabled": False,
                "Plugins": [],
            }
        )
    )
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin") or "Orthanc"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
        try:
            _await(archive, process)
            yield archive
        finally:
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await(archive: Archive, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        try:
            archive.get("/system")
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("Orthanc did not start")


def test_orthanc_stores_them_in_the_study_of_the_image(
    objects: list[tuple[Any, str, Path]], orthanc: Archive, peer: Callable[..., str]
) -> None:
    wanted: dict[str, set[str]] = {}
    for case, _, path in objects:
        sources = [] if case.path.name == "cut.dcm" else [case.path]
        said = peer("dcmsend", "-v", "127.0.0.1", str(orthanc.dicom), *sources, path)
        assert not faults(said)
        study = pydicom.dcmread(path, stop_before_pixels=True)
        wanted.setdefault(study.StudyInstanceUID, set()).add(study.SeriesInstanceUID)
    for uid, series in wanted.items():
        (study,) = [
            one for one in orthanc.get("/studies?expand") if one["MainDicomTags"]["StudyInstanceUID"] == str(uid)
        ]
        stored = [orthanc.get(f"/series/{one}")["MainDicomTags"] for one in study["Series"]]
        assert {str(one) for one in series} <= {one["SeriesInstanceUID"] for one in stored}
        assert {"SR", "OT"} <= {one["Modality"] for one in stored}


@pytest.mark.shared_data
def test_results_of_the_shared_files_are_clean(
    shared_dicom: Path, screened: Callable[[Path], Any], peer: Callable[..., str], tmp_path: Path
) -> None:
    clean = 0
    for path in sorted(shared_dicom.iterdir()):
        case = screened(path)
        itself = peer("dcentvfy", path)
        for kind in KINDS:
            try:
                made = case.save(kind, tmp_path)
            except ResultError:
                continue
            assert errors(peer("dciodvfy", made), OF_THE_IMAGE) == [], path.name
            if not errors(itself) and "Assertion" not in itself:  # it can be read
                assert errors(peer("dcentvfy", path, made)) == [], path.name
            if kind == "sr":
                assert not faults(peer("dsrdump", "-Ei", made)), path.name
            clean += 1
    assert clean >= 108  # of 134: of the others no object can be made

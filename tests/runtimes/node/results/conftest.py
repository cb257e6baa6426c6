"""Real films, screened by the shipped model, and the result objects that are made of them."""

import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

from edgecxr.errors import RefusalReason
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import ResultSection
from edgecxr.runtimes.node.images import Image, Result, State
from edgecxr.runtimes.node.results import build, to_record
from edgecxr.runtimes.node.results.codes import uid
from edgecxr.runtimes.screener import Screener

DECIDED = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC
SETTINGS = ResultSection(institution="Clinic", station="UNIT1", device_serial="SN-7", timezone="+0545")


@dataclass(frozen=True)
class Case:
    """One screened file."""

    path: Path
    image: Image
    result: Result

    def build(self, kind: str, settings: ResultSection = SETTINGS) -> pydicom.FileDataset:
        return build(kind, self.image, self.result, self.path, uid("test", kind, str(self.path)), settings=settings)

    def save(self, kind: str, folder: Path) -> Path:
        path = folder / f"{self.path.stem}.{kind}.dcm"
        self.build(kind).save_as(path, enforce_file_format=True)
        return path

    def recorded(self, **changes: Any) -> "Case":
        """The same film with another record; without its map where that says refused."""
        record = {**self.result.record, **changes}
        cam = None if record["status"] == "refused" else self.result.cam
        return replace(self, result=replace(self.result, record=record, status=record["status"], cam=cam))

    def refused(self, reason: RefusalReason, detail: str) -> "Case":
        return self.recorded(status="refused", reason=reason.value, detail=detail, findings=[], urgency=0.0)


@pytest.fixture(scope="session")
def screener() -> Iterator[Screener]:
    with Screener() as opened:
        yield opened


@pytest.fixture(scope="session")
def screened(screener: Screener) -> Callable[[Path], Case]:
    """Screen one file as the node does."""

    def screened(path: Path) -> Case:
        screening = screener.screen(path)
        image = Image(
            7, "", "", "", "dicom", "127.0.0.1", "UNIT", 0, DECIDED - 2, 0, State.SCREENING, 1, "", "new", path.name
        )
        record = to_record(screening, image, screener.bundle.spec, screener.point, DECIDED)
        return Case(path, image, Result(7, screening.status, record, screening.cam, DECIDED, record["urgency"]))

    return screened


@pytest.fixture(scope="session")
def phantom(screened: Callable[[Path], Case], tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A phantom with pneumonia, screened."""
    return screened(write_dicom(chest(3, "pneumonia", size=512), tmp_path_factory.mktemp("phantom") / "film.dcm"))


@pytest.fixture
def altered(phantom: Case, tmp_path: Path) -> Callable[..., Case]:
    """The phantom with other values in its header: text, or bytes as they stand in the file; None removes."""

    def altered(**values: str | bytes | None) -> Case:
        file = pydicom.dcmread(phantom.path)
        for keyword, value in values.items():
            if keyword in file:
                del file[keyword]
            if value is not None:
                raw = value if isinstance(value, bytes) else value.encode("ascii")
                _put(file, keyword, raw + b" " * (len(raw) % 2))
        with warnings.catch_warnings():  # of a character set that there is not
            warnings.simplefilter("ignore")
            return _saved(file)

    def _saved(file: pydicom.FileDataset) -> Case:
        file.set_original_encoding(False, True, file._character_set)
        path = tmp_path / f"altered-{len(list(tmp_path.iterdir()))}.dcm"
        pydicom.dcmwrite(path, file, implicit_vr=False, little_endian=True)
        return replace(phantom, path=path)

    return altered


def _put(file: pydicom.FileDataset, keyword: str, raw: bytes) -> None:
    tag = pydicom.tag.Tag(keyword)
    vr = pydicom.datadict.dictionary_VR(tag)
    file[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)


@pytest.fixture(scope="session")
def peer() -> Callable[..., str]:
    """Run a program; what it printed on both channels."""

    def peer(*command: str | Path) -> str:
        environment = {
            **os.environ,  # DicomSRValidator's XPath is larger than what Java allows unless told
            "JAVA_TOOL_OPTIONS": " ".join(
                f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprOp", "ExprGrp")
            ),
        }
        done = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=120,
            check=False,
        )
        return done.stdout.decode("utf-8", "replace")

    return peer

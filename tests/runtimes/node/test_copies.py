"""The same image twice: by its bytes, whoever sent or wrote it."""

from pathlib import Path

import pydicom
import pytest

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.copies import digest_uid, same_image
from edgecxr.runtimes.node.spool import Arrival, Spool, SpoolLimits
from edgecxr.runtimes.node.storage import EXPLICIT, IMPLICIT, meta_information

CR = "1.2.840.10008.5.1.4.1.1.1"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_dicom(chest(1, "normal", size=64), tmp_path / "film.dcm")


def from_unit(film: Path, ae: str, syntax: str = EXPLICIT) -> bytes:
    """The file as the receiver writes it when this application sends it."""
    arrival = Arrival(CR, "1.2.3", syntax, "dicom", calling_ae=ae)
    data = film.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")  # (0002,0000) tells the length of the rest of its group
    return meta_information(arrival) + data[start:]


def put(spool: Spool, data: bytes, syntax: str = EXPLICIT) -> str:
    with spool.part() as part:
        part.write(data)
        return spool.commit(part, Arrival(CR, "1.2.3", syntax, "dicom")).copy


def test_who_sent_it_makes_no_other_image(film: Path, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", SpoolLimits(refuse_below_mb=0))
    data = from_unit(film, "UNIT")
    assert put(spool, data) == "new"
    assert put(spool, from_unit(film, "A_ROUTER_BETWEEN")) == "same"
    assert put(spool, film.read_bytes()) == "same"
    assert put(spool, data[:-1] + bytes([data[-1] ^ 1])) == "other"
    assert put(spool, from_unit(film, "UNIT", IMPLICIT), IMPLICIT) == "other"  # the same bytes mean something else
    assert pydicom.dcmread(spool.path(spool.find("1.2.3")[0])).file_meta.SourceApplicationEntityTitle == "UNIT"
    spool.close()


def test_without_a_syntax_every_byte_counts(film: Path, tmp_path: Path) -> None:
    paths = tmp_path / "a", tmp_path / "b"
    for path, ae in zip(paths, ("A", "B"), strict=True):
        path.write_bytes(from_unit(film, ae))
    assert same_image(*paths, from_data_set=True)
    assert not same_image(*paths, from_data_set=False)


@pytest.mark.parametrize(
    "broken", [b"", b"DICM", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\2\0\1\0OB\0\0\xff\xff\xff\xff" + bytes(9)]
)
def test_what_has_no_data_set_is_compared_whole(tmp_path: Path, broken: bytes) -> None:
    paths = tmp_path / "a", tmp_path / "b"
    for path in paths:
        path.write_bytes(broken)
    assert same_image(*paths, from_data_set=True)
    paths[1].write_bytes(broken + b"x")
    assert not same_image(*paths, from_data_set=True)


def test_a_file_that_is_gone_or_cannot_be_read_is_like_no_other(film: Path, tmp_path: Path) -> None:
    assert not same_image(film, tmp_path / "gone", from_data_set=True)
    assert not same_image(film, tmp_path, from_data_set=True)


def test_a_uid_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"picture")
    uid = digest_uid(tmp_path / "a")
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    (tmp_path / "a").write_bytes(b"Picture")
    assert digest_uid(tmp_path / "a") != uid

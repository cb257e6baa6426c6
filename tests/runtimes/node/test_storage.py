"""C-STORE from pynetdicom and by hand: what lies in the spool afterwards, and what the answer says."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pynetdicom import AE, build_context

from edgecxr.read import pixels
from edgecxr.runtimes.node.dimse import Status
from edgecxr.runtimes.node.images import Arrival
from edgecxr.runtimes.node.storage import CLASSES, SYNTAXES, identity, meta_information

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DX, CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"


def a_film(instance: str = "1.2.3.4", side: int = 64, sop_class: str = DX, syntax: str = EXPLICIT) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = syntax, sop_class, instance
    film = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    film.SOPClassUID, film.SOPInstanceUID, film.Modality = sop_class, instance, "DX"
    film.PatientName, film.PatientID = "Doe^Jane", "P1"
    film.Rows = film.Columns = side
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    values = np.random.default_rng(side).integers(0, 4096, (side, side)).astype("<u2")
    film.PixelData = values.tobytes()
    film["PixelData"].VR = "OW"
    return film


def content(film: Dataset) -> bytes:
    """A data set as pydicom writes it, without its meta information."""
    buffer = io.BytesIO()
    dcmwrite(buffer, film, enforce_file_format=True)
    data = buffer.getvalue()
    return data[144 + int.from_bytes(data[140:144], "little") :]


def send(node: Any, *films: Dataset, syntax: str = EXPLICIT, max_pdu: int = 16382, ae: str = "MODALITY") -> list[Any]:
    """Statuses of a C-STORE of each film, on one association of pynetdicom."""
    caller = AE(ae_title=ae)
    caller.requested_contexts = [build_context(name, syntax) for name in sorted({f.SOPClassUID for f in films})]
    association = caller.associate("127.0.0.1", node.port, ae_title="EDGECXR", max_pdu=max_pdu)
    assert association.is_established
    statuses = [association.send_c_store(film, priority=1) for film in films]
    association.release()
    return statuses


def pdata(values: bytes) -> bytes:
    return b"\4\0" + len(values).to_bytes(4, "big") + values


def test_every_syntax_that_is_read_is_offered_and_no_other() -> None:
    assert set(SYNTAXES) == pixels.NATIVE | {pixels.ENCAPSULATED_NATIVE, pixels.RLE} | set(pixels.FRAMES)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_the_spool_holds_what_was_sent_behind_meta_information_of_ours(
    listening: Callable[..., Any], syntax: str
) -> None:
    node = listening()
    film = a_film(side=300, syntax=syntax)
    assert send(node, film, syntax=syntax)[0].Status == 0
    (image,) = node.spool.find("1.2.3.4")
    assert (image.sop_class, image.syntax, image.source, image.peer) == (DX, syntax, "dicom", "127.0.0.1")
    assert (image.calling_ae, image.priority, image.copy) == ("MODALITY", 1, "new")
    assert node.spool.path(image).read_bytes().endswith(content(film))
    read = dcmread(node.spool.path(image))
    assert read == film
    meta = read.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (
        DX,
        "1.2.3.4",
        syntax,
    )
    assert meta.SourceApplicationEntityTitle == "MODALITY"
    assert node.receiver.statistics()["stored_bytes"] == len(content(film))


@pytest.mark.parametrize("sop_class", sorted(CLASSES))
def test_every_offered_class_is_stored(listening: Callable[..., Any], sop_class: str) -> None:
    node = listening()
    assert send(node, a_film(sop_class=sop_class))[0].Status == 0
    assert node.spool.is_durable(sop_class, "1.2.3.4")


@pytest.mark.parametrize("max_pdu", [0, 4096, 65536])
def test_pdus_of_any_size_that_was_agreed(listening: Callable[..., Any], max_pdu: int) -> None:
    node = listening(max_pdu=max(max_pdu, 4096))
    film = a_film(side=500)
    assert send(node, film, max_pdu=max_pdu)[0].Status == 0
    assert node.spool.path(node.spool.find("1.2.3.4")[0]).read_bytes().endswith(content(film))


def test_sent_again_is_success_and_one_image_and_other_bytes_are_kept_beside_it(listening: Callable[..., Any]) -> None:
    node = listening()
    assert [status.Status for status in send(node, a_film(), a_film(), a_film(side=32))] == [0, 0, 0]
    assert [image.copy for image in node.spool.find("1.2.3.4")] == ["new", "other"]


def test_a_full_spool_refuses_before_pixels_and_the_association_goes_on(listening: Callable[..., Any]) -> None:
    node = listening(limits={"max_waiting": 1})
    first, second, echo = a_film("1.2.1"), a_film("1.2.2", side=400), a_film("1.2.3")
    statuses = send(node, first, second, echo)
    assert [status.Status for status in statuses] == [0, 0xA700, 0xA700]
    assert statuses[1].ErrorComment == "no room for another image"
    assert list((node.spool.folder / "incoming").iterdir()) == []
    assert node.receiver.statistics()["refused_full"] == 2


def test_a_disk_below_its_mark_refuses(listening: Callable[..., Any]) -> None:
    node = listening(limits={"refuse_below_mb": 1 << 40})
    assert send(node, a_film())[0].Status == 0xA700
    assert not node.spool.find("1.2.3.4")


def test_an_object_above_the_limit_is_drained_and_refused(listening: Callable[..., Any]) -> None:
    node = listening(limits={"max_object_mb": 1})
    large, small = send(node, a_film("1.2.1", side=900), a_film("1.2.2"))
    assert (large.Status, large.ErrorComment) == (0xA700, "the object is larger than is taken")
    assert small.Status == 0
    assert not node.spool.find("1.2.1")
    assert list((node.spool.folder / "incoming").iterdir()) == []


def test_a_fault_of_the_spool_is_a_processing_failure(listening: Callable[..., Any]) -> None:
    node = listening()
    folder = node.spool.folder / "incoming"
    folder.rmdir()
    folder.write_text("a file where a folder belongs")
    assert [status.Status for status in send(node, a_film("1.2.1"), a_film("1.2.2"))] == [0x0110, 0x0110]
    folder.unlink()
    folder.mkdir()
    assert send(node, a_film("1.2.3"))[0].Status == 0


@pytest.mark.parametrize(
    ("changes", "data", "status"),
    [
        ({}, b"", Status.CANNOT_UNDERSTAND),
        ({"x0800": b"\1\1"}, None, Status.CANNOT_UNDERSTAND),
        ({"x0002": CR.encode() + b"\0"}, b"\0" * 10, Status.CLASS_NOT_SUPPORTED),
        ({"x1000": b""}, b"\0" * 10, Status.INVALID_INSTANCE),
        ({"x1000": b"../etc/passwd\\1"}, b"\0" * 10, Status.INVALID_INSTANCE),
        ({"x1000": b"1" * 66}, b"\0" * 10, Status.INVALID_INSTANCE),
        ({}, b"\x08\0\x16\0UI\4\x001.2\0", Status.MISMATCH),
        ({}, b"\x08\0\x18\0UI\4\x009.9\0", Status.MISMATCH),
    ],
)
def test_what_cannot_be_stored_is_answered_with_its_status(
    listening: Callable[..., Any], changes: dict[str, bytes], data: bytes | None, status: Status
) -> None:
    node = listening()
    with node.peer() as peer:
        peer.associate(contexts={DX: (EXPLICIT,)})
        body = b"" if data is None else pdata(peer.value(data, control=2))
        peer.send(peer.store(DX, "1.2.3.4", **changes) + body)
        assert peer.status() == status
        assert peer.echo() == 0
    assert sum(node.spool.counts().values()) == 0
    assert node.receiver.statistics()["refused"] == 1


def test_priority_of_message_and_peer_are_added(listening: Callable[..., Any]) -> None:
    node = listening(peers=[{"ae": "MOBILE", "priority": 3}])
    assert send(node, a_film(), ae="MOBILE")[0].Status == 0
    assert node.spool.find("1.2.3.4")[0].priority == 4


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_the_identity_is_found_in_the_head_of_a_data_set(syntax: str) -> None:
    film = Dataset()
    film.SpecificCharacterSet, film.ImageType, film.SOPClassUID, film.SOPInstanceUID = "ISO_IR 6", ["A"], DX, "1.2.3"
    film.Modality = "DX"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        film.save_as(buffer, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG)
    assert identity(buffer.getvalue(), syntax) == (DX, "1.2.3")


@given(st.binary(max_size=300), st.sampled_from(sorted(SYNTAXES)))
def test_the_head_of_noise_has_no_identity_and_no_exception(head: bytes, syntax: str) -> None:
    assert len(identity(head, syntax)) == 2


def test_meta_information_is_read_by_pydicom_whatever_the_titles() -> None:
    data = meta_information(Arrival(DX, "1.2.345", EXPLICIT, "dicom", calling_ae="A B"))
    meta = dcmread(io.BytesIO(data)).file_meta
    assert meta.FileMetaInformationGroupLength == len(data) - 144
    assert (meta.MediaStorageSOPInstanceUID, meta.SourceApplicationEntityTitle) == ("1.2.345", "A B")
    assert meta.ImplementationClassUID.is_valid

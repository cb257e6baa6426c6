"""Comments in compressed pixels: nothing of them is left, and every value is decoded as before."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate

from edgecxr.errors import ResultError
from edgecxr.phantom import chest, write_dicom
from edgecxr.read import read_radiograph
from edgecxr.runtimes.node.comments import blanked, blanked_pixels, blanked_runs
from edgecxr.runtimes.node.deidentify import Deidentifier

ENCAPSULATED = "1.2.840.10008.1.2.1.98"
SECRET = b"Zebulon, born 19870706"
GRAY = (np.add.outer(np.arange(48), 3 * np.arange(64)) % 251).astype(np.uint8)
ADOBE = b"Adobe\0\x64\0\0\0\0\0"  # version 100, no transform
JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def told(stream: bytes) -> bytes:
    """A JPEG that talks: in a comment, in application data of every kind, between its scans and behind its end."""
    talk = (
        segment(0xFE, SECRET)
        + segment(0xE5, SECRET)
        + segment(0xE1, b"Exif\0\0" + SECRET)
        + segment(0xED, b"Photoshop 3.0\0" + SECRET)
    )
    talk += segment(0xE0, b"JFXX\0" + SECRET) + segment(0xE8, b"SPIFF\0" + SECRET) + segment(0xEE, ADOBE + SECRET)
    scan = stream.index(b"\xff\xda")
    return stream[:2] + talk + stream[2:scan] + b"\xff\xff" + segment(0xFE, SECRET)[1:] + stream[scan:] + SECRET


def codestream(stream: bytes) -> bytes:
    """A JPEG 2000 that talks in its main header and in that of its first tile-part."""
    comment = b"\xff\x64" + (len(SECRET) + 4).to_bytes(2, "big") + b"\0\1" + SECRET
    unknown = b"\xff\x6f" + (len(SECRET) + 2).to_bytes(2, "big") + SECRET  # of no standard; decoders pass over it
    tile = stream.index(b"\xff\x90")
    length = int.from_bytes(stream[tile + 6 : tile + 10], "big")
    longer = (length + len(comment) if length else 0).to_bytes(4, "big")
    part = stream[tile : tile + 6] + longer + stream[tile + 10 : tile + 12]
    return stream[:tile] + comment + unknown + part + comment + stream[tile + 12 :]


def box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def jp2(stream: bytes) -> bytes:
    size = (48).to_bytes(4, "big") + (64).to_bytes(4, "big") + b"\0\1\7\7\0\0"
    header = box(b"ihdr", size) + box(b"colr", b"\1\0\0" + (17).to_bytes(4, "big")) + box(b"xml ", SECRET)
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", header)
    return head + box(b"uuid", bytes(16) + SECRET) + box(b"jp2c", stream) + box(b"xml ", SECRET)


def streams() -> dict[str, tuple[bytes, Any]]:
    j2k = imagecodecs.jpeg2k_encode(GRAY, codecformat="j2k", reversible=True)
    return {
        "baseline": (told(imagecodecs.jpeg8_encode(GRAY)), imagecodecs.jpeg8_decode),
        "lossless": (told(imagecodecs.ljpeg_encode(GRAY)), imagecodecs.jpeg8_decode),
        "jpeg-ls": (told(imagecodecs.jpegls_encode(GRAY)), imagecodecs.jpegls_decode),
        "jpeg 2000": (codestream(j2k), imagecodecs.jpeg2k_decode),
        "jp2": (jp2(codestream(j2k)), imagecodecs.jpeg2k_decode),
    }


@pytest.mark.parametrize("name", list(streams()))
def test_nothing_is_told_and_no_value_changes(name: str) -> None:
    stream, decode = streams()[name]
    assert stream.count(b"Zebulon") >= 2
    made = blanked(stream)
    assert len(made) == len(stream)
    for word in (b"Zebulon", b"19870706"):
        assert word not in made
    assert np.array_equal(decode(made), decode(stream))
    assert decode(made).shape == GRAY.shape
    assert blanked(made) == made


def test_what_decoding_needs_is_kept() -> None:
    colour = np.dstack([GRAY, GRAY.T.copy().reshape(48, 64), 255 - GRAY])
    plain = imagecodecs.jpeg8_encode(colour, colorspace="RGB", outcolorspace="RGB")
    head = segment(0xE0, JFIF + SECRET)
    made = blanked(plain[:2] + head + segment(0xEE, ADOBE) + segment(0xE8, b"mrfx\1") + plain[2:])
    assert JFIF in made
    assert ADOBE in made
    assert b"mrfx\1" in made
    assert b"Zebulon" not in made
    assert np.array_equal(imagecodecs.jpeg8_decode(blanked(plain)), imagecodecs.jpeg8_decode(plain))


@pytest.mark.parametrize("name", list(streams()))
def test_what_breaks_off_is_an_error_or_tells_nothing(name: str) -> None:
    stream, _ = streams()[name]
    for length in range(0, len(stream), 13):
        try:
            made = blanked(stream[:length])
        except ValueError:
            continue
        assert b"Zebulon" not in made
    with pytest.raises(ValueError, match="neither JPEG nor JPEG 2000"):
        blanked(b"GIF89a")


def test_frames_in_fragments() -> None:
    stream, decode = streams()["baseline"]
    several = encapsulate([stream], fragments_per_frame=5)
    made = blanked_pixels(several, 1)
    assert len(made) == len(several)
    frame = b"".join(pydicom.encaps.generate_fragments(made[8 + int.from_bytes(made[4:8], "little") :]))
    assert np.array_equal(decode(frame), decode(stream))
    assert b"Zebulon" not in frame
    two = blanked_pixels(encapsulate([stream, stream]), 2)
    assert b"Zebulon" not in two
    with pytest.raises(ValueError, match="2 frames in 5 fragments"):
        blanked_pixels(several, 2)
    with pytest.raises(ValueError, match="a fragment"):
        blanked_pixels(several[:-9], 1)


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "jpeg_extended", "jpeg2000", "jpegls", "rle"])
def test_a_film_that_is_exported(tmp_path: Path, syntax: str) -> None:
    film = pydicom.dcmread(write_dicom(chest(1, size=64), tmp_path / "film.dcm", syntax=syntax))
    if syntax != "rle":  # which has no place for words
        stream = next(pydicom.encaps.generate_frames(film.PixelData, number_of_frames=1))
        talking = codestream(stream) if syntax == "jpeg2000" else told(stream.rstrip(b"\0"))
        film.PixelData = encapsulate([talking])
        film["PixelData"].is_undefined_length = True
        assert SECRET in film.PixelData
    film.save_as(tmp_path / "talking.dcm")
    path = Deidentifier().write(tmp_path / "talking.dcm", tmp_path)
    assert b"Zebulon" not in path.read_bytes()
    before, after = read_radiograph(tmp_path / "film.dcm"), read_radiograph(path)
    assert np.array_equal(before.pixels, after.pixels)


WORDS = SECRET + b"  "  # 24 bytes: as long as a table of six offsets


def written(path: Path, syntax: str) -> pydicom.FileDataset:
    plain = syntax == "encapsulated"  # without compression
    film = pydicom.dcmread(write_dicom(chest(1, size=64), path, syntax="explicit" if plain else syntax))
    if plain:
        film.file_meta.TransferSyntaxUID = ENCAPSULATED
        film.PixelData = encapsulate([film.PixelData])
        film["PixelData"].VR = "OB"
        film.save_as(path)
    return film


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "jpeg2000", "rle", "encapsulated"])
def test_a_table_of_offsets_that_is_none_is_not_let_out(tmp_path: Path, syntax: str) -> None:
    film = written(tmp_path / "film.dcm", syntax)
    table = 8 + int.from_bytes(film.PixelData[4:8], "little")
    film.PixelData = film.PixelData[:4] + len(WORDS).to_bytes(4, "little") + WORDS + film.PixelData[table:]
    film.ExtendedOffsetTable = film.ExtendedOffsetTableLengths = WORDS
    film.save_as(tmp_path / "talking.dcm")
    path = Deidentifier().write(tmp_path / "talking.dcm", tmp_path)
    assert b"Zebulon" not in path.read_bytes()
    assert "ExtendedOffsetTable" not in pydicom.dcmread(path)
    before, after = read_radiograph(tmp_path / "film.dcm"), read_radiograph(path)
    assert np.array_equal(before.pixels, after.pixels)


def test_a_table_of_offsets_is_kept() -> None:
    stream, _ = streams()["baseline"]
    for frames in (1, 2):
        value = encapsulate([stream] * frames, has_bot=True)
        assert int.from_bytes(value[4:8], "little") == 4 * frames
        made = blanked_pixels(value, frames)
        assert made[: 8 + 4 * frames] == value[: 8 + 4 * frames]


@pytest.mark.parametrize("syntax", ["explicit", "big", "rle", "encapsulated"])
def test_what_lies_behind_the_picture_is_not_let_out(tmp_path: Path, syntax: str) -> None:
    film = written(tmp_path / "film.dcm", syntax)
    if film.file_meta.TransferSyntaxUID.is_encapsulated:
        stream = next(pydicom.encaps.generate_frames(film.PixelData, number_of_frames=1))
        film.PixelData = encapsulate([stream + WORDS])
    else:
        film.PixelData += WORDS
    film.save_as(tmp_path / "talking.dcm")
    path = Deidentifier().write(tmp_path / "talking.dcm", tmp_path)
    assert b"Zebulon" not in path.read_bytes()
    before, after = read_radiograph(tmp_path / "film.dcm"), read_radiograph(path)
    assert np.array_equal(before.pixels, after.pixels)


def test_rle_keeps_its_segments_and_nothing_else() -> None:
    head = (2).to_bytes(4, "little") + (70).to_bytes(4, "little") + (80).to_bytes(4, "little")
    first, second = b"\x02abc\x80\xff\x07", b"\xfd\x05\x00\x06"  # 3 + 2 bytes; 4 + 1
    frame = (head + WORDS).ljust(70, b"s") + first.ljust(10, b"s") + second + b"s"
    assert blanked_runs(frame, 5) == head.ljust(70, b"\0") + first.ljust(10, b"\x80") + second + b"\x80"
    for size in (4, 6, 12):
        with pytest.raises(ValueError, match="an RLE segment is not as long as the picture"):
            blanked_runs(frame, size)
    for wrong in (b"", bytes(64), head[:4] + head[8:12] + head[4:8] + bytes(99), (16).to_bytes(4, "little") * 99):
        with pytest.raises(ValueError, match="its RLE header is none"):
            blanked_runs(wrong, 5)


def test_pixels_without_a_size_are_not_let_out(tmp_path: Path) -> None:
    film = pydicom.dcmread(write_dicom(chest(1, size=64), tmp_path / "film.dcm"))
    film.Rows = None
    film.save_as(tmp_path / "odd.dcm")
    with pytest.raises(ResultError, match="the header does not say how large the picture is"):
        Deidentifier().write(tmp_path / "odd.dcm", tmp_path)


def test_pixels_that_cannot_be_searched_are_not_let_out(tmp_path: Path) -> None:
    film = pydicom.dcmread(write_dicom(chest(1, size=64), tmp_path / "film.dcm", syntax="jpeg_lossless"))
    film.PixelData = encapsulate([b"\xff\xd8\xff\xfe\0\x10Zebulon"])
    film["PixelData"].is_undefined_length = True
    film.save_as(tmp_path / "cut.dcm")
    with pytest.raises(ResultError, match="the pixels cannot be searched for text: it breaks off"):
        Deidentifier().write(tmp_path / "cut.dcm", tmp_path)
    assert [path.name for path in tmp_path.glob("2.25*")] == []

"""Hostile files: refused for the right reason, in bounded time and memory, whatever they declare."""

import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.radiograph import Radiograph
from edgecxr.read import Limits, find_files, read_radiograph
from edgecxr.read.guard import DEFAULT, INFLATE_STEP, inflate

ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HHI", 0xFFFE, tag, 0) for tag in (0xE000, 0xE00D, 0xE0DD))
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
SYNTAXES += [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless]
# Reads the files named on its command line with 300 MB more address space than its imports took.
BOUNDED = """
import resource, sys
from edgecxr.errors import Refusal
from edgecxr.read import read_radiograph
size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 300_000_000,) * 2)
for path in sys.argv[1:]:
    try:
        print("read", read_radiograph(path).shape)
    except Refusal as error:
        print(error)
"""


def refusal(path, **options):
    with pytest.raises(Refusal, match=": ") as caught:
        read_radiograph(path, **options)
    return caught.value


def bounded(*paths):
    """What reading each file gives in a process of its own, within 300 MB and a minute for all."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BOUNDED, *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def nested(depth, defined):
    """(0008,1110) inside (0008,1110) …, explicit little endian."""
    content = b""
    for _ in range(depth):
        if defined:
            content = (
                b"\x08\0\x10\x11SQ\0\0"
                + struct.pack("<I", len(content) + 8)
                + ITEM[:4]
                + struct.pack("<I", len(content))
                + content
            )
        else:
            content = b"\x08\0\x10\x11SQ\0\0\xff\xff\xff\xff" + OPEN_ITEM + content + ITEM_END + SEQUENCE_END
    return content


def put_in(path, element):
    """Insert bytes before (0008,0060) Modality."""
    content = path.read_bytes()
    place = content.index(b"\x08\x00\x60\x00")
    path.write_bytes(content[:place] + element + content[place:])
    return path


def test_nesting(write_dicom, film):
    for defined in (False, True):
        path = put_in(write_dicom(film()), nested(30, defined))
        assert read_radiograph(path).shape == (61, 47)
        assert refusal(path, limits=Limits(depth=20)).reason is RefusalReason.TOO_LARGE


def test_ten_thousand_levels_are_refused(write_dicom, film):
    paths = [put_in(write_dicom(film()), nested(10_000, False))]
    inner = nested(3_000, True)  # its length field is what grows; 3,000 are beyond any parser's stack
    paths.append(put_in(write_dicom(film()), inner))
    paths.append(put_in(write_dicom(film()), nested(10_000, False)[:200_000]))
    assert bounded(*paths) == ["too_large: sequences are nested more than 64 deep"] * 3


def test_nesting_inside_unknown_elements_is_counted(write_dicom, film):
    open_items = b"\x09\0\x10\x10UN\0\0\xff\xff\xff\xff" + OPEN_ITEM
    implicit = b"\x09\0\x10\x10\xff\xff\xff\xff" + OPEN_ITEM
    path = put_in(write_dicom(film()), open_items + implicit * 200)
    assert refusal(path).reason is RefusalReason.TOO_LARGE


def test_too_many_elements_are_refused(write_dicom, film):
    path = put_in(write_dicom(film()), b"".join(struct.pack("<HH2sHI", 8, 0x30 + i, b"UL", 4, i) for i in range(20)))
    assert refusal(path, limits=Limits(elements=20)).reason is RefusalReason.TOO_LARGE


def tiff_with(entries, values):
    """A sound TIFF of 64 x 64 pixels and, beside what it needs, `entries` that share the same `values` bytes."""
    pixels = np.arange(4096, dtype=np.uint8).reshape(64, 64)
    needed = {
        256: (4, 64),
        257: (4, 64),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, 8),
        277: (3, 1),
        279: (4, 4096),
    }
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in needed.items())
    shared = b"".join(struct.pack("<HHII", 1000 + number, 1, values, 8 + 4096) for number in range(entries))
    start = 8 + 4096 + values
    count = struct.pack("<H", len(needed) + entries)
    head = struct.pack("<2sHI", b"II", 42, start)
    return head + pixels.tobytes() + bytes(values) + count + directory + shared + bytes(4)


def test_tiff_entries_over_the_same_bytes_are_refused(tmp_path):
    """A decoder copies what each entry points at: 3,000 entries of 1 MB are 3 GB, from a file of 1 MB."""
    for name, entries, values in (("few", 1, 1_000_000), ("many", 3_000, 1_000_000), ("most", 60_000, 500_000)):
        (tmp_path / name).write_bytes(tiff_with(entries, values))
    one, *bombs = bounded(*(tmp_path / name for name in ("few", "many", "most")))
    assert one == "read (64, 64)"
    assert all(answer.startswith("too_large: TIFF entries up to tag 100") for answer in bombs), bombs


def test_exif_entries_over_the_same_bytes_are_refused(tmp_path, film):
    entries = b"".join(struct.pack("<HHII", 1000 + number, 1, 30_000, 8) for number in range(2_000))
    exif = b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 2_000) + entries + bytes(4 + 10_000)
    plain = bytes(imagecodecs.jpeg8_encode(film("uint8"), 90))
    path = tmp_path / "exif.jpg"
    path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:])
    assert bounded(path)[0].startswith("too_large: TIFF entries up to tag 1002 claim 90,000 bytes")


@pytest.mark.parametrize("length", [3_000_000_000, 0xF0000000, 2867])
@pytest.mark.parametrize("keyword", ["PixelData", "private"])
def test_declared_length_beyond_the_file_is_refused(write_dicom, film, keyword, length):
    path = write_dicom(film("uint8"))
    if keyword == "private":
        put_in(path, b"\x09\0\x10\x10OB\0\0" + struct.pack("<I", length + 9000))
    else:
        content = path.read_bytes()
        place = content.index(b"\xe0\x7f\x10\x00")
        path.write_bytes(content[: place + 8] + struct.pack("<I", length + 9) + content[place + 12 :])
    assert bounded(path)[0].startswith(("truncated: ", "too_large: "))
    assert refusal(path).reason is RefusalReason.TRUNCATED


def frame_of(kind, rows, columns):
    """A compressed frame that declares this size and holds almost nothing."""
    small = np.zeros((8, 8), np.uint16)
    if kind == JPEGLosslessSV1:
        stream = bytearray(imagecodecs.jpeg8_encode(small, lossless=True, bitspersample=12, predictor=1))
        place = stream.index(b"\xff\xc3") + 5
    elif kind == JPEGLSLossless:
        stream = bytearray(imagecodecs.jpegls_encode(small))
        place = stream.index(b"\xff\xf7") + 5
    else:
        stream = bytearray(
            imagecodecs.jpeg2k_encode(small, level=0, reversible=True, codecformat="j2k", bitspersample=12)
        )
        struct.pack_into(">II", stream, 8, columns, rows)
        struct.pack_into(">II", stream, 24, columns, rows)
        return bytes(stream)
    struct.pack_into(">HH", stream, place, rows, columns)
    return bytes(stream)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_pixel_bombs_are_refused(write_dicom, syntax):
    """65,535² declared; 10,000² declared and a few bytes given; the header small and the stream large."""
    tiny = np.zeros((2, 2), np.uint16)
    paths = []
    for header, stream in [(65535, 65535), (10_000, 10_000), (8, 60_000), (10_000, 8)]:
        frame = b"\2\0\0\0" + b"\0" * 60 if syntax == RLELossless else frame_of(syntax, stream, stream)
        paths.append(write_dicom(tiny, syntax, fragments=[frame], Rows=header, Columns=header))
    for answer in bounded(*paths):
        assert answer.startswith(("too_large: ", "contradictory: ", "unreadable: "))


def test_uncompressed_pixel_bomb_is_refused(write_dicom, film):
    path = write_dicom(film(), Rows=65535, Columns=65535)
    assert bounded(path)[0].startswith("too_large: 65,535 x 65,535 pixels declared")


def code_style(stream, **fields):
    """A JPEG 2000 stream with other values in its COD segment (T.800 A.6.1)."""
    stream = bytearray(stream)
    place = stream.index(b"\xff\x52") + 4
    offsets = {"layers": (2, ">H"), "levels": (5, "B"), "width": (6, "B"), "height": (7, "B")}
    for name, value in fields.items():
        offset, form = offsets[name]
        struct.pack_into(form, stream, place + offset, value)
    return bytes(stream)


def test_jpeg2000_bombs_of_structure_are_refused(write_dicom, encode):
    flat = np.zeros((4000, 4000), np.uint16)
    plain = encode(JPEG2000Lossless, flat)
    tiles = bytearray(plain)
    struct.pack_into(">II", tiles, 24, 1, 1)
    start = plain.index(b"\xff\x52")
    precincts = bytearray(code_style(plain))
    length = struct.unpack_from(">H", plain, start + 2)[0]
    levels = plain[start + 9]
    precincts[start + 4] |= 1
    struct.pack_into(">H", precincts, start + 2, length + levels + 1)
    precincts[start + 2 + length : start + 2 + length] = bytes(levels + 1)
    frames = [
        bytes(tiles),
        code_style(plain, width=0, height=0),
        bytes(precincts),
        code_style(plain, layers=65535, levels=32),
    ]
    paths = [write_dicom(flat, JPEG2000Lossless, fragments=[frame]) for frame in frames]
    for answer in bounded(*paths):
        assert answer.startswith("too_large: ")


def test_progressive_jpeg_of_many_scans_is_refused(tmp_path, film):
    content = imagecodecs.jpeg8_encode(film("uint8"), 90)
    scan = content[content.index(b"\xff\xda") : -2]
    path = tmp_path / "scans.jpg"
    path.write_bytes(content[:-2] + scan * 200 + b"\xff\xd9")
    assert str(refusal(path)) == "too_large: the JPEG stream has more than 100 scans"


def test_deflate_bomb_is_refused(write_dicom, dataset, save, film, tmp_path):
    path = save(dataset(film()), DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    place = content.index(b"1.2.840.10008.1.2.1.99") + 22
    end = 144 + struct.unpack_from("<I", content, 140)[0]
    assert place < end
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    mebibyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands for itself, so repeats
    path.write_bytes(content[:end] + mebibyte * 600)
    answer = bounded(path)[0]
    assert answer.startswith("too_large: ")
    shallow = Limits(pixels=1000)
    assert "inflates to more than 67,110,864 bytes" in str(refusal(path, limits=shallow))


def test_large_file_is_not_read(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as handle:
        handle.truncate(3 << 30)
    assert bounded(path) == ["too_large: the file has 3,221,225,472 bytes; the limit is 536,870,912"]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name[:40])
def test_file_cut_anywhere_is_refused(write_dicom, film, syntax):
    """All but the byte that pads a deflated data set to an even length is needed."""
    path = write_dicom(film(), syntax)
    content = path.read_bytes()
    cuts = {*range(0, 140, 20), *np.linspace(132, len(content) - 1, 50).astype(int).tolist()}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        if syntax == DeflatedExplicitVRLittleEndian and cut == len(content) - 1 and not content[-1]:
            continue
        assert refusal(path).reason in (RefusalReason.TRUNCATED, RefusalReason.UNREADABLE, RefusalReason.NO_PIXELS), cut


@pytest.fixture(params=SYNTAXES, ids=lambda uid: uid.name[:40])
def intact(request, write_dicom, film):
    """(path, content) of a small film that is read."""
    path = write_dicom(film("uint16", (16, 12)), request.param)
    assert read_radiograph(path).shape == (16, 12)
    return path, path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_a_film_or_a_refusal(intact, data):
    path, content = intact
    damaged = bytearray(content)
    change = st.tuples(st.integers(132, len(content) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(change, min_size=1, max_size=8)):
        damaged[position] = value
    path.write_bytes(damaged)
    try:
        radiograph = read_radiograph(path)
    except Refusal:
        return
    assert isinstance(radiograph, Radiograph)
    assert radiograph.pixels.dtype.name in ("uint8", "int8", "uint16", "int16")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in [("absent", "no such file"), ("", "a folder or a device"), ("pipe", "a folder or a device")]:
        refused = refusal(tmp_path / name)
        assert refused.reason is RefusalReason.UNREADABLE
        assert words in refused.detail or "directory" in refused.detail


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
def test_header_text_is_escaped_and_cut(write_dicom, film):
    item = Dataset()
    item.CodeMeaning = "<script>\x1b[31m" + "x" * 5000
    refused = refusal(write_dicom(film(), AnatomicRegionSequence=[item], BodyPartExamined=""))
    assert "\x1b" not in refused.detail
    assert len(refused.detail) < 200


def test_find_files(tmp_path):
    names = ["b/2.dcm", "b/10", "a.png", "b/.hidden", ".git/x", "DICOMDIR", "b/c/DicomDir", "b/c/z"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_files([tmp_path, tmp_path / "b/.hidden", tmp_path / "absent"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a.png", "b/10", "b/2.dcm", "b/c/z", "b/.hidden", "absent",
    ]  # fmt: skip


def test_find_files_does_not_follow_a_link_back(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films/loop").symlink_to(tmp_path, target_is_directory=True)
    assert list(find_files([tmp_path])) == [tmp_path / "films/loop"]
    assert refusal(tmp_path / "films/loop").reason is RefusalReason.UNREADABLE


@pytest.mark.parametrize("size", [0, 1, INFLATE_STEP - 1, INFLATE_STEP, INFLATE_STEP + 1, 3 * INFLATE_STEP])
@pytest.mark.parametrize("fill", [bytes, random.Random(1).randbytes], ids=["zeros", "noise"])
def test_any_length_inflates_whole(size: int, fill: Callable[[int], bytes]) -> None:
    """Where a piece that was taken in, or one that was given out, ends at the end of the stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = packer.compress(fill(size)) + packer.flush()
    whole = bytes(inflate(memoryview(data), DEFAULT))
    assert len(whole) == size
    assert zlib.crc32(whole) == zlib.crc32(zlib.decompress(data, -zlib.MAX_WBITS))
    assert bytes(inflate(memoryview(data + b"\0"), DEFAULT)) == whole

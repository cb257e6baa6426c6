"""PNG, TIFF and JPEG files: exact gray values, or the reason why not."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.phantom import chest
from edgecxr.read import read_radiograph

CUT = (0.1, 0.3, 0.5, 0.7, 0.9, 0.98)


@pytest.fixture
def store(tmp_path):
    """store(content) -> Path; the name says nothing of the format."""

    def write(content):
        path = tmp_path / f"film{len(list(tmp_path.iterdir()))}.bin"
        path.write_bytes(content)
        return path

    return write


def refusal(path):
    with pytest.raises(Refusal, match=": ") as caught:
        read_radiograph(path)
    return caught.value


def pillow(pixels, form, mode=None, **options):
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(stream, form, **options)
    return stream.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_is_exact(store, film, dtype):
    pixels = film(dtype)
    radiograph = read_radiograph(store(imagecodecs.png_encode(pixels)))
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert (radiograph.bits_stored, radiograph.slope, radiograph.intercept) == (8 * pixels.dtype.itemsize, 1, 0)
    assert (radiograph.window, radiograph.inverted, radiograph.notes) == (None, False, ())


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_is_exact(store, film, dtype, compression, photometric):
    pixels = film(dtype)
    content = imagecodecs.tiff_encode(pixels, compression=compression, photometric=photometric)
    radiograph = read_radiograph(store(content))
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert radiograph.inverted is (photometric == "miniswhite")


def test_big_endian_and_tiled_tiff(store, film):
    for options in ({"byteorder": ">"}, {"tile": (32, 32)}, {"rowsperstrip": 5, "predictor": True}):
        content = imagecodecs.tiff_encode(film(), compression="lzw", **options)
        np.testing.assert_array_equal(read_radiograph(store(content)).pixels, film())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_jpeg_is_as_pillow_reads_it(store, film, options):
    content = pillow(film("uint8"), "JPEG", quality=92, **options)
    np.testing.assert_array_equal(read_radiograph(store(content)).pixels, np.asarray(Image.open(io.BytesIO(content))))


def test_lossless_jpeg_of_16_bits_is_exact(store, film):
    pixels = film("uint16", bits=16)
    content = imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=16)
    radiograph = read_radiograph(store(content))
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert radiograph.bits_stored == 16


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_equal_channels_are_one(store, film, mode):
    gray = film("uint8")
    radiograph = read_radiograph(store(pillow(gray, "PNG", mode)))
    np.testing.assert_array_equal(radiograph.pixels, gray)
    assert "the first is used" in radiograph.notes[0]


def test_gray_stored_as_colour_jpeg(store, film):
    content = pillow(film("uint8"), "JPEG", "RGB", quality=95)
    radiograph = read_radiograph(store(content))
    np.testing.assert_array_equal(radiograph.pixels, np.asarray(Image.open(io.BytesIO(content)))[..., 0])


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_colour_is_refused(store, film, form):
    gray = film("uint8")
    content = pillow(np.dstack([gray, gray[::-1], gray]), form)
    assert refusal(store(content)).reason is RefusalReason.NOT_GRAYSCALE


def test_transparency_is_refused(store, film):
    gray = film("uint8")
    content = pillow(np.dstack([gray, gray]), "PNG")
    assert refusal(store(content)).reason is RefusalReason.NOT_GRAYSCALE


def test_cmyk_is_refused(store, film):
    assert refusal(store(pillow(film("uint8"), "JPEG", "CMYK"))).reason is RefusalReason.NOT_GRAYSCALE
    assert refusal(store(pillow(film("uint8"), "TIFF", "CMYK"))).reason is RefusalReason.NOT_GRAYSCALE


def test_other_depths_are_refused(store, film):
    contents = [
        pillow(film("uint8"), "PNG", "1"),
        pillow(film("uint8"), "TIFF", "1"),
        imagecodecs.tiff_encode(film().astype(np.float32)),
        imagecodecs.tiff_encode(film().astype(np.uint32)),
        imagecodecs.tiff_encode(film("int16")),
    ]
    for content in contents:
        assert refusal(store(content)).reason is RefusalReason.UNSUPPORTED_PIXELS


def test_several_pages_are_refused(store, film):
    pages = imagecodecs.tiff_encode(np.stack([film(), film()]))
    assert refusal(store(pages)).reason is RefusalReason.MULTI_FRAME
    plain = imagecodecs.png_encode(film("uint8"))
    animated = plain[:33] + chunk(b"acTL", struct.pack(">II", 1, 0)) + plain[33:]
    assert refusal(store(animated)).reason is RefusalReason.MULTI_FRAME


def test_jpeg_inside_tiff_is_refused(store, film):
    content = pillow(film("uint8"), "TIFF", compression="jpeg")
    assert refusal(store(content)).reason is RefusalReason.UNSUPPORTED_SYNTAX


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_orientation_is_applied(store, film, form, orientation):
    """As Pillow's exif_transpose turns it. Pillow itself turns a TIFF as it loads it, and no other format."""
    exif = Image.Exif()
    exif[274] = orientation
    content = pillow(film("uint8"), form, exif=exif)
    plain = np.asarray(Image.open(io.BytesIO(content))) if form == "JPEG" else film("uint8")
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    if orientation > 1:
        plain = np.asarray(Image.fromarray(plain).transpose(getattr(Image.Transpose, turns[orientation])))
    radiograph = read_radiograph(store(content))
    np.testing.assert_array_equal(radiograph.pixels, plain)
    assert radiograph.pixels.flags.c_contiguous
    assert len(radiograph.notes) == (orientation > 1)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_file_cut_short_is_refused(store, film, form):
    content = pillow(film("uint8", (128, 96)), form)
    for share in CUT:
        reason = refusal(store(content[: int(len(content) * share)])).reason
        assert reason in (RefusalReason.TRUNCATED, RefusalReason.UNREADABLE)


def tiff(strips, *, rows_per_strip=16, shape=(64, 64), compression=1, changes=(), extra=b""):
    """A TIFF of 16 bits, written by hand: its entries, (type, count, value or place) by tag, with `changes` to them."""
    starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    places = struct.pack(f"<{len(strips)}I", *starts), struct.pack(f"<{len(strips)}I", *map(len, strips))
    body = b"".join(strips)
    entries = {256: (4, 1, shape[1]), 257: (4, 1, shape[0]), 258: (3, 1, 16), 259: (3, 1, compression)}
    entries |= {262: (3, 1, 1), 277: (3, 1, 1), 278: (4, 1, rows_per_strip)}
    for tag, table in zip((273, 279), places, strict=True):
        alone = struct.unpack("<I", table)[0] if len(strips) == 1 else 8 + len(body)
        entries[tag] = (4, len(strips), alone)
        body += table
    entries |= dict(changes)
    directory = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()) if entry)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(body) + len(extra))
    return head + body + extra + struct.pack("<H", len(directory) // 12) + directory + bytes(4)


def strips_of(pixels, rows=16):
    return [pixels[row : row + rows].tobytes() for row in range(0, len(pixels), rows)]


def test_tiff_written_by_hand_is_exact(store, film):
    pixels = film("uint16", (64, 64))
    for content in (tiff(strips_of(pixels)), tiff(strips_of(pixels, 40), rows_per_strip=40)):
        np.testing.assert_array_equal(read_radiograph(store(content)).pixels, pixels)
    whole = tiff([pixels.tobytes()], changes={278: None})  # rows per strip: all, where it does not say
    np.testing.assert_array_equal(read_radiograph(store(whole)).pixels, pixels)


def test_tiff_with_strips_missing_is_refused(store, film):
    """The total is enough, yet a decoder took the fourth strip from the file's own header."""
    first, second, third, fourth = strips_of(film("uint16", (64, 64)))
    for strips in ([first + bytes(3000), second, third], [first + bytes(3000), second, third, fourth[:-1]]):
        assert refusal(store(tiff(strips))).reason is RefusalReason.TRUNCATED
    empty = tiff([*map(zlib.compress, (first, second, third)), b""], compression=8)
    assert refusal(store(empty)).reason is RefusalReason.TRUNCATED
    over = tiff([first, second, third, fourth, fourth])
    assert refusal(store(over)).reason is RefusalReason.CONTRADICTORY
    header = tiff([film("uint16", (64, 64)).tobytes()], rows_per_strip=64, changes={273: (4, 1, 0)})
    assert refusal(store(header)).reason is RefusalReason.CONTRADICTORY


def test_tiff_with_tiles_missing_is_refused(store, film):
    content = imagecodecs.tiff_encode(film("uint16", (64, 64)), tile=(32, 32))
    entry = struct.pack("<HHI", 324, 4, 4)
    assert content.count(entry) == 1
    fewer = content.replace(entry, struct.pack("<HHI", 324, 4, 3)).replace(
        struct.pack("<HHI", 325, 4, 4), struct.pack("<HHI", 325, 4, 3)
    )
    assert refusal(store(fewer)).reason is RefusalReason.TRUNCATED
    small = tiff([bytes(8192)], changes={322: (4, 1, 1), 323: (4, 1, 1), 324: (4, 1, 8), 325: (4, 1, 8192)})
    assert refusal(store(small)).reason is RefusalReason.CONTRADICTORY


def test_tiff_entries_that_two_readers_take_otherwise_are_refused(store, film):
    strips = strips_of(film("uint16", (64, 64)))
    both = tiff(strips, changes={324: (4, 1, 8), 325: (4, 1, 8192), 322: (4, 1, 64), 323: (4, 1, 64)})
    assert refusal(store(both)).reason is RefusalReason.UNREADABLE
    signed = tiff(strips, changes={259: (8, 1, 1)})  # a compression of SSHORT
    assert refusal(store(signed)).reason is RefusalReason.UNREADABLE
    twice = tiff(strips).replace(struct.pack("<HHII", 277, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 0))
    assert str(refusal(store(twice))) == "contradictory: TIFF tag 262 stands twice"


def scanned(content):
    """Where the entropy data of a JPEG with one scan begin."""
    marker = content.index(b"\xff\xda")
    return marker + 2 + int.from_bytes(content[marker + 2 : marker + 4], "big")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_lost_data_is_refused(store, progressive):
    """64 bytes of the scan become zero: what the decoder fills in must not be screened."""
    gray = (chest(5, size=384).pixels >> 4).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(gray).save(encoded, "JPEG", quality=90, progressive=progressive)
    content = encoded.getvalue()
    np.testing.assert_array_equal(read_radiograph(store(content)).pixels, imagecodecs.jpeg8_decode(content))
    places = np.random.default_rng(2).integers(scanned(content), len(content) - 100, 40)
    damaged = [store(content[:place] + bytes(64) + content[place + 64 :]) for place in places]
    reasons = [reason for path in damaged if (reason := reason_of(path)) is not None]
    assert set(reasons) <= {RefusalReason.UNREADABLE, RefusalReason.TRUNCATED}
    assert len(reasons) >= 28


def reason_of(path):
    """None of a file that is read."""
    try:
        read_radiograph(path)
    except Refusal as error:
        return error.reason
    return None


def test_damaged_png_is_refused(store, film):
    content = bytearray(imagecodecs.png_encode(film()))
    content[len(content) // 2] ^= 4
    assert str(refusal(store(bytes(content)))) == "unreadable: the checksum of PNG chunk b'IDAT' is wrong"


def test_declared_size_is_checked_before_decoding(store):
    def png(columns, rows):
        header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + body

    assert refusal(store(png(60000, 60000))).reason is RefusalReason.TOO_LARGE
    assert refusal(store(png(9000, 9000))).reason is RefusalReason.TOO_LARGE  # 81 MB from 18 bytes
    assert refusal(store(png(0, 10))).reason is RefusalReason.CONTRADICTORY


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\0" * 500, b"II*\0", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_film_is_refused(store, content):
    assert refusal(store(content)).reason in (RefusalReason.UNREADABLE, RefusalReason.TRUNCATED)

"""Stored values: bits that are no value, fragments, signs, and decoders held against second decoders."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from rle.utils import decode_frame

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read import read_radiograph


def refusal(path):
    with pytest.raises(Refusal, match=": ") as caught:
        read_radiograph(path)
    return caught.value


def packbits(row: bytes) -> bytes:
    """One row in literal runs (PS3.5 G.3.1)."""
    pieces = [row[start : start + 128] for start in range(0, len(row), 128)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def rle_frame(*planes, pad=b""):
    segments = []
    for plane in planes:
        segment = b"".join(packbits(row.tobytes()) for row in plane)
        segments.append(segment + pad * (len(segment) % 2))
    offsets = [64 + sum(len(segment) for segment in segments[:index]) for index in range(len(segments))]
    header = np.array([len(segments), *offsets] + [0] * (15 - len(segments)), "<u4").tobytes()
    return header + b"".join(segments)


def test_overlay_in_unused_bits_is_cleared(write_dicom, film):
    overlay = (np.arange(61 * 47).reshape(61, 47) % 16 << 12).astype(np.uint16)
    path = write_dicom(film() | overlay, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_radiograph(path).pixels, film())


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_value_in_high_bits_is_moved_down(write_dicom, film, dtype, syntax):
    garbage = (np.arange(61 * 47).reshape(61, 47) % 16).astype(dtype)
    path = write_dicom((film(dtype) << 4) | garbage, syntax, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_radiograph(path).pixels, film(dtype))


def test_sign_is_extended_from_the_stored_bits(write_dicom, film):
    signed = film("int16")
    path = write_dicom(signed.view(np.uint16) & 0x0FFF, PixelRepresentation=1)
    np.testing.assert_array_equal(read_radiograph(path).pixels, signed)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1, JPEGLossless])
def test_signed_film_travels_as_twos_complement(write_dicom, encode, film, syntax):
    signed = film("int16")
    frame = encode(syntax, signed.view(np.uint16) & 0x0FFF)
    path = write_dicom(signed, syntax, fragments=[frame])
    np.testing.assert_array_equal(read_radiograph(path).pixels, signed)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
def test_signed_jpeg2000_is_exact(write_dicom, encode, film, syntax):
    signed = film("int16")
    radiograph = read_radiograph(write_dicom(signed, syntax, fragments=[encode(syntax, signed)]))
    np.testing.assert_array_equal(radiograph.pixels, signed)


@pytest.mark.parametrize(("stream", "header"), [("uint16", "int16"), ("int16", "uint16")])
def test_jpeg2000_sign_against_header(write_dicom, encode, film, stream, header):
    """Read, and noted, where both readings agree on every value; else refused."""
    frame = encode(JPEG2000Lossless, film(stream))
    refused = refusal(write_dicom(film(header), JPEG2000Lossless, fragments=[frame]))
    assert refused.reason is RefusalReason.CONTRADICTORY
    assert "signed 12 bits" in refused.detail
    small = film("uint16", bits=10)
    frame = encode(JPEG2000Lossless, small.astype(stream))
    radiograph = read_radiograph(write_dicom(small.astype(header), JPEG2000Lossless, fragments=[frame]))
    np.testing.assert_array_equal(radiograph.pixels, small)
    assert radiograph.pixels.dtype == header
    assert "compressed stream" in radiograph.notes[0]


def test_lossless_stream_with_more_bits_than_the_header(write_dicom, encode, film):
    frame = encode(JPEG2000Lossless, film("uint16", bits=12))
    refused = refusal(write_dicom(film(), JPEG2000Lossless, fragments=[frame], BitsStored=10, HighBit=9))
    assert str(refused).endswith("values 0 to 4095")
    frame = encode(JPEG2000Lossless, film("uint16", bits=10))
    path = write_dicom(film(), JPEG2000Lossless, fragments=[frame], BitsStored=10, HighBit=9)
    np.testing.assert_array_equal(read_radiograph(path).pixels, film("uint16", bits=10))


def test_lossy_stream_may_overshoot_the_header(write_dicom, encode, film):
    """Ten bits in a 12-bit JPEG: quantization may give 1,024, which the stream defines and the header does not."""
    pixels = film("uint16", bits=10)
    pixels[8:24, 8:24] = 1024
    frame = encode(JPEGExtended12Bit, pixels)
    radiograph = read_radiograph(write_dicom(pixels, JPEGExtended12Bit, [frame], BitsStored=10, HighBit=9))
    assert (radiograph.pixels.max() >= 1024, radiograph.bits_stored) == (True, 12)
    assert radiograph.notes == ("header: unsigned 10 bits, compressed stream: unsigned 12 bits",)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("count", [2, 7])
def test_fragments_are_joined(write_dicom, encode, film, syntax, count):
    frame = encode(syntax, film())
    frame += b"\0" * (len(frame) % 2)
    step = (len(frame) // count + 1) & ~1
    pieces = [frame[start : start + step] for start in range(0, len(frame), step)]
    radiograph = read_radiograph(write_dicom(film(), syntax, fragments=pieces))
    np.testing.assert_array_equal(radiograph.pixels, film())


def test_delimiter_bytes_inside_a_fragment_are_data(write_dicom):
    pixels = np.frombuffer(b"\xfe\xff\xdd\xe0\0\0\0\0\xfe\xff\x00\xe0" * 8, "<u2").reshape(6, 8)
    frame = rle_frame(*((pixels >> shift).astype(np.uint8) for shift in (8, 0)))
    path = write_dicom(pixels, RLELossless, [frame], BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(read_radiograph(path).pixels, pixels)


@pytest.mark.parametrize("pad", [b"\0", b"\x80"])
def test_odd_rle_segments(write_dicom, pad):
    pixels = (np.arange(6).reshape(3, 2) * 701).astype(np.uint16)
    frame = rle_frame(*((pixels >> shift).astype(np.uint8) for shift in (8, 0)), pad=pad)
    assert len(frame) == 64 + 2 * 10
    np.testing.assert_array_equal(read_radiograph(write_dicom(pixels, RLELossless, [frame])).pixels, pixels)


@pytest.mark.parametrize("damage", ["long", "short", "segments", "header"])
def test_damaged_rle_is_refused(write_dicom, film, damage):
    planes = [(film() >> shift).astype(np.uint8) for shift in (8, 0)]
    frame = {
        "long": rle_frame(np.vstack([planes[0], planes[0]]), planes[1]),
        "short": rle_frame(planes[0], planes[1][:-1]),
        "segments": rle_frame(planes[0]),
        "header": b"\x02\0\0\0",
    }[damage]
    assert refusal(write_dicom(film(), RLELossless, [frame])).reason in (
        RefusalReason.UNREADABLE,
        RefusalReason.TRUNCATED,
    )


def test_eight_bit_big_endian_words(write_dicom, film):
    """OW values of 8 bits travel as 16-bit words, so their bytes are swapped (PS3.5 A.3)."""
    pixels = film("uint8", (6, 7))
    swapped = pixels.tobytes() and np.frombuffer(pixels.tobytes(), ">u2").astype("<u2").tobytes()
    path = write_dicom(pixels, ExplicitVRBigEndian, PixelData=swapped)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW"))
    np.testing.assert_array_equal(read_radiograph(path).pixels, pixels)


def test_zeros_behind_the_pixels_are_noted(write_dicom, film):
    raw = film().tobytes()
    radiograph = read_radiograph(write_dicom(film(), PixelData=raw + b"\0" * 100))
    np.testing.assert_array_equal(radiograph.pixels, film())
    assert radiograph.notes == ("100 zero bytes follow the pixels",)
    assert refusal(write_dicom(film(), PixelData=raw + b"\1" * 100)).reason is RefusalReason.CONTRADICTORY
    assert refusal(write_dicom(film(), PixelData=raw * 2)).reason is RefusalReason.CONTRADICTORY


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless, HTJ2KLossless])
def test_size_other_than_the_header_says_is_refused(write_dicom, encode, film, syntax):
    dtype = "uint8" if syntax == JPEGBaseline8Bit else "uint16"
    frame = encode(syntax, film(dtype, (64, 48)))
    refused = refusal(write_dicom(film(dtype), syntax, fragments=[frame]))
    assert str(refused) == "contradictory: header: 61 x 47 x 1, compressed stream: 64 x 48 x 1"


def test_another_codec_than_the_syntax_says_is_refused(write_dicom, encode, film):
    frame = encode(JPEGLSLossless, film())
    refused = refusal(write_dicom(film(), JPEGLosslessSV1, fragments=[frame]))
    assert refused.reason is RefusalReason.CONTRADICTORY
    assert "SOF55" in refused.detail


def test_second_frame_behind_the_first_is_refused(write_dicom, encode, film):
    frame = encode(JPEGLosslessSV1, film())
    refused = refusal(write_dicom(film(), JPEGLosslessSV1, fragments=[frame, frame]))
    assert refused.detail.endswith("bytes follow the compressed frame")


def test_native_pixels_in_a_compressed_syntax_are_refused(write_dicom, film):
    path = write_dicom(film())
    content = path.read_bytes()
    for uid in ("1.2.840.10008.1.2.5\0",):
        path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", uid.encode()))
        assert str(refusal(path)).startswith("contradictory: the transfer syntax is compressed")


def test_encapsulated_pixels_in_a_native_syntax_are_refused(write_dicom, film):
    path = write_dicom(film(), RLELossless)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0"))
    assert str(refusal(path)).startswith("contradictory: the transfer syntax is uncompressed")


def test_jp2_file_is_unwrapped_and_noted(write_dicom, encode, film):
    frame = encode(JPEG2000Lossless, film(), codecformat="jp2")
    radiograph = read_radiograph(write_dicom(film(), JPEG2000Lossless, fragments=[frame]))
    np.testing.assert_array_equal(radiograph.pixels, film())
    assert "JP2 file" in radiograph.notes[0]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLossless, JPEGBaseline8Bit, JPEGExtended12Bit])
def test_jpeg_scan_that_ends_early_is_refused(write_dicom, encode, film, syntax, share):
    """libjpeg fills the rest with gray and only warns; the end marker is there."""
    dtype = "uint8" if syntax == JPEGBaseline8Bit else "uint16"
    pixels = film(dtype, (128, 96))
    frame = encode(syntax, pixels)
    cut = frame[: int(len(frame) * share)].rstrip(b"\xff") + b"\xff\xd9"
    assert refusal(write_dicom(pixels, syntax, fragments=[cut])).reason is RefusalReason.TRUNCATED


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLossless, JPEGBaseline8Bit, JPEGExtended12Bit])
def test_jpeg_film_with_a_flat_border_is_complete(write_dicom, encode, film, syntax):
    dtype = "uint8" if syntax == JPEGBaseline8Bit else "uint16"
    pixels = film(dtype, (128, 96))
    pixels[64:] = 0
    radiograph = read_radiograph(write_dicom(pixels, syntax, fragments=[encode(syntax, pixels)]))
    np.testing.assert_array_equal(radiograph.pixels[80:], pixels[80:])


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, HTJ2KLossless, JPEGLosslessSV1, RLELossless])
def test_compressed_frame_cut_short_is_refused(write_dicom, encode, film, syntax):
    frame = encode(syntax, film())
    for share in (0.01, 0.2, 0.5, 0.9, 0.99):
        reason = refusal(write_dicom(film(), syntax, fragments=[frame[: int(len(frame) * share)]])).reason
        assert reason in (RefusalReason.TRUNCATED, RefusalReason.UNREADABLE)


def test_second_decoders_agree(write_dicom, encode, film):
    """Each lossless codec against an implementation that this package does not use."""
    pixels = film("uint16", (200, 150))
    seconds = {
        JPEGLosslessSV1: [imagecodecs.ljpeg_decode, imagecodecs.jpegsof3_decode],
        HTJ2KLossless: [imagecodecs.htj2k_decode],
        RLELossless: [lambda frame: np.frombuffer(decode_frame(frame, pixels.size, 16, "<"), "<u2").reshape(200, 150)],
    }
    for syntax, decoders in seconds.items():
        frame = encode(syntax, pixels)
        read = read_radiograph(write_dicom(pixels, syntax, fragments=[frame])).pixels
        for decoder in decoders:
            np.testing.assert_array_equal(read, decoder(frame))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless])
def test_pydicom_agrees(write_dicom, film, syntax):
    path = write_dicom(film("int16"), syntax)
    header = pydicom.dcmread(path)
    if syntax == RLELossless:
        header.decompress(decoding_plugin="pydicom")
    np.testing.assert_array_equal(read_radiograph(path).pixels, header.pixel_array)

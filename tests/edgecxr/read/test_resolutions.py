"""JPEG 2000 at the resolution that a model needs: which one, what it gives, and what is read in full instead."""

import contextlib
import io
import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000, HTJ2KLossless, JPEG2000Lossless

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.kernels import preprocess
from edgecxr.phantom import chest, write_dicom
from edgecxr.read import DEFAULT, read_radiograph
from edgecxr.read.jpeg2000 import read_jpeg2000
from edgecxr.read.resolutions import centred, reduced
from edgecxr.spec import ModelSpec, PreprocessSpec, ReadingSpec

SPEC = PreprocessSpec(size=32)
PIXELS = chest(3, "covid", size=320).pixels[:, :256]
RESOLUTION_FIRST = {"progression": "RPCL", "quality_layers": [40, 10, 1]}


def codestream(pixels, **options):
    """Encoded by Pillow, which can do what imagecodecs cannot: tiles, layers, precincts, progressions."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG2000", no_jp2=True, **options)
    return buffer.getvalue()


def wide(pixels):
    """As 16-bit samples: what Pillow encodes."""
    return (pixels.astype(np.uint16) << np.uint16(4)).astype(np.uint16)


def refusal(path):
    with pytest.raises(Refusal, match=": ") as caught:
        read_radiograph(path, reduced_for=SPEC)
    return caught.value


def read_as(path):
    """The film as `SPEC` lets it be read, and in full."""
    return read_radiograph(path, reduced_for=SPEC), read_radiograph(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"irreversible": True},
        {"tile_size": (96, 64)},
        {"num_resolutions": 3},
        RESOLUTION_FIRST,
        {"progression": "RLCP", "quality_layers": [40, 10], "irreversible": True},
        {"progression": "RPCL", "precinct_size": (128, 128)},
    ],
)
def test_the_coarse_image_is_what_another_decoder_gives_that_leaves_resolutions_out(options):
    stream = memoryview(codestream(wide(PIXELS), **options))
    shapes = read_jpeg2000(stream, DEFAULT).reductions
    assert len(shapes) == (2 if "num_resolutions" in options else 5)
    for times, shape in enumerate(shapes, start=1):
        other = Image.open(io.BytesIO(stream))
        other.reduce = times
        np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(reduced(stream, times)), np.asarray(other))
        assert shape == (320 >> times, 256 >> times)


@pytest.mark.parametrize(
    "options",
    [
        {"num_resolutions": 1},
        {"quality_layers": [40, 10, 1]},
        {"progression": "PCRL"},
        {"offset": (5, 3), "tile_size": (512, 512)},
        {"tile_size": (95, 96)},
    ],
)
def test_where_the_coarse_image_does_not_come_first_and_alone_the_film_is_read_in_full(write_dicom, options):
    frame = codestream(wide(PIXELS), **options)
    assert read_jpeg2000(memoryview(frame), DEFAULT).reductions == ()
    pixels = wide(PIXELS)
    film = read_radiograph(
        write_dicom(pixels, JPEG2000Lossless, fragments=[frame], BitsStored=16, HighBit=15), reduced_for=SPEC
    )
    np.testing.assert_array_equal(film.pixels, imagecodecs.jpeg2k_decode(frame))
    assert film.notes == ()


@pytest.mark.parametrize(
    ("full", "coarse", "suffices"),
    [
        ((3000, 3000), (750, 750), True),
        ((3000, 3000), (375, 375), False),  # below twice 192
        ((768, 768), (384, 384), True),
        ((766, 766), (383, 383), False),
        ((3000, 2457), (750, 615), True),
        ((1000, 5), (500, 3), True),
        ((772, 999), (386, 500), True),
        ((800, 627), (400, 314), False),  # a box of 151 columns instead of 150
    ],
)
def test_which_resolution_suffices(full, coarse, suffices):
    spec = PreprocessSpec(size=192)
    assert spec.suffices(coarse, full) is suffices


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000, HTJ2KLossless])
@pytest.mark.parametrize("shown", ["MONOCHROME1", "MONOCHROME2"])
def test_a_reduced_film_gives_nearly_the_tensor_of_the_full_one(write_dicom, syntax, shown):
    pixels = (PIXELS >> 4).astype(np.uint8) if syntax == HTJ2KLossless else PIXELS
    low, high = np.percentile(pixels, (2, 98))  # a window: else the percentiles move with the noise that is gone
    window = {"WindowCenter": (low + high) / 2, "WindowWidth": high - low}
    path = write_dicom(pixels, syntax, PhotometricInterpretation=shown, **window)
    coarse, full = read_as(path)
    assert (coarse.shape, full.shape) == ((80, 64), (320, 256))
    assert coarse.notes == (
        "JPEG 2000 was decoded at 1/4 of its resolution, as the model declares: 80 x 64 of 320 x 256 pixels",
    )
    assert (coarse.bits_stored, coarse.pixels.dtype, coarse.inverted) == (
        full.bits_stored,
        full.pixels.dtype,
        shown[-1] == "1",
    )
    difference = np.abs(preprocess([coarse], SPEC) - preprocess([full], SPEC))
    assert 0 < difference.max() < 0.08
    frame = memoryview(next(generate_frames(dcmread(path).PixelData, number_of_frames=1)))
    beside = replace(coarse, pixels=imagecodecs.jpeg2k_decode(reduced(frame, 2)))  # samples not moved to their middle
    misplaced = np.abs(preprocess([beside], SPEC) - preprocess([full], SPEC))
    assert difference.mean() < misplaced.mean() / 2  # in each syntax: its filters and its loss are in both


def test_signed_samples_keep_their_sign(write_dicom):
    signed = (PIXELS.astype(np.int32) - 2048).astype(np.int16)
    coarse, full = read_as(write_dicom(signed, JPEG2000Lossless))
    unsigned = read_radiograph(write_dicom(PIXELS, JPEG2000Lossless), reduced_for=SPEC)
    assert (coarse.shape, coarse.pixels.dtype) == ((80, 64), full.pixels.dtype)
    np.testing.assert_array_equal(coarse.pixels.astype(np.int32) + 2048, unsigned.pixels)


def test_samples_are_moved_to_the_middle_of_what_they_replace():
    ramp = np.arange(0, 1600, 8, np.uint16) + np.zeros((120, 1), np.uint16)
    at_even = ramp[::4, ::4]
    np.testing.assert_array_equal(centred(at_even, 2)[:, :-1], np.tile(ramp[0].reshape(-1, 4).mean(1)[:-1], (30, 1)))
    np.testing.assert_array_equal(centred(at_even.T, 2)[:-1], centred(at_even, 2).T[:-1])
    assert centred(np.full((3, 5), -128, np.int8), 3).tolist() == [[-128] * 5] * 3


def test_padding_is_never_mixed_with_film(write_dicom):
    pixels = PIXELS.copy()
    pixels[:30] = 0
    film = read_radiograph(write_dicom(pixels, JPEG2000Lossless, PixelPaddingValue=0), reduced_for=SPEC)
    np.testing.assert_array_equal(film.pixels, pixels)
    assert film.padding == (0, 0)


def test_where_header_and_stream_differ_in_depth_all_values_are_compared(write_dicom, encode):
    frame = encode(JPEG2000Lossless, PIXELS, bitspersample=16)
    path = write_dicom(PIXELS, JPEG2000Lossless, fragments=[frame])
    np.testing.assert_array_equal(read_radiograph(path, reduced_for=SPEC).pixels, PIXELS)
    wrong = PIXELS.copy()
    wrong[200, 100] = 5000
    frame = encode(JPEG2000Lossless, wrong, bitspersample=16)
    assert refusal(write_dicom(wrong, JPEG2000Lossless, fragments=[frame])).reason is RefusalReason.CONTRADICTORY


def test_other_films_are_read_in_full(write_dicom, tmp_path):
    for path in (write_dicom(PIXELS), write_dicom(PIXELS[:60, :60], JPEG2000Lossless)):
        coarse, full = read_as(path)
        np.testing.assert_array_equal(coarse.pixels, full.pixels)
    (tmp_path / "film.png").write_bytes(imagecodecs.png_encode(PIXELS))
    assert read_radiograph(tmp_path / "film.png", reduced_for=SPEC).shape == (320, 256)


@pytest.mark.parametrize("options", [{}, RESOLUTION_FIRST])
def test_a_cut_stream_is_refused_though_the_coarse_image_is_whole(write_dicom, options):
    whole = codestream(wide(PIXELS), **options)
    for share in (0.5, 0.75, 0.95):
        cut = whole[: int(len(whole) * share)]
        for frame in (cut, cut + b"\xff\xd9"):
            path = write_dicom(wide(PIXELS), JPEG2000Lossless, fragments=[frame], BitsStored=16, HighBit=15)
            assert refusal(path).reason is RefusalReason.TRUNCATED


def test_without_a_declared_length_the_whole_stream_is_decoded(write_dicom):
    whole = bytearray(codestream(wide(PIXELS)))
    struct.pack_into(">I", whole, whole.index(b"\xff\x90") + 6, 0)
    elements = {"BitsStored": 16, "HighBit": 15}
    path = write_dicom(wide(PIXELS), JPEG2000Lossless, fragments=[bytes(whole)], **elements)
    np.testing.assert_array_equal(read_radiograph(path, reduced_for=SPEC).pixels, wide(PIXELS))
    cut = bytes(whole[: len(whole) * 3 // 4]) + b"\xff\xd9"
    refusal(write_dicom(wide(PIXELS), JPEG2000Lossless, fragments=[cut], **elements))


def test_a_damaged_header_is_refused_or_read_and_never_breaks_the_reader(write_dicom, encode):
    small = PIXELS[100:196, 60:156]
    frame = encode(JPEG2000Lossless, small)
    for place in range(2, frame.index(b"\xff\x93")):
        damaged = frame[:place] + bytes([(0, 1, 0xFF)[place % 3]]) + frame[place + 1 :]
        path = write_dicom(small, JPEG2000Lossless, fragments=[damaged])
        with contextlib.suppress(Refusal):
            read_radiograph(path, reduced_for=PreprocessSpec(size=16))


def test_a_model_says_how_its_films_are_read():
    model = {
        "name": "a",
        "version": "1",
        "heads": [{"name": "h", "kind": "sigmoid", "classes": ["x"]}],
        "preprocess": {"size": 32},
        "temperatures": {},
        "cam_shape": [1, 1],
        "embedding_size": 1,
    }
    plain = ModelSpec.model_validate(model)
    assert (plain.reading, plain.reduced_for) == (ReadingSpec(jpeg2000="full"), None)
    assert "reading" not in plain.model_dump()
    told = ModelSpec.model_validate({**model, "reading": {"jpeg2000": "reduced"}})
    assert told.reduced_for == SPEC
    assert told.model_dump(mode="json")["reading"] == {"jpeg2000": "reduced"}
    assert ModelSpec.model_validate_json(told.model_dump_json()) == told


def test_the_films_that_the_package_draws_are_read_reduced_too(tmp_path):
    path = write_dicom(chest(1, size=512), tmp_path / "film.dcm", syntax="jpeg2000")
    coarse, full = read_as(path)
    assert (coarse.shape, full.shape) == ((64, 64), (512, 512))
    assert np.abs(preprocess([coarse], SPEC) - preprocess([full], SPEC)).mean() < 0.003

"""A lossless JPEG scan ends with its last pixels, or its data are damaged."""

import imagecodecs
import numpy as np
import pytest

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read import read_radiograph
from edgecxr.read.codestreams import read_jpeg
from edgecxr.read.guard import DEFAULT
from edgecxr.read.lossless import ends_with, huffman_codes

GRAIN = np.random.default_rng(0)


def encoded(pixels, bits, predictor=1):
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits, predictor=predictor))


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("bits", "dtype"), [(8, "uint8"), (12, "uint16"), (16, "uint16")])
def test_every_sound_film_is_read(tmp_path, film, bits, dtype, predictor):
    noise = GRAIN.integers(0, 2**bits, (40, 33)).astype(dtype)
    for pixels in (noise, np.zeros_like(noise), film(dtype, bits=bits)):
        content = encoded(pixels, bits, predictor)
        assert read_jpeg(memoryview(content), DEFAULT).lossless is not None
        (tmp_path / "film").write_bytes(content)
        np.testing.assert_array_equal(read_radiograph(tmp_path / "film").pixels, pixels)


def test_a_scan_that_leaves_data_over_is_refused(tmp_path):
    """Zero bytes are short codes: the pixels are filled before the data are used up."""
    content = bytearray(encoded(GRAIN.integers(0, 4096, (64, 64)).astype(np.uint16), 12))
    content[2000:2064] = bytes(64)
    (tmp_path / "film").write_bytes(content)
    assert imagecodecs.jpeg8_decode(bytes(content)).shape == (64, 64)
    with pytest.raises(Refusal, match="does not end with its last pixels: it is damaged") as caught:
        read_radiograph(tmp_path / "film")
    assert caught.value.reason is RefusalReason.UNREADABLE


def test_what_encoders_leave_behind_the_last_code_is_no_damage(tmp_path):
    content = encoded(GRAIN.integers(0, 4096, (16, 16)).astype(np.uint16), 12)
    stream = read_jpeg(memoryview(content), DEFAULT)
    for more in (b"", b"\xff", b"\xff\xff", b"\0", b"\xff\0"):
        longer = content[:-2] + more + content[-2:]
        scan = read_jpeg(memoryview(longer), DEFAULT).lossless
        assert ends_with(memoryview(longer), scan, imagecodecs.jpeg8_decode(content))
    assert not ends_with(memoryview(content), stream.lossless, imagecodecs.jpeg8_decode(content)[::-1])


def test_codes_are_those_of_the_standard():
    """T.81 annex C: codes of one length count up, a longer one goes on behind them with a zero."""
    table = bytes([0, *[0, 2, 2, 1], *[0] * 12, 5, 6, 7, 8, 9])
    assert huffman_codes(table) == {0: {5: "00", 6: "01", 7: "100", 8: "101", 9: "1100"}}
    assert huffman_codes(table[:5]) == {}

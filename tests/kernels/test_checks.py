import numpy as np
import pytest
from pydantic import ValidationError

from edgecxr.errors import KernelError, Refusal, RefusalReason
from edgecxr.kernels import preprocess
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PIXELS[np.newaxis], r"shape \(1, 8, 8\); wanted \(H, W\)"),
        (PIXELS[:0], r"shape \(0, 8\); wanted"),
        (PIXELS.astype(np.float32), "type <f4; wanted native uint8"),
        (PIXELS.astype(">u2"), "type >u2; wanted native uint8"),
        (PIXELS[:, ::2], r"strides \(16, 4\); pass them through np.ascontiguousarray"),
    ],
)
def test_array_that_breaks_the_contract(pixels, message):
    with pytest.raises(KernelError, match=message):
        preprocess([Radiograph(pixels, 16)], PreprocessSpec())


def lut(values, bits=12, dtype=np.uint16) -> Lut:
    return Lut(0, np.array(values, dtype=dtype), bits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slope": float("nan")}, "rescale slope nan"),
        ({"intercept": float("inf")}, "intercept inf"),
        ({"window": Window(0, 0.5)}, "width 0.5; LINEAR wants >= 1"),
        ({"window": Window(0, 0, "SIGMOID")}, "width 0; SIGMOID wants > 0"),
        ({"window": Window(0, -3, "LINEAR_EXACT")}, "width -3; LINEAR_EXACT wants > 0"),
        ({"window": Window(float("nan"), 3)}, "centre nan"),
        ({"window": Window(0, 10, "CUBIC")}, "VOI function 'CUBIC'; wanted LINEAR"),
        ({"voi_lut": lut([])}, r"VOI LUT is uint16 of shape \(0,\)"),
        ({"modality_lut": lut([1, 2], dtype=np.int32)}, "modality LUT is int32"),
        ({"voi_lut": lut([1, 4096])}, "VOI LUT has the entry 4096, more than its 12 bits hold"),
        ({"voi_lut": lut([1], bits=17)}, "entries of 17 bits; wanted 1 to 16"),
        ({"padding": (5, 4)}, r"padding range \(5, 4\) is empty"),
    ],
)
def test_transform_that_the_chain_does_not_define_is_refused(fields, message):
    with pytest.raises(Refusal, match=f"film.dcm: .*{message}") as caught:
        preprocess([Radiograph(PIXELS, 16, source="film.dcm", **fields)], PreprocessSpec())
    assert caught.value.reason is RefusalReason.UNSUPPORTED_PIXELS


def test_range_that_float16_cannot_hold():
    with pytest.raises(KernelError, match=r"range 0\.0 \.\. 70000\.0 does not fit float16"):
        preprocess([Radiograph(PIXELS, 16)], PreprocessSpec(range_high=70000.0, dtype="float16"))


@pytest.mark.parametrize("high", [0.0, -1.0])
def test_range_that_does_not_rise(high):
    with pytest.raises(ValidationError, match=f"range_low 0.0 must be below range_high {high}"):
        PreprocessSpec(range_high=high)
    copied = PreprocessSpec().model_copy(update={"range_high": high})  # which checks nothing
    with pytest.raises(KernelError, match=f"range 0.0 .. {high} does not rise"):
        preprocess([Radiograph(PIXELS, 16)], copied)


def test_negative_thread_count():
    with pytest.raises(KernelError, match="threads=-1; wanted 0"):
        preprocess([Radiograph(PIXELS, 16)], PreprocessSpec(), threads=-1)

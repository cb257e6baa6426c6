"""The C++ kernel held to the reference: any film, any transform, any size."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.errors import Refusal
from edgecxr.kernels import preprocess, reference
from edgecxr.kernels.transfer import EMPTY, SAMPLED
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

CHECKED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

sides = st.one_of(st.integers(1, 40), st.integers(41, 400))
specs = st.builds(
    PreprocessSpec,
    size=st.integers(16, 96),
    aspect=st.sampled_from(["pad", "stretch"]),
    dtype=st.sampled_from(["float32", "float16"]),
    low_percentile=st.sampled_from([0.0, 0.5, 10.0]),
    high_percentile=st.sampled_from([75.0, 99.5, 100.0]),
)


@st.composite
def lookup_tables(draw, first: st.SearchStrategy[int]) -> Lut:
    bits = draw(st.integers(8, 16))
    length = draw(st.integers(1, 5000))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2**bits, length)
    return Lut(draw(first), (np.sort(values) if draw(st.booleans()) else values).astype(np.uint16), bits)


@st.composite
def films(draw) -> Radiograph:
    dtype = np.dtype(draw(st.sampled_from(["uint8", "int8", "uint16", "int16"])))
    bits = draw(st.integers(8, 8 * dtype.itemsize)) if dtype.itemsize == 2 else 8
    least = -(2 ** (bits - 1)) if dtype.kind == "i" else 0
    greatest = least + 2**bits - 1
    stored = st.integers(least, greatest)
    shape = draw(sides), draw(sides)
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(least, greatest + 1, shape).astype(dtype)
    pixels[: draw(st.integers(0, shape[0]))] = draw(stored)
    slope = draw(st.sampled_from([1.0, 1.0, -1.0, 0.5, 2.37, -0.013, 100.0, 0.0]))
    intercept = draw(st.sampled_from([0.0, -1024.0, 3.7]))
    modality = draw(st.none() | lookup_tables(stored)) if draw(st.booleans()) else None
    center = draw(st.integers(-5000, 70000) | st.floats(-5000, 70000))
    width = draw(st.sampled_from([1, 1.5, 2, 16, 17]) | st.integers(1, 70000) | st.floats(1, 70000))
    function = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    pad = sorted((draw(st.integers(least - 9, greatest + 9)), draw(st.integers(least - 9, greatest + 9))))
    return Radiograph(
        pixels,
        bits,
        slope,
        intercept,
        modality,
        draw(st.none() | st.just(Window(center, width, function))),
        draw(st.none() | lookup_tables(st.integers(-100, 1000))),
        inverted=draw(st.booleans()),
        padding=draw(st.none() | st.just((pad[0], pad[1]))),
    )


def outcome(run):
    """The tensor, or the words of the refusal."""
    try:
        return run()
    except Refusal as refusal:
        return str(refusal)


def assert_within_contract(result, expected) -> None:
    """1e-5 in float32, 1 ulp in float16; a refusal word for word."""
    if isinstance(expected, str):
        assert result == expected
    elif expected.dtype == np.float32:
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
    else:
        assert result.dtype == np.float16
        # values are >= 0, so neighbours differ by 1 as integers
        assert np.abs(result.view(np.int16).astype(int) - expected.view(np.int16)).max() <= 1


@CHECKED
@given(film=films(), spec=specs)
def test_kernel_against_the_reference(native, film, spec):
    expected = outcome(lambda: reference.preprocess_frame(film, spec))
    assert_within_contract(outcome(lambda: native.preprocess_frame(film, spec, 1)), expected)


@CHECKED
@given(film=films(), spec=specs)
def test_every_instruction_set_gives_the_same_bits(native, film, spec):
    results = [outcome(lambda: native.preprocess_frame(film, spec, 1, level)) for level in native.levels()]  # noqa: B023
    assert "baseline" in native.levels()
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("shape", [(1500, 900), (300, 2000), (2000, 3), (65000, 20), (20, 65000)])
@pytest.mark.parametrize("fields", [{"window": Window(30000, 50000)}, {"window": Window(9000, 900, "SIGMOID")}, {}])
def test_large_films(native, shape, fields):
    pixels = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    film, spec = Radiograph(pixels, 16, **fields), PreprocessSpec(size=64, aspect="stretch")
    expected = reference.preprocess_frame(film, spec)
    one = native.preprocess_frame(film, spec, 1)
    np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(native.preprocess_frame(film, spec, threads), one)


def test_range_other_than_unit(native):
    pixels = np.random.default_rng(0).integers(0, 4096, (300, 200), dtype=np.uint16)
    film, spec = Radiograph(pixels, 12), PreprocessSpec(size=64, range_low=-2.1, range_high=2.6)
    expected = reference.preprocess_frame(film, spec)
    np.testing.assert_allclose(native.preprocess_frame(film, spec, 1), expected, rtol=0, atol=4.7e-5)


def test_black_is_exact_and_white_is_never_exceeded(native):
    pixels = np.zeros((777, 555), dtype=np.uint16)
    pixels[400:] = 4095
    spec = PreprocessSpec(size=32, aspect="stretch")
    for inverted in (False, True):
        tensor = native.preprocess_frame(
            Radiograph(pixels, 12, window=Window(2048, 3001.3), inverted=inverted), spec, 1
        )
        black, white = tensor[0, [-1, 0]] if inverted else tensor[0, [0, -1]]
        np.testing.assert_array_equal(black, 0)
        assert white.max() <= 1
        np.testing.assert_allclose(white, 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["cpp", "numpy"])
@pytest.mark.parametrize("window", [None, Window(2047.5, 4095, "LINEAR_EXACT"), Window(2047.5, 900, "SIGMOID")])
def test_monochrome1_twin_is_the_same_film(native, kernel, window):
    pixels = np.random.default_rng(0).integers(0, 4096, (300, 200), dtype=np.uint16)
    twin = Radiograph((4095 - pixels).astype(np.uint16), 12, window=window, inverted=True)
    # symmetric percentiles of distinct ranks: nearest rank from below is not nearest rank from above
    spec = PreprocessSpec(low_percentile=0, high_percentile=100)
    first, second = preprocess([Radiograph(pixels, 12, window=window), twin], spec, kernel=kernel)
    np.testing.assert_allclose(first, second, rtol=0, atol=2e-7)


def test_batch_of_films_of_many_sizes(native):
    rng = np.random.default_rng(0)
    batch = [Radiograph(rng.integers(0, 256, shape, dtype=np.uint8), 8) for shape in ((30, 50), (224, 224), (500, 10))]
    spec = PreprocessSpec(dtype="float16")
    tensor = preprocess(batch, spec, kernel="cpp")
    assert tensor.shape == (3, 1, 224, 224)
    assert tensor.dtype == np.float16
    for index, film in enumerate(batch):
        np.testing.assert_array_equal(tensor[index : index + 1], preprocess([film], spec, kernel="cpp"))


def test_module_refuses_what_would_leave_an_array(native):
    pixels, plane = np.zeros((4, 4), dtype=np.uint16), np.zeros((16, 16), dtype=np.float32)
    values = np.zeros(65536, dtype=np.float32)
    with pytest.raises(ValueError, match="the box does not lie inside the plane"):
        native._native.table(pixels, plane, (0, 1, 16, 16), 0.0, 1.0, values=values, threads=1)
    with pytest.raises(ValueError, match="one entry per bit pattern"):
        native._native.table(pixels, plane, (0, 0, 16, 16), 0.0, 1.0, values=values[:256], threads=1)
    with pytest.raises(ValueError, match="one entry per value"):
        native._native.count_values(pixels, np.zeros(256, dtype=np.int64), 1, 0, threads=1)
    with pytest.raises(ValueError, match="values that a pixel can hold"):
        native._native.count_values(pixels, np.zeros(65536, dtype=np.int64), -1, 9, threads=1)
    with pytest.raises(ValueError, match="level 'sse9' is not compiled in"):
        native.preprocess_frame(Radiograph(pixels, 16, window=Window(10, 100)), PreprocessSpec(), 1, "sse9")
    with pytest.raises(TypeError, match="incompatible function arguments"):
        native._native.count_values(pixels[:, ::2], np.zeros(65536, dtype=np.int64), 1, 0, threads=1)


def detector(shape: tuple[int, int]) -> np.ndarray:
    """Smooth 12-bit values with noise, (H, W) int64."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(0).normal(0, 20, shape)
    return (2000 + 1500 * np.sin(y / 90 + 1) * np.cos(x / 70) + noise).astype(np.int64)


def with_border(pixels):
    pixels[:, :60] = 0
    return pixels


def misleading(pixels):
    """The rows that are sampled lie between all others."""
    pixels[::SAMPLED] = np.linspace(1999, 2001, pixels.shape[1]).astype(np.int64)
    return pixels


def flat_but_for_few(pixels):
    pixels[:] = 700
    pixels[3, :2] = 1, 4000
    return pixels


@pytest.mark.parametrize("picture", [lambda pixels: pixels, with_border, misleading, flat_but_for_few])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"slope": -0.37, "intercept": 5.0},
        {"padding": (-9, 0)},
        {"padding": (1900, 1950)},
        {"padding": (4000, 9000)},
    ],
)
@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (0.0, 100.0), (30.0, 60.0)])
def test_percentiles_are_exact_whatever_the_sample_tells(native, picture, dtype, fields, percentiles):
    film = Radiograph(picture(detector((400, 300))).astype(dtype), 16, **fields)
    spec = PreprocessSpec(size=32, low_percentile=percentiles[0], high_percentile=percentiles[1])
    expected = outcome(lambda: reference.preprocess_frame(film, spec))
    assert_within_contract(outcome(lambda: native.preprocess_frame(film, spec, 1)), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("together", [EMPTY, (5, 5), (9, 100), (0, 127)])
def test_counts_of_stored_values(native, dtype, threads, together):
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max + 1, (1025, 1027)).astype(dtype)
    expected = np.bincount(pixels.ravel().astype(np.int64) - limits.min, minlength=2**limits.bits)
    if together != EMPTY:
        lumped = slice(together[0] - limits.min, together[1] - limits.min + 1)
        total = expected[lumped].sum()
        expected[lumped] = 0
        expected[lumped.start] = total
    np.testing.assert_array_equal(native._counts(pixels, together, threads), expected)

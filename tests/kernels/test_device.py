"""What the host hands to the CUDA kernel."""

import subprocess
import sys

import numpy as np
import pytest

from edgecxr.errors import KernelError, Refusal, RefusalReason
from edgecxr.kernels import device, tiling
from edgecxr.kernels.device import DevicePlan
from edgecxr.radiograph import Radiograph, Window
from edgecxr.spec import Box, PreprocessSpec

WINDOW = Window(2048, 4000)


def film(shape=(300, 200), dtype=np.uint16, **fields) -> Radiograph:
    pixels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    return Radiograph(pixels, fields.pop("bits", 12), window=fields.pop("window", WINDOW), **fields)


def test_layout_is_that_of_the_struct():
    assert device.FRAME.itemsize == 96
    assert device.FRAME.fields["flip"][1] == 60
    assert device.FRAME.fields["near_count"][1] == 92


def test_films_are_packed_one_behind_the_other_and_aligned():
    films = [film((3, 5)), film((40, 41), np.int8), film((7, 9), np.int16)]
    plan = DevicePlan.of(films, PreprocessSpec(size=32))
    staging = np.zeros(plan.bytes, dtype=np.uint8)
    plan.pack(staging)
    assert plan.bytes % 16 == 0
    for frame, radiograph in zip(plan.frames, films, strict=True):
        assert frame["offset"] % device.ALIGNMENT == 0
        stored = staging[frame["offset"] : frame["offset"] + radiograph.pixels.nbytes]
        np.testing.assert_array_equal(stored.view(radiograph.pixels.dtype), radiograph.pixels.ravel())


@pytest.mark.parametrize(
    "staging", [np.zeros(9, dtype=np.uint8), np.zeros(9**4, dtype=np.int8), np.zeros((99, 99), dtype=np.uint8)]
)
def test_staging_that_cannot_take_the_films(staging):
    with pytest.raises(KernelError, match=r"wanted uint8 of at least \d+ bytes"):
        DevicePlan.of([film((30, 30))], PreprocessSpec()).pack(staging)


def test_a_window_is_a_line_and_a_sigmoid_a_table():
    plan = DevicePlan.of([film(), film(window=Window(50, 40, "SIGMOID")), film()], PreprocessSpec())
    assert plan.frames["table"].tolist() == [-1, 0, -1]
    assert plan.frames["near_count"].tolist() == [0, 4096, 0]
    assert plan.tables.shape == (65536,)


def test_equal_tables_are_kept_once():
    other = film(window=Window(50, 41, "SIGMOID"), bits=16)
    plan = DevicePlan.of([film(window=Window(50, 40, "SIGMOID"))] * 2 + [other], PreprocessSpec())
    assert plan.frames["table"].tolist() == [0, 0, 65536]
    assert plan.frames["near_count"].tolist() == [4096, 4096, 0]


def test_table_of_signed_values_is_in_their_order():
    plan = DevicePlan.of([film(dtype=np.int16, window=Window(0, 900, "SIGMOID"))], PreprocessSpec())
    assert (np.diff(plan.tables) >= 0).all()
    assert plan.tables[32768] == pytest.approx(0.5)
    assert plan.frames["near_first"][0] == 32768 - 2048


@pytest.mark.parametrize(
    "shapes", [[(3072, 3072)], [(3000, 2500), (4280, 3520), (100, 90)], [(65536, 20), (20, 65536)]]
)
@pytest.mark.parametrize("size", [16, 224, 2048])
@pytest.mark.parametrize("count", [1, 40])
def test_launch_fits_every_gpu(shapes, size, count):
    spec = PreprocessSpec(size=size)
    layout = tiling.plan([(shape, spec.placement(*shape)) for shape in shapes * count])
    assert layout.shared_bytes + 4 * device.NEAR <= 48 * 1024
    assert layout.shared_bytes % 16 == 0
    assert 1 <= layout.band <= tiling.MOST_ROWS
    assert all(1 <= tile <= layout.threads for tile in layout.tiles)


def test_tiles_of_a_wide_film_are_read_once():
    layout = tiling.plan([((3072, 3072), Box(0, 0, 224, 224))])
    assert (layout.threads, layout.tiles, layout.band) == (192, (112,), 1)
    assert tiling.plan([((3072, 3072), Box(0, 0, 224, 224))] * 64).band == 14


@pytest.mark.parametrize("threads", [0, 16, 100, 288])
def test_threads_that_no_block_has(threads):
    with pytest.raises(KernelError, match=f"threads={threads}; wanted a multiple of 32, 32 to 256"):
        DevicePlan.of([film()], PreprocessSpec(), threads=threads)


def test_no_films():
    with pytest.raises(KernelError, match="0 films in a launch; wanted 1 to 65535"):
        DevicePlan.of([], PreprocessSpec())


def test_film_of_padding_alone_is_refused():
    with pytest.raises(Refusal, match="every pixel is padding") as caught:
        DevicePlan.of([film(padding=(0, 100))], PreprocessSpec())
    assert caught.value.reason is RefusalReason.NO_CONTRAST


def test_entry_points():
    assert DevicePlan.of([film()], PreprocessSpec()).entry == "edgecxr_preprocess_f32"
    plan = DevicePlan.of([film()] * 3, PreprocessSpec(dtype="float16", size=64))
    assert plan.entry == "edgecxr_preprocess_f16"
    assert plan.shape == (3, 1, 64, 64)


def test_sources_are_installed():
    texts = device.sources()
    assert next(iter(texts)) == "preprocess.cu"
    assert set(texts) == {"preprocess.cu", "block.hpp", "frame.hpp", "preprocess.hpp"}


def test_fatbin_that_was_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "FATBIN", tmp_path / "preprocess.fatbin")
    with pytest.raises(KernelError, match="installed without nvcc"):
        device.fatbin()


def test_nothing_of_cuda_is_imported():
    code = "import sys; import edgecxr.kernels.device, edgecxr.kernels.nvrtc; print('pycuda' in sys.modules)"
    path = [entry for entry in sys.path if entry]
    script = f"import sys; sys.path[:] = {path!r}; {code}"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"

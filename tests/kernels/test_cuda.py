"""The CUDA kernel: its text held to the oracle on the CPU, and compiled for every architecture."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.errors import KernelError, Refusal
from edgecxr.kernels import device, nvrtc, reference
from edgecxr.kernels.device import DevicePlan
from edgecxr.radiograph import Lut, Radiograph, Window
from edgecxr.spec import PreprocessSpec

CHECKED = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 103, 110, 120)
KERNELS = Path(__file__).parents[2] / "kernels"


def random_film(seed: int, longest: int = 400) -> Radiograph:
    """Any type, size, transform, polarity and padding."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(rng.choice(["uint8", "int8", "uint16", "int16"]))
    bits = int(rng.integers(8, 8 * dtype.itemsize + 1))
    least = -(2 ** (bits - 1)) if dtype.kind == "i" else 0
    shape = tuple(int(side) for side in np.exp(rng.uniform(0, np.log(longest), 2)))
    pixels = rng.integers(least, least + 2**bits, shape).astype(dtype)
    first = int(rng.integers(least, least + 2**bits))
    curve = Lut(first, rng.integers(0, 1024, int(rng.integers(1, 5000))).astype(np.uint16), 10)
    function = str(rng.choice(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    window = Window(float(rng.uniform(-5000, 70000)), float(np.exp(rng.uniform(0, 11))), function)  # type: ignore[arg-type]
    return Radiograph(
        pixels,
        bits,
        slope=float(rng.choice([1.0, 1.0, -1.0, 0.5, 2.37, -0.013, 0.0, 1e-4])),
        intercept=float(rng.choice([0.0, -1024.0, 3.7])),
        modality_lut=curve if rng.random() < 0.1 else None,
        window=window if rng.random() < 0.6 else None,
        voi_lut=curve if rng.random() < 0.2 else None,
        inverted=bool(rng.random() < 0.5),
        padding=(first, first + int(rng.integers(0, 60))) if rng.random() < 0.4 else None,
    )


def accepted(films: list[Radiograph], spec: PreprocessSpec) -> tuple[list[Radiograph], np.ndarray]:
    """The films that the chain does not refuse, and what the oracle makes of them, (N, 1, S, S)."""
    kept, results = [], []
    for film in films:
        try:
            results.append(reference.preprocess_frame(film, spec))
        except Refusal as refusal:
            with pytest.raises(Refusal, match=f"^{re.escape(str(refusal))}$"):
                DevicePlan.of([film], spec)
        else:
            kept.append(film)
    return kept, np.stack(results) if results else np.empty((0, 1, spec.size, spec.size))


def assert_within_contract(result: np.ndarray, expected: np.ndarray) -> None:
    """Every element written; 1e-5 in float32, 1 ulp in float16."""
    assert result.dtype == expected.dtype
    assert np.isfinite(result).all()
    if result.dtype == np.float32:
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
    else:  # values are >= 0, so neighbours differ by 1 as integers
        assert np.abs(result.view(np.int16).astype(int) - expected.view(np.int16)).max() <= 1


specs = st.builds(
    PreprocessSpec,
    size=st.integers(16, 120),
    aspect=st.sampled_from(["pad", "stretch"]),
    dtype=st.sampled_from(["float32", "float16"]),
)


@CHECKED
@given(
    seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=4),
    spec=specs,
    threads=st.sampled_from([None, 32, 64, 256]),
)
def test_kernel_against_the_oracle(emulation, emulation_module, seeds, spec, threads):
    films, expected = accepted([random_film(seed) for seed in seeds], spec)
    if not films:
        return
    plan = DevicePlan.of(films, spec, threads=threads)
    result = emulation.run(plan, extra_blocks=3)
    assert_within_contract(result, expected)
    np.testing.assert_array_equal(emulation.run(*emulation_module.scattered(plan, seeds[0])), result)


@pytest.mark.parametrize("shape", [(3001, 2999), (300, 6001), (2000, 3), (20000, 20), (20, 20000), (1, 1), (3, 60000)])
@pytest.mark.parametrize(
    "fields", [{"window": Window(30000, 50000)}, {"window": Window(9000, 900, "SIGMOID"), "padding": (7, 7)}, {}]
)
def test_large_films(emulation, shape, fields):
    pixels = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    spec = PreprocessSpec(size=64, aspect="stretch")
    films, expected = accepted([Radiograph(pixels, 16, **fields)], spec)
    if films:
        assert_within_contract(emulation.run(DevicePlan.of(films, spec)), expected)


def test_window_too_far_for_a_line_goes_through_a_table(emulation):
    pixels = np.random.default_rng(0).integers(0, 65536, (90, 80), dtype=np.uint16)
    film = Radiograph(pixels, 16, window=Window(-9e6, 1.81e7, "LINEAR_EXACT"), padding=(3, 900))
    plan = DevicePlan.of([film], PreprocessSpec())
    assert plan.frames["table"][0] >= 0
    assert_within_contract(emulation.run(plan), reference.preprocess_frame(film, PreprocessSpec())[np.newaxis])


def test_black_is_exact_and_white_is_never_exceeded(emulation):
    pixels = np.array([[0, 0, 4095, 4095]], dtype=np.uint16).repeat(700, axis=0).repeat(100, axis=1)
    for inverted in (False, True):
        film = Radiograph(pixels, 12, window=Window(2048, 3001.3), inverted=inverted)
        row = emulation.run(DevicePlan.of([film], PreprocessSpec(aspect="stretch")))[0, 0, 5]
        black, white = (row[-9:], row[:9]) if inverted else (row[:9], row[-9:])
        np.testing.assert_array_equal(black, 0)
        assert row.max() <= 1
        np.testing.assert_allclose(white, 1, rtol=0, atol=1e-6)


def test_float16_is_rounded_as_numpy_does(emulation):
    bits = np.random.default_rng().integers(0, 2**32, 10**6, dtype=np.uint32)
    values = bits.view(np.float32)
    values = np.concatenate([values[np.isfinite(values)], np.linspace(-1e-4, 1, 10**6, dtype=np.float32)])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(emulation.half_bits(values), values.astype(np.float16).view(np.uint16))


@pytest.mark.parametrize(("source", "target"), [(3072, 224), (65536, 2047), (65535, 16), (17, 224), (224, 223), (9, 9)])
def test_covers_have_the_weights_of_the_oracle(emulation, source, target):
    covers, matrix = emulation.covers(source, target), reference.resampling_matrix(source, target)
    for cover, row in zip(covers, matrix, strict=True):
        inside = np.flatnonzero(row > 1e-9)
        assert (inside[0], inside[-1]) == (cover["first"], cover["last"])
        share = row * max(1, source / target)
        assert share[cover["first"]] == pytest.approx(cover["first_weight"], abs=1e-6)
        if cover["first"] != cover["last"]:
            assert share[cover["last"]] == pytest.approx(cover["last_weight"], abs=1e-6)


@pytest.fixture(scope="module")
def built_fatbin(tmp_path_factory) -> Path:
    """The fatbin that is installed, else one that nvcc makes."""
    if device.FATBIN.is_file():
        return device.FATBIN
    compiler = shutil.which("nvcc")
    if compiler is None or not (KERNELS / "cuda").is_dir():
        pytest.skip("neither an installed fatbin nor nvcc with the sources")
    known = subprocess.run([compiler, "--list-gpu-code"], capture_output=True, text=True, timeout=60).stdout.split()
    path = tmp_path_factory.mktemp("fatbin") / "preprocess.fatbin"
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES if f"sm_{a}" in known]
    options = ["-fatbin", "-std=c++17", "-O3", "-fmad=false", "--threads", "0", "-Xfatbin=-compress-all", *codes]
    options += ["-gencode=arch=compute_75,code=compute_75", f"-I{KERNELS / 'src'}"]
    command = [compiler, *options, str(KERNELS / "cuda" / "preprocess.cu"), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return path


def nvidia_tool(name: str) -> str | None:
    """A program of the CUDA toolkit, or of a wheel."""
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations or () if spec else ()
    found = [str(path) for root in roots for path in Path(root).glob(f"*/bin/{name}")]
    return shutil.which(name) or (found[0] if found else None)


def test_fatbin_has_code_for_every_architecture(built_fatbin):
    tool = nvidia_tool("cuobjdump")
    if tool is None:
        pytest.skip("pip install nvidia-cuda-cuobjdump for this test")
    listed = subprocess.run([tool, "--list-elf", str(built_fatbin)], capture_output=True, text=True, timeout=60)
    found = {int(arch) for arch in re.findall(r"sm_(\d+)", listed.stdout)}
    assert found >= set(ARCHITECTURES) - {103}, listed.stdout + listed.stderr
    ptx = subprocess.run([tool, "--list-ptx", str(built_fatbin)], capture_output=True, text=True, timeout=60)
    assert "sm_75" in ptx.stdout
    assert built_fatbin.stat().st_size < 2**20


def nvrtc_126() -> Path:
    spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    for root in spec.submodule_search_locations or () if spec else ():
        for path in Path(root).glob("lib/libnvrtc.so.12"):
            return path
    pytest.skip("pip install nvidia-cuda-nvrtc-cu12==12.6.* for this test")


def test_nvrtc_of_jetpack_6_compiles_for_orin():
    library = nvrtc_126()
    cubin = nvrtc.compile_cubin("sm_87", library)
    assert cubin.startswith(b"\x7fELF")
    assert all(name.encode() in cubin for name in device.ENTRIES.values())
    ptx = nvrtc.compile_ptx("sm_87", library).decode()
    assert ".target sm_87" in ptx
    assert "ld.global.nc.v4.u32" in ptx  # 16 bytes to a load


@pytest.mark.parametrize("arch", ["87", "sm_x", "gfx90a"])
def test_architecture_that_is_none(arch):
    with pytest.raises(KernelError, match="wanted one like sm_87"):
        nvrtc.compile_cubin(arch)


def test_library_that_is_no_nvrtc(tmp_path):
    library = tmp_path / "libnvrtc.so"
    library.write_bytes(b"no library")
    with pytest.raises(KernelError, match="cannot be used as NVRTC"):
        nvrtc.compile_ptx("sm_87", library)

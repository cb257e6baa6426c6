"""The CUDA kernel compiled on the spot by NVRTC: for a Jetson, whose driver is older than the fatbin that is shipped.

NVRTC is a library of the CUDA toolkit (`libnvrtc`), or of the wheels nvidia-cuda-nvrtc. No GPU is needed to compile.
"""

import ctypes
import ctypes.util
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from edgecxr.errors import KernelError
from edgecxr.kernels.device import sources

__all__ = ["compile_cubin", "compile_ptx", "find_libraries"]

OPTIONS = ("--std=c++17", "--fmad=false", "--device-as-default-execution-space")
TOOLKITS = (
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/aarch64-linux/lib",
    "/usr/local/cuda/targets/x86_64-linux/lib",
)


def compile_ptx(arch: str, library: Path | None = None) -> bytes:
    """PTX of both kernels, for the driver to finish.

    Args:
        arch: the least compute capability it shall run on, e.g. `compute_87`; `sm_87` is taken as the same.
        library: the libnvrtc to compile with; where None, the first of `find_libraries` that can.

    Raises:
        KernelError: no NVRTC, an architecture that none knows, or their own words on what failed.
    """
    return _compiled(_arch(arch, "compute"), library, "PTX")


def compile_cubin(arch: str, library: Path | None = None) -> bytes:
    """Machine code of both kernels for one GPU, e.g. `sm_87`. Arguments and errors as of `compile_ptx`."""
    return _compiled(_arch(arch, "sm"), library, "CUBIN")


def find_libraries() -> list[Path]:
    """The toolkit's libnvrtc, which fits the driver beside it, then those of wheels, the newest first.

    Raises KernelError for none.
    """
    named = ctypes.util.find_library("nvrtc")
    found = [path for path in _candidates() if path.is_file()] + ([Path(named)] if named else [])
    if not found:
        raise KernelError(
            "no libnvrtc: install the CUDA toolkit, or pip install nvidia-cuda-nvrtc-cu12 (CUDA 12) or "
            "nvidia-cuda-nvrtc"
        )
    return found


def _candidates() -> Iterator[Path]:
    for folder in TOOLKITS:
        yield Path("/usr/local/cuda") / folder / "libnvrtc.so"
    spec = find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(root).glob("*/lib/libnvrtc.so.*"), key=_release, reverse=True)


def _release(path: Path) -> tuple[int, ...]:
    """(13,) of ``libnvrtc.so.13``."""
    return tuple(int(number) for number in re.findall(r"\d+", path.name.rpartition(".so")[2]))


def _arch(arch: str, kind: str) -> str:
    match = re.fullmatch(r"(?:sm|compute)_(\d{2,3}[af]?)", arch)
    if match is None:
        raise KernelError(f"architecture {arch!r}; wanted one like {kind}_87")
    return f"{kind}_{match[1]}"


def _compiled(arch: str, library: Path | None, form: str) -> bytes:
    main, *headers = sources().items()
    reasons = []
    for path in find_libraries() if library is None else [library]:
        try:
            return Nvrtc(path).compiled(main, headers, [*OPTIONS, f"--gpu-architecture={arch}"], form)
        except KernelError as error:
            reasons.append(str(error))
    raise KernelError("; ".join(reasons))


class Nvrtc:
    """The library, by ctypes. NVRTC's C interface has not changed since CUDA 8."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
            self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise KernelError(f"{path} cannot be used as NVRTC: {error}") from error
        self._path = path

    def compiled(self, main: tuple[str, str], headers: list[tuple[str, str]], options: list[str], form: str) -> bytes:
        """`form` (PTX or CUBIN) of the source `main`, (name, text), with `headers` by name."""
        program = ctypes.c_void_p()
        name, text = main
        names, texts = _strings([name for name, _ in headers]), _strings([text for _, text in headers])
        self._call("CreateProgram", ctypes.byref(program), text.encode(), name.encode(), len(headers), texts, names)
        try:
            code = self._library.nvrtcCompileProgram(program, len(options), _strings(options))
            if code:
                raise KernelError(
                    f"{self._path} with {options[-1]}: {self._words(code)}\n{self._log(program)}".rstrip()
                )
            return self._taken(form, program)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _taken(self, form: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{form}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{form}", program, buffer)
        return buffer.raw

    def _log(self, program: ctypes.c_void_p) -> str:
        size = ctypes.c_size_t()
        self._call("GetProgramLogSize", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call("GetProgramLog", program, buffer)
        return buffer.value.decode(errors="replace")

    def _call(self, name: str, *arguments: object) -> None:
        try:
            call = getattr(self._library, f"nvrtc{name}")
        except AttributeError as error:  # machine code: from CUDA 11.1 on
            raise KernelError(f"{self._path} is too old: {error}") from error
        if code := call(*arguments):
            raise KernelError(f"{self._path}: nvrtc{name}: {self._words(code)}")

    def _words(self, code: int) -> str:
        return bytes(self._library.nvrtcGetErrorString(code)).decode()


def _strings(values: list[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(values))(*[value.encode() for value in values])

"""What the NVIDIA driver says is there, asked by ctypes: nothing is imported, no context is made, nothing can crash.

Some runtimes end the process when they are created without a GPU, so this is asked before any of them is touched.
Attribute numbers are those of CUdevice_attribute (CUDA Driver API, section 6.5).
"""

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path

from edgecxr.errors import EngineError

__all__ = ["DeviceReport", "Gpu", "probe"]

LIBRARY = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
MAJOR, MINOR, MULTIPROCESSORS, INTEGRATED, CAN_MAP = 75, 76, 16, 18, 19
NO_DRIVER = "no NVIDIA driver here ({words}); install the driver of the GPU, or use OpenVINO on the CPU"
RELEASES = ("/etc/nv_tegra_release", "/proc/driver/nvidia/version")  # of the driver: Jetson, others


@dataclass(frozen=True)
class Gpu:
    """One device as the driver lists it."""

    index: int
    name: str
    capability: str  # compute capability, e.g. "8.7"
    memory_bytes: int
    multiprocessors: int
    integrated: bool  # shares its memory with the CPU, as on a Jetson
    can_map: bool  # can address pinned host memory

    @property
    def architecture(self) -> str:
        """E.g. ``sm_87``."""
        return f"sm_{self.capability.replace('.', '')}"


@dataclass(frozen=True)
class DeviceReport:
    """The driver and its devices, or the reason why there is none; never both empty."""

    cuda: str = ""  # newest CUDA that the driver serves, e.g. "13.0"
    release: str = ""  # of the driver, in its own words
    devices: tuple[Gpu, ...] = ()
    reason: str = ""

    def gpu(self, index: int = 0) -> Gpu:
        """One device. Raises EngineError with the reason why there is none."""
        if self.reason:
            raise EngineError(self.reason)
        if not 0 <= index < len(self.devices):
            raise EngineError(f"there is no GPU {index}; the driver lists {len(self.devices)}, numbered from 0")
        return self.devices[index]


class _DriverFault(Exception):
    """A call that did not return CUDA_SUCCESS, in the driver's own words."""


def probe(library: str = LIBRARY) -> DeviceReport:
    """Ask the driver for its version and devices; whatever goes wrong is a sentence in `reason`."""
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        return DeviceReport(reason=NO_DRIVER.format(words=error))
    try:
        _call(driver, "cuInit", ctypes.c_uint(0))
        cuda = _version(driver)
        devices = tuple(_gpu(driver, index) for index in range(_count(driver)))
    except (_DriverFault, AttributeError) as error:
        reason = f"the NVIDIA driver cannot be used ({error}); see `nvidia-smi`, install the driver again, or reboot"
        return DeviceReport(release=_release(), reason=reason)
    if not devices:
        return DeviceReport(cuda, _release(), reason="the NVIDIA driver lists no GPU; see `nvidia-smi`")
    return DeviceReport(cuda, _release(), devices)


def _call(driver: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(driver, name)(*arguments)
    if code:
        raise _DriverFault(f"{name}: {_words(driver, code)}")


def _words(driver: ctypes.CDLL, code: int) -> str:
    found = [f"error {code}"]
    for name in ("cuGetErrorName", "cuGetErrorString"):
        text = ctypes.c_char_p()
        if hasattr(driver, name) and getattr(driver, name)(code, ctypes.byref(text)) == 0 and text.value:
            found.append(text.value.decode(errors="replace"))
    return ", ".join(found)


def _version(driver: ctypes.CDLL) -> str:
    number = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _count(driver: ctypes.CDLL) -> int:
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    return count.value


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    _call(driver, "cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
    _call(driver, "cuDeviceGetName", name, ctypes.c_int(len(name)), device)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), device)
        return value.value

    return Gpu(
        index,
        name.value.decode(errors="replace"),
        f"{attribute(MAJOR)}.{attribute(MINOR)}",
        memory.value,
        attribute(MULTIPROCESSORS),
        bool(attribute(INTEGRATED)),
        bool(attribute(CAN_MAP)),
    )


def _release() -> str:
    """The first line in which this system names its driver; empty where it names none."""
    for path in map(Path, RELEASES):
        try:
            return path.read_text(errors="replace").splitlines()[0].strip()
        except (OSError, IndexError):
            continue
    return ""

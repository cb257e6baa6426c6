"""The preprocessing chain of every model: one contract (`reference.py`), one function, whichever kernel runs it.

The kernel is chosen once per process: `cpp` where the compiled module is there, else `numpy` (the float64 reference
itself, slower, reported once on the logger ``edgecxr``). EDGECXR_KERNELS=cpp|numpy forces one.
"""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import KernelError
from edgecxr.kernels import reference
from edgecxr.kernels.checks import check_film, check_spec
from edgecxr.radiograph import Radiograph
from edgecxr.spec import PreprocessSpec

__all__ = ["KERNELS", "KernelStatus", "active", "preprocess", "report"]

KERNELS = ("cpp", "numpy")
CURE = "Install it again with a C++ compiler; EDGECXR_REQUIRE_NATIVE=1 makes a failed compilation visible"
VARIABLE = "EDGECXR_KERNELS"

Frame = Callable[[Radiograph, PreprocessSpec, int], NDArray[Any]]
logger = logging.getLogger("edgecxr")


class KernelStatus(NamedTuple):
    """One kernel as `edgecxr doctor` shows it."""

    name: str
    available: bool
    detail: str


def preprocess(
    radiographs: Sequence[Radiograph], spec: PreprocessSpec, *, kernel: str | None = None, threads: int = 0
) -> NDArray[Any]:
    """Films of any sizes to model input.

    Args:
        radiographs: N films; see `Radiograph` for what their arrays must be (C-contiguous; nothing is copied silently).
        spec: the chain's parameters, part of the model.
        kernel: `cpp` or `numpy`; the process-wide choice (`active`) where None.
        threads: CPU threads per film; 0 takes every core that this process may run on. Bits do not depend on it.

    Returns:
        (N, 1, S, S) of `spec.dtype`, in [range_low, range_high].

    Raises:
        KernelError: the kernel named is unknown or absent, or an array breaks the contract of `Radiograph`.
        Refusal: NO_CONTRAST, or UNSUPPORTED_PIXELS where the chain does not define the film's transform.
    """
    if threads < 0:
        raise KernelError(f"threads={threads}; wanted 0 (every core) or more")
    check_spec(spec)
    frame = _frame_function(kernel or active())
    batch = np.empty((len(radiographs), 1, spec.size, spec.size), dtype=np.dtype(spec.dtype))
    for index, radiograph in enumerate(radiographs):
        check_film(radiograph)
        batch[index] = frame(radiograph, spec, threads or _cores())
    return batch


@functools.cache
def active() -> str:
    """The kernel of this process: `cpp` or `numpy`. Raises KernelError where the one that is forced is absent."""
    forced = os.environ.get(VARIABLE)
    if forced:
        _frame_function(forced)
        return forced
    if _absence_of_native():
        text = "the C++ kernel is absent: %s. %s. Films take the slower NumPy reference"
        logger.warning(text, _absence_of_native(), CURE)
        return "numpy"
    return "cpp"


def report() -> list[KernelStatus]:
    """Every kernel, present or not, with the reason."""
    absence = _absence_of_native()
    return [
        KernelStatus("cpp", not absence, f"{absence}. {CURE}" if absence else f"compiled, {_cores()} core(s)"),
        KernelStatus("numpy", True, "float64 reference"),
    ]


def _frame_function(name: str) -> Frame:
    if name == "numpy":
        return _reference_frame
    if name not in KERNELS:
        raise KernelError(f"no kernel {name!r}; {VARIABLE} and kernel= take {' or '.join(KERNELS)}")
    if absence := _absence_of_native():
        raise KernelError(f"kernel 'cpp' was asked for and is absent: {absence}. {CURE}")
    from edgecxr.kernels import native

    return native.preprocess_frame


@functools.cache
def _absence_of_native() -> str:
    """Why the compiled kernel cannot be used; empty where it can."""
    try:
        from edgecxr.kernels import native  # noqa: F401
    except ImportError as error:
        return f"it was not compiled when EdgeCXR was installed: {error}"
    return ""


def _reference_frame(radiograph: Radiograph, spec: PreprocessSpec, threads: int) -> NDArray[Any]:
    return reference.preprocess_frame(radiograph, spec)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The choice of kernel, made once per process."""

import os
import subprocess
import sys

import numpy as np
import pytest

from edgecxr import kernels
from edgecxr.errors import KernelError
from edgecxr.radiograph import Radiograph
from edgecxr.spec import PreprocessSpec

WITHOUT_NATIVE = (
    "import sys; sys.modules['edgecxr.kernels._native'] = None\n"  # import of it fails, as when not compiled
)


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with this one's search path."""
    environment = {key: value for key, value in os.environ.items() if key != kernels.VARIABLE}
    environment |= {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)} | variables
    command = [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_compiled_kernel_is_taken_where_it_is(native):
    assert python("from edgecxr import kernels; print(kernels.active())").stdout == "cpp\n"


def test_variable_forces_the_reference():
    done = python("from edgecxr import kernels; print(kernels.active())", EDGECXR_KERNELS="numpy")
    assert done.stdout == "numpy\n"
    assert done.stderr == ""


def test_fall_back_is_said_once():
    code = WITHOUT_NATIVE + "from edgecxr import kernels; print(kernels.active(), kernels.active())"
    done = python(code)
    assert done.stdout == "numpy numpy\n"
    assert done.stderr.count("the C++ kernel is absent") == 1


@pytest.mark.parametrize(
    ("prelude", "name", "message"),
    [
        (WITHOUT_NATIVE, "cpp", "kernel 'cpp' was asked for and is absent"),
        ("", "cuda", "no kernel 'cuda'; EDGECXR_KERNELS and kernel= take cpp or numpy"),
    ],
)
def test_forced_kernel_that_is_absent_fails(prelude, name, message):
    done = python(prelude + "from edgecxr import kernels; kernels.active()", EDGECXR_KERNELS=name)
    assert done.returncode != 0
    assert f"edgecxr.errors.KernelError: {message}" in done.stderr


def test_unknown_kernel_by_argument():
    with pytest.raises(KernelError, match="no kernel 'gpu'"):
        kernels.preprocess([], PreprocessSpec(), kernel="gpu")


def test_argument_overrides_the_choice(native):
    film = Radiograph(np.arange(3000, dtype=np.uint16).reshape(50, 60), 12)
    one, other = (kernels.preprocess([film], PreprocessSpec(), kernel=name) for name in kernels.KERNELS)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_no_films_give_an_empty_batch():
    assert kernels.preprocess([], PreprocessSpec(size=32)).shape == (0, 1, 32, 32)


def test_report_names_every_kernel():
    report = kernels.report()
    assert tuple(status.name for status in report) == kernels.KERNELS
    assert report[-1].available
    assert all(status.detail for status in report)

"""Test what is installed; in a bare checkout, test the Python parts.

``python -m pytest`` puts the checkout first on ``sys.path``, ahead of an installed package and its compiled kernels.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"

try:
    distribution("edgecxr")
except PackageNotFoundError:
    sys.path.insert(0, str(ROOT))
else:
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = {
        "shared_data": None if SHARED.is_dir() else f"the shared films are not at {SHARED}",
        "tensorrt": None if find_spec("tensorrt_rtx_bindings") else "pip install edgecxr[tensorrt] for this test",
        "train": None if find_spec("torch") else "pip install edgecxr[train] for this test",
    }
    for item in items:
        for marker, reason in lacks.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared_dicom() -> Path:
    """Folder of the 67 real and hostile DICOM files."""
    return SHARED / "dicom" / "files"


@pytest.fixture(scope="session")
def shared_films() -> Path:
    """Folder with labels.csv and images/ of the 1,729 real films."""
    return SHARED / "cxr"

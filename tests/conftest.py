"""Test what is installed; in a bare checkout, test the Python parts.

``python -m pytest`` puts the checkout first on ``sys.path``, ahead of an installed package and its compiled kernels.
"""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"

try:
    distribution("edgecxr")
except PackageNotFoundError:
    sys.path.insert(0, str(ROOT))
else:
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
PEERS = ("dcmsend", "Orthanc", "dciodvfy", "DicomSRValidator")


def _absence_of_gpu() -> str | None:
    from edgecxr.runtimes.driver import probe

    return probe().reason or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    peers = [tool for tool in PEERS if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
    loops = os.geteuid() == 0 and os.access("/dev/loop-control", os.W_OK)
    lacks = {
        "browser": None if shutil.which("chromium") else "apt-get install chromium for this test",
        "gpu": _absence_of_gpu(),
        "peers": f"apt-get install dcmtk orthanc dicom3tools pixelmed-apps; lacking {', '.join(peers)}"
        if peers
        else None,
        "root": None if loops else "needs root and loop devices",
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


@pytest.fixture(scope="session")
def tiny_module() -> ModuleType:
    """The module `tests/tiny_bundle.py`: builders of tiny real ONNX graphs."""
    pytest.importorskip("onnx", reason="pip install edgecxr[train]: onnx makes the tiny models")
    spec = spec_from_file_location("tiny_bundle", Path(__file__).parent / "tiny_bundle.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("tests/tiny_bundle.py")
    module = module_from_spec(spec)
    sys.modules["tiny_bundle"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_build(tiny_module: ModuleType) -> Any:
    """A `TinyBuild`: the content of the tiny bundle, and `write(path, **changes)`."""
    return tiny_module.TinyBuild()


@pytest.fixture(scope="session")
def tiny_bundle(tiny_build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete bundle (FP32, FP16, INT8; both engines) of a 64 px model fitted to phantoms. Do not write to it."""
    path: Path = tiny_build.write(tmp_path_factory.mktemp("bundle") / "tiny.cxr")
    return path

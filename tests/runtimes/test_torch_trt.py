"""Torch-TensorRT: which versions belong together is read from what is installed, and said clearly."""

import sys
from pathlib import Path

import pytest

from edgecxr.errors import EngineError
from edgecxr.runtimes.torch_trt import check_pair

REQUIRES = ("torch<2.12,>=2.11", "tensorrt-cu13<10.16,>=10.15.1", "numpy", 'dllist; sys_platform == "none"')


def install(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    """What an installer writes beside a package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others on the path; what is installed there hides what is behind it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def test_absent_it_is_a_sentence() -> None:
    with pytest.raises(EngineError, match=r"Torch-TensorRT is not installed; .*pip install torch-tensorrt"):
        check_pair()


def test_versions_that_belong_together_are_taken(site: Path) -> None:
    install(site, "torch-tensorrt", "2.11.0", REQUIRES)
    install(site, "torch", "2.11.1+cu130")
    install(site, "tensorrt-cu13", "10.15.1.29")
    assert check_pair() == "torch-tensorrt 2.11.0"


def test_versions_that_do_not_are_named(site: Path) -> None:
    install(site, "torch-tensorrt", "2.11.0", REQUIRES)
    install(site, "torch", "2.15.0")
    with pytest.raises(EngineError) as caught:
        check_pair()
    assert "torch-tensorrt 2.11.0 wants torch<2.12,>=2.11 and 2.15.0 is there" in str(caught.value)
    assert "tensorrt-cu13<10.16,>=10.15.1 and there is none; install versions that belong together" in str(caught.value)


def test_the_flavour_for_rtx_is_known(site: Path) -> None:
    install(site, "torch-tensorrt-rtx", "2.11.0", ("torch<2.12,>=2.11", "tensorrt_rtx>=1.3.0.35"))
    install(site, "torch", "2.11.0")
    install(site, "tensorrt-rtx", "1.4.0.76")
    assert check_pair() == "torch-tensorrt-rtx 2.11.0"

"""The power fails at random moments: what was acknowledged is there, bit for bit, and decided once (see crash.py)."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


def cut(folder: Path, cuts: int, breakage: str = "") -> dict[str, Any]:
    memory = Path("/dev/shm")  # where there is one: an fsync costs less there, so that more happens between two cuts
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else folder) as place:
        command = [sys.executable, Path(__file__).parent / "crash.py", "cut", place, str(cuts), "5", breakage]
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert told.returncode == 0, told.stderr
    report: dict[str, Any] = json.loads(told.stdout)
    return report


def test_fifty_five_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    report = cut(tmp_path, 55)
    assert report["wrong"] == []
    assert report["crashes"] == 55
    assert report["acknowledged"] > 55
    assert report["decided"] > 55
    assert report["mended"] > 0  # some were in the middle of something


@pytest.mark.parametrize("breakage", ["no-file-sync", "no-folder-sync", "no-index-sync"])
def test_the_experiment_sees_a_missing_link(tmp_path: Path, breakage: str) -> None:
    assert cut(tmp_path, 15, breakage)["wrong"]

"""The process is killed at random moments: the same equation as for the power cut (see crash.py), without root.

A process with a spool alone, many times; and a whole node, some times (see crash_node.py).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def kill(folder: Path, crashes: int, breakage: str = "") -> dict[str, Any]:
    command = [sys.executable, Path(__file__).parent / "crash.py", "kill", folder, str(crashes), "7", breakage]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert told.returncode == 0, told.stderr
    report: dict[str, Any] = json.loads(told.stdout)
    return report


def test_a_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    report = kill(tmp_path, 110)
    assert report["wrong"] == []
    assert report["crashes"] == 110
    assert report["acknowledged"] > 50
    assert report["mended"] > 0


def test_the_experiment_sees_a_row_that_comes_before_its_file(tmp_path: Path) -> None:
    assert kill(tmp_path, 20, "row-before-file")["wrong"]


def test_a_whole_node_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path: Path, tiny_bundle: Path) -> None:
    command = [sys.executable, Path(__file__).parent / "crash_node.py", tmp_path / "clinic", "6", "7", tiny_bundle]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert told.returncode == 0, told.stderr
    report: dict[str, Any] = json.loads(told.stdout)
    assert report["wrong"] == []
    assert (report["kills"], report["cut"] > 0) == (6, True)
    assert report["acknowledged"] >= 6
    assert report["decided"] >= 3

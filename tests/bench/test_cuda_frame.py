"""The bench of a film to its scores measures what it says, over a stub device that keeps everything on the host."""

import json
import os
import subprocess
import sys
from pathlib import Path

from test_device_faults import driver, pytestmark

ROOT = Path(__file__).parents[2]
__all__ = ["driver", "pytestmark"]


def test_the_film_and_its_copy_are_timed_in_the_same_rounds(driver: Path, tiny_bundle: Path) -> None:
    paths = [str(ROOT), str(ROOT / "bench"), str(ROOT / "tests/runtimes"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(Path(__file__).with_name("measuring.py")), str(tiny_bundle)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {row["count"] for row in told["ms"].values()} == {5}
    assert told["megabytes"] == 256 * 256 * 2 / 1e6
    assert told["times_the_copy"]["copy to the GPU"] == 1
    assert told["ms"]["film to scores"]["best"] >= told["ms"]["on the device, and read back"]["best"]

"""Staging memory that is replaced: what was captured with it is never launched again, whatever addresses come back."""

import json
import os
import subprocess
import sys
from pathlib import Path

from test_device_faults import HERE, driver, pytestmark

__all__ = ["driver", "pytestmark"]


def test_a_graph_of_staging_memory_that_was_replaced_is_another_one_at_the_same_address(
    driver: Path, tiny_bundle: Path
) -> None:
    command = [sys.executable, str(HERE / "staging.py"), str(tiny_bundle)]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "AGAIN": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "repeated": True,
        "same": True,  # the address has come back: the generation alone tells them apart
        "keys_differ": True,
        "generations": [2, 3],  # of films and tables, then of films alone
        "held": [["batch", "film"], ["batch"]],
        "closed": ["film"],
    }

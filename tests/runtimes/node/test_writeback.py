"""Write-back begins where the system can do that, and elsewhere nothing happens."""

import os
import sys
from pathlib import Path

import pytest

from edgecxr.runtimes.node.writeback import write_back


@pytest.mark.skipif(sys.platform != "linux", reason="sync_file_range is Linux's")
def test_a_file_begins_to_be_written(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        assert write_back(file.fileno(), 0, 1 << 20)


def test_what_cannot_be_written_back_is_left_alone() -> None:
    reading, writing = os.pipe()
    assert not write_back(writing, 0, 1)
    os.close(reading)
    os.close(writing)
    assert not write_back(writing, 0, 1)

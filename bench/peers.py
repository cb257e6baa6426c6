"""What benchmarks of the node need beside the receivers: fresh UIDs in a file, memory of a family of processes."""

import shutil
from pathlib import Path

__all__ = ["family", "free_mb", "fresh_uid", "memory_mb", "remove", "restamp"]

HEAD = 1 << 16  # bytes in which a phantom's UIDs lie


def fresh_uid(number: int) -> str:
    """A UID of 40 characters, whatever the number: it can be written over another."""
    return f"2.25.1{number:034d}"


def restamp(file: Path, old: int, new: int) -> None:
    """Write one fresh UID over another, in meta information and data set. Raises ValueError where it is not there."""
    with file.open("r+b") as handle:
        head = handle.read(HEAD)
        if head.count(fresh_uid(old).encode()) != 2:
            raise ValueError(f"{file}: {fresh_uid(old)} is not in its header twice")
        handle.seek(0)
        handle.write(head.replace(fresh_uid(old).encode(), fresh_uid(new).encode()))


def family(process: int) -> list[int]:
    """The process and all below it."""
    found = [process]
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += family(int(child))
    return found


def memory_mb(process: int) -> dict[str, float]:
    """Resident MB (10^6 bytes) of each process of a family, by name and number; shared pages count in each."""
    found = {}
    for number in family(process):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines())
        found[f"{status['Name'].strip()} {number}"] = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    return found


def free_mb(folder: Path) -> float:
    """Room on the disk of a folder, in MB."""
    return shutil.disk_usage(folder).free / 1e6


def remove(folder: Path) -> None:
    """A folder and all in it."""
    shutil.rmtree(folder)

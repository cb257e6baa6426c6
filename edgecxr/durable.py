"""Files and names that survive a power cut."""

import errno
import os
import secrets
import stat
from functools import partial
from pathlib import Path

__all__ = ["sync_folder", "write_atomically"]


def write_atomically(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write the whole file or none of it; survives a power cut after the return.

    A link stays, and what it leads to is written. The file gets `mode`; None: that of the file before, and where there
    was none, what the umask leaves. Raises OSError, also where something is there that is no file, such as a device.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = _mode(path)
    mode = kept if mode is None else mode
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb", opener=partial(os.open, mode=0o666 if mode is None else mode)) as file:
            if mode is not None:
                os.chmod(temporary, mode)  # the umask has taken from it
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _mode(path: Path) -> int | None:
    """The permissions of the file, None where there is none. Raises OSError where it is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise FileExistsError(errno.EEXIST, "something is there that is no regular file", str(path))
    return stat.S_IMODE(status.st_mode)


def sync_folder(folder: Path) -> None:
    """Make names that were given or taken in the folder survive a power cut (on POSIX; elsewhere it does nothing)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

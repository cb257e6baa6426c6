"""Engines that were compiled for this machine, kept on disk: whole, of exactly what was asked for, or not at all.

An entry is a line that names the format, a line of JSON with its key, length and SHA-256, and the content. One whose
key, length or digest is not what it should be is as good as absent, and is written anew. A TensorRT engine is code: the
folder is the user's own (mode 0700), and one that others may write is not used.
"""

import contextlib
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from edgecxr.errors import EngineError

__all__ = ["EngineCache", "Entry", "Key", "default_folder"]

MAGIC = b"EDGECXR-ENGINE 1\n"
LIMIT_BYTES = 2 << 30
SUFFIX = ".engine"
LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class Key:
    """What an entry holds: any difference makes it another entry.

    `model` is the SHA-256 of the ONNX file, which the digest of a bundle and a precision determine; a bundle that was
    only signed or calibrated again keeps its engines.
    """

    model: str
    flavour: str  # tensorrt, tensorrt-rtx
    version: str  # of it, exact: engines do not load in another
    device: str  # name and compute capability, or the compute capabilities alone where that is all the builder needs
    kind: str = "engine"  # or timing, runtime: what a library wants to keep beside it

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Entry(NamedTuple):
    """One file of the cache, as a listing shows it; `key` is None for one that is damaged."""

    path: Path
    key: Key | None
    size: int  # bytes
    used: float  # seconds since the epoch


def default_folder(environment: Mapping[str, str] | None = None) -> Path:
    """EDGECXR_CACHE, else $XDG_CACHE_HOME/edgecxr, else ~/.cache/edgecxr."""
    environment = os.environ if environment is None else environment
    if named := environment.get("EDGECXR_CACHE"):
        return Path(named)
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgecxr"


class EngineCache:
    """A folder of entries, at most `limit_bytes` together: the least recently used go first."""

    def __init__(self, folder: Path | None = None, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """`folder` None is `default_folder()`. It is made when something is stored."""
        self.folder = default_folder() if folder is None else folder
        self.limit_bytes = limit_bytes

    def path(self, key: Key) -> Path:
        """Where the entry of a key is or would be."""
        return self.folder / f"{key.kind}-{key.digest[:32]}{SUFFIX}"

    def read(self, key: Key) -> bytes | None:
        """The content, or None: absent, damaged or of another key. Raises EngineError when others may write there."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        self._check_folder()
        content = _content(data, key)
        if content is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return content

    def write(self, key: Key, content: bytes) -> Path:
        """Store or replace, at once or not at all. Raises EngineError when the folder cannot be written."""
        header = json.dumps({"key": asdict(key), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        path = self.path(key)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_folder()
            _replace(path, MAGIC + header.encode() + b"\n" + content)
            self._make_room(path)
        except OSError as error:
            raise self._unwritable(error) from error
        return path

    def _unwritable(self, error: OSError) -> EngineError:
        return EngineError(
            f"cannot keep an engine in {self.folder}: {error.strerror or error}; name a place in EDGECXR_CACHE"
        )

    @contextlib.contextmanager
    def building(self) -> Iterator[bool]:
        """One process at a time builds for this folder: builders need gigabytes. Gives whether another was waited for.

        Raises EngineError when the folder cannot be made.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                waited = self._lock(stack) if sys.platform != "win32" else False
            except OSError as error:
                raise self._unwritable(error) from error
            yield waited

    if sys.platform != "win32":

        def _lock(self, stack: contextlib.ExitStack) -> bool:
            import fcntl

            folder = os.open(self.folder, os.O_RDONLY)
            stack.callback(os.close, folder)  # which gives the lock back, as the end of a process does
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(folder, fcntl.LOCK_EX)
                return True
            return False

    def list(self) -> list[Entry]:
        """Every entry, the one used last first."""
        entries = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            try:
                state = path.stat()
                with path.open("rb") as file:
                    key = _key(_header(file.read(LONGEST_HEADER)))
            except OSError:
                continue
            entries.append(Entry(path, key, state.st_size, state.st_mtime))
        return sorted(entries, key=lambda entry: -entry.used)

    def _check_folder(self) -> None:
        if os.name == "posix":
            state = self.folder.stat()
            if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or state.st_uid not in (os.geteuid(), 0):
                raise EngineError(
                    f"{self.folder} belongs to another user or may be written by others, and an engine is code: "
                    f"`chmod go-w {self.folder}`, or name another place in EDGECXR_CACHE"
                )

    def _make_room(self, kept: Path) -> None:
        total = 0
        for entry in sorted(self.list(), key=lambda entry: entry.path != kept):  # the new one is never removed
            total += entry.size
            if total > self.limit_bytes and entry.path != kept:
                entry.path.unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    """Write, sync, rename: a reader finds the old file or the new one, also after a power cut."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _header(data: bytes) -> dict[str, object] | None:
    if not data.startswith(MAGIC) or (end := data.find(b"\n", len(MAGIC), LONGEST_HEADER)) < 0:
        return None
    try:
        header = json.loads(data[len(MAGIC) : end])
    except ValueError:
        return None
    return {**header, "end": end + 1} if isinstance(header, dict) else None


def _key(header: dict[str, object] | None) -> Key | None:
    stored = (header or {}).get("key")
    if not isinstance(stored, dict) or not all(isinstance(value, str) for value in stored.values()):
        return None
    try:
        return Key(**stored)
    except TypeError:
        return None


def _content(data: bytes, key: Key) -> bytes | None:
    header = _header(data)
    if header is None or _key(header) != key or not isinstance(header["end"], int):
        return None
    content = data[header["end"] :]
    whole = len(content) == header.get("size") and hashlib.sha256(content).hexdigest() == header.get("sha256")
    return content if whole else None

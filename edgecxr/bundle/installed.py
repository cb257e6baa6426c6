"""The bundles installed for a node: one in use, the one before it to go back to, and a switch that is one rename.

``FOLDER/bundles/<digest12>-<name>.cxr`` are copies; ``FOLDER/bundles/installed.json`` names the current one and the
previous one, null for the package's own. Both names move in one atomic write, so there is no moment at which one is new
and the other is not.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from edgecxr.bundle import archive, default_bundle_path, signature
from edgecxr.bundle.manifest import describe
from edgecxr.bundle.reader import Bundle
from edgecxr.durable import sync_folder, write_atomically
from edgecxr.errors import BundleError
from edgecxr.spec import Strict

__all__ = ["Installation", "current", "install", "previous", "rollback"]

POINTER = "installed.json"
READABLE = 0o644  # whatever the umask: who installs need not be the user of the node, and nothing here is secret
NAME = r"[0-9a-f]{12}-[A-Za-z0-9_.-]{1,80}\.cxr"
OURS = re.compile(rf"{NAME}|\.({NAME}|installed\.json)\..+")  # with the temporary files of writes that were cut off

FileName = Annotated[str, Field(pattern=rf"^{NAME}$")]
Accept = Callable[[Bundle], object]


class _Pointer(Strict):
    current: FileName | None  # None: the package's own
    previous: FileName | None = None


@dataclass(frozen=True)
class Installation:
    """What `install` or `rollback` did: the bundle now in use, and the one that was."""

    path: Path
    digest: str
    signed_by: signature.SignedBy | None
    previous: Path  # where a rollback goes now
    changed: bool  # False where the same bundle was in use already


def current(folder: str | Path) -> Path | None:
    """The installed bundle in use, None where it is the package's own. Cheap: a node asks again and again.

    Raises BundleError where the record is damaged, or names a file that is gone: no other model steps in silently.
    """
    return _named(folder, lambda pointer: pointer.current)


def previous(folder: str | Path) -> Path | None:
    """The bundle that a rollback goes back to: the package's own after the first install, None before it.

    Raises BundleError as `current`.
    """
    found = _named(folder, lambda pointer: pointer.previous)
    return found or (None if current(folder) is None else default_bundle_path())


def install(
    folder: str | Path,
    bundle: str | Path,
    *,
    trusted: Sequence[str | Path] = (),
    allow_unsigned: bool = False,
    prove: Accept | None = None,
    keep: Collection[Path] = (),
) -> Installation:
    """Verify every digest, the signature and every member, prove the bundle, copy it, then switch to it.

    `prove` opens it on this machine's engines and raises where none reproduces the golden set. What is checked is what
    is written: the file is read once. Copies that are neither current, previous nor in `keep` are removed.
    A failure at any moment leaves in use what was in use.

    Raises BundleError, and whatever `prove` raises.
    """
    data = archive.read_bytes(Path(bundle))
    opened = Bundle(archive.unpack(data, str(bundle)), str(bundle))
    signed_by = signature.check(opened, trusted, allow_unsigned)
    opened.verify()  # reads more than digests: of what nobody signed only where that is allowed
    if prove is not None:
        prove(opened)
    place = _place(folder)
    with _locked(place):
        before = _read(place)
        name = _file_name(opened)
        _store(place / name, data)
        if before is None or before.current != name:
            after = _Pointer(current=name, previous=None if before is None else before.current)
            _write(place, after)
        else:
            after = before
        _tidy(place, after, keep)
    return _installation(place, after, opened.digest, signed_by, changed=after != before)


def rollback(
    folder: str | Path,
    *,
    trusted: Sequence[str | Path] = (),
    allow_unsigned: bool = False,
    prove: Accept | None = None,
    to: Path | None = None,
) -> Installation:
    """Go back to the bundle before, which must pass all that `install` asks; a second rollback goes forward again.

    Before the first that was installed there was the package's own. With `to`, only to that bundle: since the caller
    looked, another may have been installed, and then this is not the one before any more.

    Raises BundleError, also where there is nothing to go back to, and whatever `prove` raises. Then nothing changes.
    """
    place = _place(folder)
    with _locked(place):
        before = _read(place)
        if before is None or before == _Pointer(current=None):
            raise BundleError(
                f"{place}: no bundle was installed, so there is none to go back to; edgecxr install BUNDLE"
            )
        after = _Pointer(current=before.previous, previous=before.current)
        path = _path(place, after.current)
        if to is not None and path != to:
            raise BundleError(f"{place}: the bundle before is {path.name} by now, not {to.name}; nothing was put back")
        opened = Bundle.open(path)
        signed_by = signature.check(opened, trusted, allow_unsigned)
        opened.verify()
        if prove is not None:
            prove(opened)
        _write(place, after)
    return _installation(place, after, opened.digest, signed_by, changed=True)


def _installation(
    place: Path, pointer: _Pointer, digest: str, signed_by: signature.SignedBy | None, *, changed: bool
) -> Installation:
    back = default_bundle_path() if pointer.previous is None else place / pointer.previous
    used = default_bundle_path() if pointer.current is None else place / pointer.current
    return Installation(used, digest, signed_by, back, changed)


def _path(place: Path, name: str | None) -> Path:
    """The file of a record's name. Raises BundleError where it is gone."""
    return default_bundle_path() if name is None else _there(place / name)


def _named(folder: str | Path, choose: Callable[[_Pointer], str | None]) -> Path | None:
    """The file that the record names; read again where an install removed it between the two looks."""
    place, seen = _place(folder), None
    while (pointer := _read(place)) is not None and (name := choose(pointer)) is not None:
        if pointer == seen or (place / name).is_file():
            return _there(place / name)
        seen = pointer
    return None


def _place(folder: str | Path) -> Path:
    return Path(folder) / "bundles"


def _file_name(bundle: Bundle) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", bundle.spec.name)[:64] or "bundle"
    return f"{bundle.digest[:12]}-{name}.cxr"


def _there(path: Path) -> Path:
    if not path.is_file():
        raise BundleError(f"{path}: was installed and is gone; install it again: edgecxr install BUNDLE")
    return path


def _read(place: Path) -> _Pointer | None:
    path = place / POINTER
    try:
        return _Pointer.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}; let the node read it") from error
    except ValidationError as error:
        raise BundleError(f"{path}: {describe(error)}; remove it and install a bundle again") from error
    except ValueError as error:
        raise BundleError(f"{path}: is damaged ({error}); remove it and install a bundle again") from error


def _write(place: Path, pointer: _Pointer) -> None:
    with _writing(place / POINTER):
        write_atomically(place / POINTER, json.dumps(pointer.model_dump(), indent=1).encode(), mode=READABLE)


def _store(path: Path, data: bytes) -> None:
    """Put the bytes there, durably; nothing is written where they are there already."""
    with suppress(BundleError):
        if archive.read_bytes(path) == data:
            sync_folder(path.parent)
            return
    with _writing(path):
        write_atomically(path, data, mode=READABLE)


def _tidy(place: Path, pointer: _Pointer, keep: Collection[Path]) -> None:
    """Remove our files that nobody will ask for; what cannot be removed stays."""
    named = [place / name for name in (pointer.current, pointer.previous) if name is not None]
    kept = {path.resolve() for path in (*named, *keep)}
    for path in place.iterdir():
        if OURS.fullmatch(path.name) and path.resolve() not in kept:
            with suppress(OSError):
                path.unlink()


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One install at a time, in this process and any other; the lock ends with the process that holds it."""
    with _writing(place):
        place.mkdir(parents=True, exist_ok=True)
        sync_folder(place.parent)
        descriptor = os.open(place / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(f"{path}: cannot be written: {reason}; what was in use is in use still") from error

"""Build stages, each cached by the digest of everything that its result depends on.

A stage works in ``WORK/<name>-<digest12>.partial``, renamed to ``WORK/<name>-<digest12>`` when it is complete, so that
a folder without `.partial` is always whole. An interrupted build loses one stage at most; a stage that is `resumable`
finds what it had written (training checkpoints) when it is run again with the same inputs. A result that was made anew
(its folder was deleted or damaged) and is not the very same makes what was made from the old one be made anew, too.

Versions of libraries are an input where numbers are measured with them: scores, calibration, the choice of a student.
A training is not run again for a new version; ``done.json`` has those that it was finished with, for the provenance.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from edgecxr.errors import StageError
from edgecxr.export.libraries import versions
from edgecxr.spec import CHAIN_VERSION

__all__ = ["DONE", "Outcome", "Stage", "Workshop", "code_of", "digest_of", "sha256", "sole_user"]

DONE = "done.json"
BEGUN = "sources.json"  # of a stage that is not finished
BUILD_VERSION = 2  # raised whenever the code of a stage changes what it writes: every cached stage is then made anew


@dataclass(frozen=True)
class Stage:
    """One step of a build. `inputs` is JSON; together with the digests of `upstream` it decides what is cached."""

    name: str
    run: Callable[[Path], None]  # writes the result into the folder that it is given
    inputs: Mapping[str, Any] = field(default_factory=dict)
    upstream: tuple[str, ...] = ()
    resumable: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: run in `seconds`, or found done."""

    name: str
    digest: str
    folder: Path
    seconds: float
    how: Literal["ran", "resumed", "cached"]
    libraries: Mapping[str, str]  # versions with which the result was finished; empty where it was not written down
    content: str  # SHA-256 (hex) over its files; "" of a result that was finished before that was written down

    def __str__(self) -> str:
        return f"{self.name}: {'cached' if self.how == 'cached' else f'{self.how} in {self.seconds:.1f} s'}"


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold the folder against a second build. Raises StageError when one is at work there, or it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise StageError(f"cannot work in {folder}: {error.strerror}; name another folder with --work") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back when the process ends, however it ends
        except BlockingIOError:
            raise StageError(f"another build is at work in {folder}; wait for it, or use another --work") from None
        yield


def code_of(*modules: ModuleType) -> str:
    """SHA-256 (hex) of the source of modules: an input of stages that are cheap to run again when their code changes.

    Trainings do not take it, because hours must not be lost to a comment; `BUILD_VERSION` is for them.
    """
    return hashlib.sha256(b"\0".join(Path(str(module.__file__)).read_bytes() for module in modules)).hexdigest()


class Workshop:
    """Runs stages in one folder, in the order in which they are given, and remembers their digests."""

    def __init__(self, folder: Path, tell: Callable[[Outcome], None] | None = None) -> None:
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}
        self._tell = tell

    def run(self, stage: Stage) -> Path:
        """The folder with the finished stage's result; a stage that was run before is not told of again.

        Raises:
            StageError: an upstream stage was not run, the name was used before, or the disk refused.
        """
        inputs = self._inputs(stage)
        digest = digest_of(inputs)
        before = self.outcomes.get(stage.name)
        if before is not None:
            if before.digest != digest:
                raise StageError(
                    f"two stages are called {stage.name!r}; give the parts of the recipe names of their own"
                )
            return before.folder
        folder = self.folder / f"{stage.name}-{digest[:12]}"
        sources = {name: self.outcomes[name].content for name in stage.upstream}
        if _is_done(folder, digest, sources):
            done = _told(folder)
            libraries, content = done.get("libraries", {}), done.get("content", "")
            return self._note(Outcome(stage.name, digest, folder, 0.0, "cached", libraries, content))
        libraries, start = versions(), time.perf_counter()
        try:
            partial, resumed = _open_partial(folder, stage.resumable, sources)
            stage.run(partial)
            seconds = time.perf_counter() - start
            told = {"stage": stage.name, "digest": digest, "inputs": inputs, "sources": sources}
            content = _finish(partial, folder, {**told, "seconds": round(seconds, 3), "libraries": libraries})
        except OSError as error:
            raise StageError(_refused(stage.name, folder, error)) from error
        how: Literal["ran", "resumed"] = "resumed" if resumed else "ran"
        return self._note(Outcome(stage.name, digest, folder, seconds, how, libraries, content))

    def _inputs(self, stage: Stage) -> dict[str, Any]:
        missing = [name for name in stage.upstream if name not in self.outcomes]
        if missing:
            raise StageError(f"stage {stage.name!r} needs {', '.join(missing)}, which did not run before it")
        return {
            "build": BUILD_VERSION,
            "chain": CHAIN_VERSION,
            "stage": stage.name,
            "inputs": dict(stage.inputs),
            "upstream": {name: self.outcomes[name].digest for name in stage.upstream},
        }

    def _note(self, outcome: Outcome) -> Path:
        self.outcomes[outcome.name] = outcome
        if self._tell is not None:
            self._tell(outcome)
        return outcome.folder


def _refused(name: str, folder: Path, error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"stage {name!r} could not go on in {folder.parent}: {where}{error.strerror or error}; "
        "see to that, and build again: finished stages are kept"
    )


def _is_done(folder: Path, digest: str, sources: Mapping[str, str]) -> bool:
    """Whether the folder holds a whole result of these inputs and sources, each file of the size it had."""
    try:
        done = _told(folder)
        sizes = {name: (folder / name).stat().st_size for name in done["files"]}
        same = _same(done.get("sources", {}), sources)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(done.get("digest") == digest and sizes == done["files"] and same)


def _told(folder: Path) -> dict[str, Any]:
    """What was written down when the result was finished; older ones lack some of it."""
    done: dict[str, Any] = json.loads((folder / DONE).read_text())
    return done


def _open_partial(folder: Path, resumable: bool, sources: Mapping[str, str]) -> tuple[Path, bool]:
    """The folder to work in, and whether it holds the beginnings of an earlier run with the same sources."""
    partial = folder.with_name(folder.name + ".partial")
    begun = any(path.name != BEGUN for path in partial.iterdir()) if partial.is_dir() else False
    resumed = resumable and begun and _same(_begun(partial), sources)
    if not resumed:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / BEGUN).write_text(json.dumps(dict(sources)))
    return partial, resumed


def _begun(partial: Path) -> dict[str, str]:
    """The sources that a stage was begun with; none where that was not written down."""
    try:
        begun: dict[str, str] = json.loads((partial / BEGUN).read_text())
    except (FileNotFoundError, ValueError):  # ValueError: cut off while it was written
        return {}
    return begun


def _same(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether no source is known to have been another."""
    return all(before.get(name) in (content, None, "") for name, content in now.items() if content)


def _finish(partial: Path, folder: Path, done: dict[str, Any]) -> str:
    """Record files and content in done.json, put the folder in its place in one rename, and return the content."""
    (partial / BEGUN).unlink(missing_ok=True)
    files = {path.relative_to(partial).as_posix(): path for path in sorted(partial.rglob("*")) if path.is_file()}
    done["files"] = {name: path.stat().st_size for name, path in files.items()}
    done["content"] = content = digest_of({name: sha256(path) for name, path in files.items()})
    with (partial / DONE).open("w") as stream:
        json.dump(done, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    if folder.exists():  # damaged: it was not recognised as done
        shutil.rmtree(folder)
    partial.rename(folder)
    return content


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, read piece by piece."""
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            whole.update(part)
    return whole.hexdigest()

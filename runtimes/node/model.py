"""Which bundle a node screens with: the one the configuration names, else the installed one, else the package's own."""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from edgecxr.bundle import Bundle, default_bundle_path, installed, signature
from edgecxr.errors import BundleError, EdgeCxrError
from edgecxr.runtimes.node.config import NodeConfig
from edgecxr.runtimes.node.workers import Workers
from edgecxr.spec import ModelSpec

__all__ = ["Chosen", "Models", "choose"]

logger = logging.getLogger(__name__)
Look = tuple[int, ...]  # device, inode, size, times of change of a file; empty where it is not there


@dataclass(frozen=True)
class Chosen:
    """A bundle that was checked: where it lies, what is in it, and how its file looked before it was read."""

    path: Path
    digest: str
    look: Look


def choose(config: NodeConfig) -> Chosen:
    """The bundle to use, signed by who is trusted. Raises BundleError with what to do."""
    return _checked(config, _wanted(config))


def _wanted(config: NodeConfig) -> Path:
    return config.bundle.path or installed.current(config.folder) or default_bundle_path()


def _checked(config: NodeConfig, path: Path) -> Chosen:
    """The file is read once: what is signed is what the digest names. Raises BundleError."""
    look = _look(path)
    bundle = Bundle.open(path)
    signature.check(bundle, config.bundle.trusted_keys, config.bundle.allow_unsigned)
    return Chosen(path, bundle.digest, look)


def _look(path: Path) -> Look:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Models:
    """Follows the bundle while the node runs, installed or overwritten, and knows the specs of those that are here."""

    def __init__(self, config: NodeConfig, workers: Workers, chosen: Chosen) -> None:
        self.problem = ""  # why the bundle that was installed last, or that lies there now, is not used
        self._config = config
        self._workers = workers
        self._used = chosen
        self._seen = chosen.path, chosen.look
        self._specs: dict[str, ModelSpec] = {}
        self._looked: set[tuple[str, int]] = set()  # files whose spec is known: path and time of change
        self._lock = threading.Lock()

    def follow(self) -> None:
        """Go over to a bundle that was installed since, or put in the place of the one in use.

        When that fails: stay with the old one, and put it back as the installed one.
        """
        try:
            path = _wanted(self._config)
            seen = path, _look(path)
            if seen == self._seen:
                return
            self._seen = seen
            chosen = _checked(self._config, path)
            if (chosen.path, chosen.digest) == (self._used.path, self._used.digest):
                self._used, self.problem = chosen, ""
                return
            origin = self._workers.swap(chosen.path, chosen.digest)
        except EdgeCxrError as error:
            self._stay(error)
            return
        self._used, self.problem = chosen, ""
        logger.info("another bundle is in use", extra={"bundle": origin.bundle[:12], "model": origin.spec.name})

    def _stay(self, error: EdgeCxrError) -> None:
        told = f"the bundle {self._seen[0].name} is not used: {error}"
        if told != self.problem:
            logger.error("a bundle is not used", extra={"error": str(error)})
        self.problem = told
        try:
            used = self._workers.bundle
            if installed.previous(self._config.folder) == used:
                installed.rollback(
                    self._config.folder,
                    trusted=self._config.bundle.trusted_keys,
                    allow_unsigned=self._config.bundle.allow_unsigned,
                    to=used,
                )
                self._seen = self._used.path, self._used.look
        except BundleError as back:
            logger.error("the bundle before it could not be put back", extra={"error": str(back)})

    def spec(self, digest: str) -> ModelSpec | None:
        """The model in the bundle with this digest; None when it is not here any more."""
        with self._lock:
            for state in self._workers.states():
                if state.origin is not None:
                    self._specs[state.origin.bundle] = state.origin.spec
            if digest not in self._specs:
                self._look_around()
            return self._specs.get(digest)

    def _look_around(self) -> None:
        """Read the bundles that are here and were not read before."""
        paths = [default_bundle_path(), self._workers.bundle, *(self._config.folder / "bundles").glob("*.cxr")]
        for path in paths:
            try:
                key = (str(path), path.stat().st_mtime_ns)
                if key not in self._looked:
                    self._looked.add(key)
                    bundle = Bundle.open(path)
                    self._specs[bundle.digest] = bundle.spec
            except (OSError, BundleError):
                continue  # gone or damaged: its films are shown without what only it knows

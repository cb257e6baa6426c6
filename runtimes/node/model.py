"""Which bundle a node screens with: the one the configuration names, else the installed one, else the package's own."""

import logging
import threading
from pathlib import Path

from edgecxr.bundle import Bundle, default_bundle_path, installed, signature
from edgecxr.errors import BundleError, EdgeCxrError
from edgecxr.runtimes.node.config import NodeConfig
from edgecxr.runtimes.node.workers import Workers
from edgecxr.spec import ModelSpec

__all__ = ["Models", "choose"]

logger = logging.getLogger(__name__)


def choose(config: NodeConfig) -> Path:
    """The bundle to use, signed by who is trusted. Raises BundleError with what to do."""
    path = _wanted(config)
    _check(config, path)
    return path


def _wanted(config: NodeConfig) -> Path:
    return config.bundle.path or installed.current(config.folder) or default_bundle_path()


def _check(config: NodeConfig, path: Path) -> None:
    signature.check(path, config.bundle.trusted_keys, config.bundle.allow_unsigned)


class Models:
    """Follows the installed bundle while the node runs, and knows the specs of the bundles that are here."""

    def __init__(self, config: NodeConfig, workers: Workers, path: Path) -> None:
        self.problem = ""  # why the bundle that was installed last is not used
        self._config = config
        self._workers = workers
        self._seen = path
        self._specs: dict[str, ModelSpec] = {}
        self._looked: set[tuple[str, int]] = set()  # files whose spec is known: path and time of change
        self._lock = threading.Lock()

    def follow(self) -> None:
        """Go over to a bundle that was installed since; stay with the old one, and put it back, when that fails."""
        try:
            path = _wanted(self._config)
            if path == self._seen:
                return
            self._seen = path
            _check(self._config, path)
            origin = self._workers.swap(path)
        except EdgeCxrError as error:
            self._stay(error)
            return
        self.problem = ""
        logger.info("another bundle is in use", extra={"bundle": origin.bundle[:12], "model": origin.spec.name})

    def _stay(self, error: EdgeCxrError) -> None:
        told = f"the bundle {self._seen.name} is not used: {error}"
        if told != self.problem:
            logger.error("a bundle that was installed is not used", extra={"error": str(error)})
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
                self._seen = used
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

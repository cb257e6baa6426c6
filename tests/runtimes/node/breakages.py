"""Spools that keep less than they promise, to see that the experiments of crash.py notice."""

import threading
from pathlib import Path

from edgecxr.runtimes.node import films, spool
from edgecxr.runtimes.node.database import Database
from edgecxr.runtimes.node.films import Films
from edgecxr.runtimes.node.parts import Part


def take_out(breakage: str) -> None:
    """Break one link of the chain, in this process."""
    if breakage == "no-folder-sync":
        films.sync_folder = spool.sync_folder = lambda folder: None
    elif breakage == "no-file-sync":
        Part.seal = lambda self: self._close()  # type: ignore[method-assign]
    elif breakage == "no-index-sync":
        write = Database.write
        Database.write = lambda self, *, durable=True: write(self, durable=False)  # type: ignore[method-assign]
    elif breakage == "row-before-file":
        keep = Films.keep

        def late(self: Films, path: Path, place: Path) -> None:
            threading.Timer(0.01, keep, (self, path, place)).start()

        Films.keep = late  # type: ignore[method-assign]
    elif breakage:
        raise SystemExit(f"no breakage {breakage!r}")

"""Spools that keep less than they promise, to see that the experiments of crash.py notice."""

import threading
from pathlib import Path

from edgecxr.runtimes.node import spool as spool_module
from edgecxr.runtimes.node.database import Database
from edgecxr.runtimes.node.parts import Part
from edgecxr.runtimes.node.spool import Spool


def take_out(breakage: str) -> None:
    """Break one link of the chain, in this process."""
    if breakage == "no-folder-sync":
        spool_module.sync_folder = lambda folder: None
    elif breakage == "no-file-sync":
        Part.seal = lambda self: self._close()  # type: ignore[method-assign]
    elif breakage == "no-index-sync":
        write = Database.write
        Database.write = lambda self, *, durable=True: write(self, durable=False)  # type: ignore[method-assign]
    elif breakage == "row-before-file":
        rename = Spool._rename

        def late(self: Spool, path: Path, place: Path) -> None:
            threading.Timer(0.01, rename, (self, path, place)).start()

        Spool._rename = late  # type: ignore[method-assign]
    elif breakage:
        raise SystemExit(f"no breakage {breakage!r}")

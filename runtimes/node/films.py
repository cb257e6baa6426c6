"""Where the files of the images lie (see `spool`), and how one gets there durably."""

import contextlib
import threading
from pathlib import Path

from edgecxr.durable import sync_folder
from edgecxr.runtimes.node.images import Image, State
from edgecxr.runtimes.node.parts import disk_error

__all__ = ["Films"]

FOLDERS = [f"{number:02x}" for number in range(256)]


class Films:
    """The files of one spool."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of the spool."""
        self.folder, self.quarantine = folder / "films", folder / "quarantine"
        self._durable: set[Path] = set()  # folders whose own name is known to be on the disk
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make every folder at once, so that no film has to wait for its own; on a full disk a film makes its own."""
        folders = [self.folder / name for name in FOLDERS]
        with contextlib.suppress(OSError):
            for folder in folders:
                folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder)
            with self._lock:
                self._durable.update(folders)

    def place(self, name: str) -> Path:
        """Where a film of this name belongs."""
        return self.folder / name[:2] / name

    def keep(self, path: Path, place: Path) -> None:
        """Move a file, whose bytes are durable, durably to its place. Raises SpoolFull, SpoolError; it is gone then."""
        try:
            self._make_durable(place.parent)
            path.rename(place)
            sync_folder(place.parent)
        except OSError as error:
            for left in (path, place):
                with contextlib.suppress(OSError):  # what a failing disk keeps is removed at the next start
                    left.unlink(missing_ok=True)
            raise disk_error(error, "an object could not be filed in the spool") from error

    def path(self, image: Image) -> Path:
        """The file of an image, wherever it is."""
        here, there = self._places(image)
        return there if not here.exists() and there.exists() else here

    def move(self, image: Image) -> None:
        """Bring the file to where the state of its image wants it."""
        here, there = self._places(image)
        with contextlib.suppress(OSError):  # found where it is; moved at the next start
            here.parent.mkdir(mode=0o700, exist_ok=True)
            there.rename(here)

    def _make_durable(self, folder: Path) -> None:
        with self._lock:
            if folder not in self._durable:
                folder.mkdir(mode=0o700, exist_ok=True)
                sync_folder(folder.parent)
                self._durable.add(folder)

    def _places(self, image: Image) -> tuple[Path, Path]:
        """Where the file belongs, and where it is if a crash came before it was moved."""
        film, aside = self.place(image.file), self.quarantine / image.file
        return (aside, film) if image.state is State.QUARANTINED else (film, aside)

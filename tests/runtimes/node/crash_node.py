"""What a crash leaves of a whole node: `edgecxr serve` is killed (SIGKILL) at random moments while films come in.

    python crash_node.py FOLDER KILLS SEED [BUNDLE]

Receiver, workers and outbox run as they do in a clinic (the archive does not answer); small phantoms are sent to its
socket, and "acknowledged" is the answer to a C-STORE. What was acknowledged before a kill must be so after it:

    acknowledged == in the index, once == on the disk bit for bit == decided exactly once, when all is screened

crash.py asks the same of the spool alone, at many more moments. Prints one JSON object: kills, how many of them cut an
association with films left to send, acknowledged, decided before a kill, and what is wrong. BUNDLE: the shipped one
where not given.
"""

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash import CRASHED
from pydicom import dcmread
from pydicom.uid import generate_uid
from waiting import until

from edgecxr.errors import SendError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.caller import Peer
from edgecxr.runtimes.node.copies import same_image
from edgecxr.runtimes.node.sender import SendResult, send
from edgecxr.runtimes.node.spool import Spool, SpoolLimits, State

LIMITS = SpoolLimits(refuse_below_mb=0, tidy_below_mb=0)
FILMS_A_LIFE, SIDE = 120, 96
PAUSE_S = 0.03  # at most, after each answer
WAITING = "images WHERE state IN ('received', 'screening')"
ENDED = (State.DECIDED, State.REFUSED)


@dataclass
class Said:
    """What the node has said before it was killed."""

    acknowledged: dict[str, Path] = field(default_factory=dict)  # UID → the film as it was sent
    decided: dict[int, tuple[float, str]] = field(default_factory=dict)  # image → when, and the record
    cut: int = 0  # associations with films left to send


class Clinic:
    """A node's folder, configuration and port; films to send, and what was said of them."""

    def __init__(self, folder: Path, bundle: str) -> None:
        self.folder = folder = folder.resolve()
        self.said = Said()
        self._films = folder / "films"
        self._films.mkdir(parents=True)
        self._drawn = [dcmread(write_dicom(chest(seed, size=SIDE), self._films / "drawn.dcm")) for seed in range(4)]
        self._waiting: list[Path] = []  # sent and not acknowledged
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            self.port, nobody = one.getsockname()[1], other.getsockname()[1]
        settings = {
            "folder": str(folder / "node"),
            "bundle": {"path": str(Path(bundle).resolve()) if bundle else None, "allow_unsigned": True},
            "screening": {"threads": 1},
            "spool": {"refuse_below_mb": 0, "tidy_below_mb": 1, "max_waiting": 100_000},
            "dicom": {"host": "127.0.0.1", "port": self.port},
            "http": None,
            "destinations": [{"name": "pacs", "ae": "PACS", "host": "127.0.0.1", "port": nobody}],
        }
        (folder / "node.yaml").write_text(json.dumps(settings))  # JSON is YAML

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The node as a process, once it listens. Whatever is left of it is killed at the end."""
        command = [sys.executable, "-m", "edgecxr", "serve", "--config", str(self.folder / "node.yaml")]
        with (self.folder / "log").open("ab") as log:
            node = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        try:
            until(lambda: self._listens(node), "the node never listened")
            yield node
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()

    def _listens(self, node: subprocess.Popen[bytes]) -> bool:
        if node.poll() is not None:
            raise SystemExit((self.folder / "log").read_text()[-3000:])
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def keep_sending(self) -> threading.Thread:
        """Films over one association, until there are no more or the node is gone: first those without an answer."""
        new = [self._film() for _ in range(FILMS_A_LIFE)]
        films, self._waiting = [*self._waiting[:20], *new], []
        thread = threading.Thread(target=self._send, args=(films,), daemon=True)
        thread.start()
        return thread

    def _film(self) -> Path:
        film = random.choice(self._drawn)
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        path = self._films / f"{film.SOPInstanceUID}.dcm"
        film.save_as(path, enforce_file_format=True)
        return path

    def _send(self, films: list[Path]) -> None:
        def answered(result: SendResult) -> None:
            if result.sent:
                self.said.acknowledged[result.file.stem] = result.file
                time.sleep(random.uniform(0, PAUSE_S))
            else:
                self._waiting.append(result.file)

        with contextlib.suppress(SendError):
            send(films, Peer("EDGECXR", "127.0.0.1", self.port), "UNIT", progress=answered)
        self.said.cut += bool(self._waiting)

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """The spool as it stands, beside a node or without one."""
        opened = Spool(self.folder / "node" / "spool", LIMITS)
        try:
            yield opened
        finally:
            opened.close()

    def results(self) -> dict[int, tuple[float, str]]:
        """What is decided: when, and the record."""
        with self.spool() as spool:
            rows = spool.listing(limit=100_000)
        return {image.id: (found.decided, json.dumps(found.record)) for image, found in rows if found is not None}

    def count(self, what: str) -> int:
        """Rows of the index, read beside the node, which knows nothing of it."""
        place = self.folder / "node" / "spool" / "node.db"
        with contextlib.closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as index:
            return int(index.execute(f"SELECT COUNT(*) FROM {what}").fetchone()[0])

    def wrong(self) -> list[str]:
        """What was said and is not so."""
        found, results = [], self.results()
        with self.spool() as spool:
            for uid, film in self.said.acknowledged.items():
                images = spool.find(uid)
                if len(images) != 1:
                    found.append(f"{uid} was acknowledged and is in the index {len(images)} times")
                elif not same_image(film, spool.path(images[0]), from_data_set=True):
                    found.append(f"{uid} was acknowledged and is not on the disk bit for bit")
        for image, decision in self.said.decided.items():
            if results.get(image) != decision:
                found.append(f"image {image} was decided, and the decision is gone or another")
        return found

    def wrong_at_the_end(self) -> list[str]:
        """When all is screened, every image has one decision, and no file is there without a row."""
        found = self.wrong()
        with self.spool() as spool:
            rows = spool.listing(limit=100_000)
            found += [f"image {image.id} is {image.state.value}" for image, _ in rows if image.state not in ENDED]
            found += [f"image {image.id} has no result" for image, result in rows if result is None]
            files = {path.name for path in spool.folder.glob("films/*/*")}
            if files != {image.file for image, _ in rows}:
                found.append("files and rows are not the same")
        return found

    def retry(self) -> int:
        """Give those another chance that were in hand at two kills; how many."""
        with self.spool() as spool:
            rows = spool.listing(states=[State.QUARANTINED], limit=100_000)
            crashed = [image.id for image, _ in rows if image.error == CRASHED]
            for image in crashed:
                spool.retry(image)
        return len(crashed)


def one_life(clinic: Clinic, wait_s: float, *, screening: bool) -> None:
    """Start the node, send to it, and kill it some time after its first answer, or `screening`: its first decision."""
    acknowledged, decided = len(clinic.said.acknowledged), len(clinic.said.decided)
    with clinic.running() as node:
        sender = clinic.keep_sending()
        until(lambda: len(clinic.said.acknowledged) > acknowledged, "nothing was acknowledged")
        if screening:
            until(lambda: clinic.count("results") > decided, "nothing was decided")
        time.sleep(wait_s)
        node.kill()
        node.wait()
        sender.join()


def kill(folder: Path, kills: int, chance: random.Random, bundle: str) -> dict[str, Any]:
    """Kill the node again and again, on one folder, and let the last one finish."""
    clinic, found = Clinic(folder, bundle), []
    for life in range(kills):
        one_life(clinic, chance.uniform(0, 0.3), screening=bool(life % 2))
        found += [f"kill {life}: {one}" for one in clinic.wrong()]
        clinic.said.decided.update(clinic.results())
    decided = len(clinic.said.decided)
    for _ in range(3):
        with clinic.running() as node:
            until(lambda: not clinic.count(WAITING), "the last node did not screen what waits")
            node.terminate()
            node.wait()
        if not clinic.retry():
            break
    found += clinic.wrong_at_the_end()
    acknowledged = len(clinic.said.acknowledged)
    told = {"kills": kills, "cut": clinic.said.cut, "acknowledged": acknowledged, "decided": decided}
    return {**told, "wrong": found}


def main(folder: str, kills: str, seed: str, bundle: str = "") -> None:
    print(json.dumps(kill(Path(folder), int(kills), random.Random(int(seed)), bundle)))


if __name__ == "__main__":
    main(*sys.argv[1:])

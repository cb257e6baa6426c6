"""What is left of acknowledged images when the power fails: the node's receiver beside dcmtk storescp and Orthanc.

Scenario: a fresh ext4 file system in a file; a server that stores on it; dcmsend sends images over one association; the
moment it has the last success the file system is copied as it is at that instant, and the copy is mounted and looked
at. Each server in turn, round after round. The number: acknowledged images that are on the disk bit for bit *and* known
to the server when it is started on the copy. Needs root, loop devices, dcmtk and Orthanc; TCP_NODELAY=1 on both ends.

    python bench/power_cut.py [--images 8] [--side 1000] [--rounds 3] [--json]
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import harness
import pydicom
from rich.console import Console
from rich.table import Table

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import SpoolLimits
from edgecxr.runtimes.node.spool import Spool

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtimes" / "node"))
from disks import disks, mounted, snapshot

SERVE = """
import sys, threading
from pathlib import Path
from edgecxr.runtimes.node.config import DicomSection, SpoolLimits
from edgecxr.runtimes.node.receiver import Receiver
from edgecxr.runtimes.node.spool import Spool
spool = Spool(Path(sys.argv[1]), SpoolLimits(max_object_mb=20, refuse_below_mb=0))
spool.recover()
Receiver(spool, DicomSection(host="127.0.0.1", port=int(sys.argv[2]))).start()
threading.Event().wait()
"""
START_S = 60.0


class Film(NamedTuple):
    """One image that is sent."""

    uid: str
    pixels: bytes


class Server(NamedTuple):
    """One contestant: its command (store, DICOM port, HTTP port), and the UIDs it knows when started on a store."""

    command: Callable[[Path, int, int], list[str]]
    known: Callable[[Path, "Server"], set[str]]


def orthanc_command(store: Path, dicom: int, http: int, **settings: bool) -> list[str]:
    configuration = {
        "Name": "bench",
        "StorageDirectory": str(store),
        "IndexDirectory": str(store),
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        **settings,
    }
    path = store.parent.parent / f"orthanc-{dicom}.json"
    path.write_text(json.dumps(configuration))
    return [shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin") or "Orthanc", str(path)]


def orthanc_known(store: Path, server: Server) -> set[str]:
    """SOP Instance UIDs that Orthanc lists after a restart."""
    dicom, http = free_port(), free_port()
    with running(server.command(store, dicom, http), dicom):
        url = f"http://127.0.0.1:{http}/instances?expand"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return {one["MainDicomTags"]["SOPInstanceUID"] for one in json.load(answer)}


def edgecxr_known(store: Path, server: Server) -> set[str]:
    """SOP Instance UIDs that the node lists after its recovery."""
    spool = Spool(store / "spool", SpoolLimits())
    spool.recover()
    known = {image.sop_instance for image, _ in spool.listing(limit=10_000) if spool.path(image).exists()}
    spool.close()
    return known


def files_known(store: Path, server: Server) -> set[str]:
    """storescp has no index: what can be parsed under its name is what it knows."""
    return {name for path in files(store) if (name := uid_of(path)) is not None}


SERVERS = {
    "edgecxr": Server(
        lambda store, dicom, _: [sys.executable, "-c", SERVE, str(store / "spool"), str(dicom)], edgecxr_known
    ),
    "storescp": Server(lambda store, dicom, _: ["storescp", "-od", str(store), str(dicom)], files_known),
    "storescp +B": Server(lambda store, dicom, _: ["storescp", "+B", "-od", str(store), str(dicom)], files_known),
    "orthanc": Server(orthanc_command, orthanc_known),
    "orthanc, SyncStorageArea=false": Server(
        lambda store, dicom, http: orthanc_command(store, dicom, http, SyncStorageArea=False), orthanc_known
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="images of a round")
    parser.add_argument("--side", type=int, default=1000, help="height and width in pixels; 16 bits each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    arguments = parser.parse_args()
    os.environ["TCP_NODELAY"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        films = write_films(Path(folder) / "films", arguments)
        measured: dict[str, list[dict[str, int]]] = {name: [] for name in SERVERS}
        for _ in range(arguments.rounds):
            for name, server in SERVERS.items():
                measured[name].append(one_cut(server, films, Path(folder)))
    path = harness.write_result("power_cut", {**vars(arguments), "versions": versions()}, measured)
    if arguments.json:
        print(path.read_text())
    else:
        show(measured)
        Console().print(f"stored in {path}", style="dim")


def write_films(folder: Path, arguments: argparse.Namespace) -> list[Film]:
    folder.mkdir()
    films = []
    for index in range(arguments.images):
        path = write_dicom(chest(index, size=arguments.side), folder / f"{index}.dcm")
        dataset = pydicom.dcmread(path)
        films.append(Film(str(dataset.SOPInstanceUID), bytes(dataset.PixelData)))
    return films


def one_cut(server: Server, films: list[Film], folder: Path) -> dict[str, int]:
    """Send, cut, and count what the copy has."""
    with disks(folder) as (outer, inner):
        store, port = inner / "store", free_port()
        store.mkdir()
        subprocess.run(["sync", "-f", inner], check=True)
        with running(server.command(store, port, free_port()), port):
            acknowledged = send(folder / "films", port)
            snapshot(outer, folder / "cut.img")
        with mounted(folder / "cut.img", folder / "after") as after:
            exact = set()
            for path in files(after / "store"):
                content = path.read_bytes()
                exact |= {film.uid for film in films if film.uid.encode() in content and film.pixels in content}
            known = server.known(after / "store", server)
            kept = {film.uid for film in films} & exact & known
    return {"acknowledged": acknowledged, "bit-exact": len(exact), "known": len(known), "kept": len(kept)}


def send(films: Path, port: int) -> int:
    """How many were acknowledged with success."""
    command = ["dcmsend", "-v", "-nuc", "+sd", "127.0.0.1", str(port), str(films)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return (told.stdout + told.stderr).count("Response (Success)")


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server, from the moment it answers C-ECHO; killed at the end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_echo(port)
            yield
        finally:
            process.kill()


def wait_for_echo(port: int) -> None:
    deadline = time.monotonic() + START_S
    while subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server on port {port} did not answer C-ECHO within {START_S:.0f} s")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def files(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file() and path.suffix != ".part"]


def uid_of(path: Path) -> str | None:
    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    except (pydicom.errors.InvalidDicomError, AttributeError, EOFError):
        return None


def versions() -> dict[str, str]:
    """First line of what each says of itself."""
    commands = {"dcmtk": ["storescp", "--version"], "orthanc": ["Orthanc", "--version"]}
    path = f"{os.environ['PATH']}:/usr/sbin"
    found = {}
    for name, (program, option) in commands.items():
        told = subprocess.run([shutil.which(program, path=path) or program, option], capture_output=True, text=True)
        found[name] = told.stdout.splitlines()[0].strip()
    return found


def show(measured: dict[str, list[dict[str, int]]]) -> None:
    columns = ("acknowledged", "bit-exact", "known", "kept")
    table = Table("server", *columns, title="After a power cut, images by round")
    for name, rounds in measured.items():
        cells = [" ".join(str(one[column]) for one in rounds) for column in columns]
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()

"""How many images a second the node's receiver and spool take, beside dcmtk storescp, Orthanc and bare pynetdicom.

Scenario: dcmtk's dcmsend sends N uncompressed 3000 x 3000 12-bit DX films of 18 MB over one association on loopback,
TCP_NODELAY=1 on both ends. In each round every receiver is started on an empty folder and sent the same films once, in
a rotating order. The numbers: images a second (median over rounds), the ratio to Orthanc with its own defaults
(SyncStorageArea on) and to storescp; CPU milliseconds an image and peak memory of the receiver.

The receivers do not promise the same: only the node answers when an image survives a power cut, file and index.
storescp and bare pynetdicom sync nothing; Orthanc syncs the file and not its index.

    python bench/receivers.py [--films 20] [--rounds 5] [--side 3000] [--receiver node …] [--json]

Needs Debian's dcmtk and orthanc.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import harness
from pydicom import dcmread
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from edgecxr.phantom import chest, write_dicom

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
CHUNK_S = 0.05
READY_S = 30.0
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
Command = Callable[[Path, int], list[str]]


class Round(NamedTuple):
    """One receiver in one round."""

    seconds: float
    cpu_ms: float  # of the receiver, for all images
    peak_mb: float  # resident, 10^6 bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=20, help="images an association")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=3000, help="height and width of the films in pixels")
    parser.add_argument(
        "--receiver", action="append", default=[], help=f"repeatable; {', '.join(RECEIVERS)} if not given"
    )
    parser.add_argument("--folder", help="where receivers store (a disk, not a memory file system); a temporary folder")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    parser.add_argument("--serve", nargs=3, metavar=("RECEIVER", "PORT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        SERVERS[arguments.serve[0]](int(arguments.serve[1]), Path(arguments.serve[2]))
        return
    names = arguments.receiver or list(RECEIVERS)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        films = some_films(Path(name) / "films", arguments.films, arguments.side)
        rounds = interleaved(names, films, Path(name), arguments.rounds)
    measured = summaries(rounds, arguments.films)
    path = harness.write_result("receivers", {**vars(arguments), "peers": versions()}, measured)
    if arguments.json:
        print(path.read_text())
    else:
        show(measured)
        Console().print(f"stored in {path}", style="dim")


def some_films(folder: Path, count: int, side: int) -> Path:
    """`count` files that differ in their UIDs only: drawing a phantom takes longer than sending it."""
    folder.mkdir()
    film = dcmread(write_dicom(chest(1, size=side), folder / "0.dcm", syntax="explicit"))
    for number in range(count):
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        film.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def interleaved(names: Sequence[str], films: Path, place: Path, rounds: int) -> dict[str, list[Round]]:
    """`rounds` of each receiver, in an order that rotates."""
    found: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            found[name].append(one_round(name, films, place / "received"))
    return found


def one_round(name: str, films: Path, folder: Path) -> Round:
    """Start a receiver on an empty folder, send it all films, and stop it."""
    folder.mkdir()
    port = free_port()
    with (folder.parent / "log").open("wb") as log:
        server = subprocess.Popen(RECEIVERS[name](folder, port), env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        wait_for(port, server)
        before = cpu_ms(server.pid)
        start = time.perf_counter()
        send(films, port)
        seconds = time.perf_counter() - start
        return Round(seconds, cpu_ms(server.pid) - before, peak_mb(server.pid))
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder)


def send(films: Path, port: int) -> None:
    command = ["dcmsend", "--scan-directories", "--max-send-pdu", "131072", "127.0.0.1", str(port), str(films)]
    sent = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    if sent.returncode:
        raise SystemExit(f"dcmsend failed: {sent.stderr or sent.stdout}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until the receiver answers a C-ECHO; a bare connection would block some of them."""
    until = time.monotonic() + READY_S
    echo = ["echoscu", "-to", "2", "127.0.0.1", str(port)]
    while subprocess.run(echo, env=ENVIRONMENT, capture_output=True).returncode:
        if server.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"{server.args} does not answer")
        time.sleep(CHUNK_S)


def cpu_ms(process: int) -> float:
    """User and system time of all threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_MS


def peak_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def summaries(rounds: dict[str, list[Round]], films: int) -> dict[str, Any]:
    """Per receiver; ratios are medians over rounds, of the same round's rates."""
    measured: dict[str, Any] = {}
    for name, its in rounds.items():
        rates = [films / one.seconds for one in its]
        measured[name] = {
            "images_a_second": statistics.median(rates),
            "images_a_second_of_rounds": rates,
            "cpu_ms_an_image": statistics.median(one.cpu_ms / films for one in its),
            "peak_mb": max(one.peak_mb for one in its),
        }
        for base in ("orthanc", "storescp"):
            if base in rounds:
                against = zip(rounds[base], its, strict=True)
                measured[name][f"times_{base}"] = statistics.median(b.seconds / one.seconds for b, one in against)
    return measured


def show(measured: dict[str, Any]) -> None:
    keys = ("images_a_second", "times_orthanc", "times_storescp", "cpu_ms_an_image", "peak_mb")
    table = Table("receiver", *(key.replace("_", " ") for key in keys))
    for name, values in measured.items():
        table.add_row(name, *(f"{values[key]:.2f}" if key in values else "" for key in keys))
    Console().print(table)


def versions() -> dict[str, str]:
    """Of the peers, in their own words."""
    asked = {"dcmtk": ["storescp", "--version"], "orthanc": ["Orthanc", "--version"]}
    found = {}
    for name, command in asked.items():
        program = find(command[0])
        if Path(program).exists():
            told = subprocess.run([program, *command[1:]], capture_output=True, text=True).stdout.splitlines()
            found[name] = next((line.strip("$ ") for line in told if line.strip()), "")
    return found


def find(program: str) -> str:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") or program


def orthanc(folder: Path, port: int) -> list[str]:
    """Orthanc as it comes, with neither web server nor plugins."""
    settings = {
        "DicomPort": port,
        "HttpServerEnabled": False,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "Plugins": [],
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    return [find("Orthanc"), str(path)]


def ours(name: str) -> Command:
    return lambda folder, port: [sys.executable, str(Path(__file__).resolve()), "--serve", name, str(port), str(folder)]


def storescp(*options: str) -> Command:
    return lambda folder, port: [find("storescp"), *options, "-od", str(folder), str(port)]


def serve_node(port: int, folder: Path) -> None:
    """Receiver and spool, as `edgecxr serve` runs them; nothing is screened."""
    from edgecxr.runtimes.node.config import DicomSection, SpoolLimits
    from edgecxr.runtimes.node.receiver import Receiver
    from edgecxr.runtimes.node.spool import Spool

    spool = Spool(folder / "spool", SpoolLimits(refuse_below_mb=0))
    spool.recover()
    with Receiver(spool, DicomSection(host="127.0.0.1", port=port)):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    spool.close()


def serve_pynetdicom(port: int, folder: Path) -> None:
    """A handler that writes the encoded data set to a file, in the library's own defaults; nothing is synced."""
    from pynetdicom import AE, evt
    from pynetdicom.presentation import AllStoragePresentationContexts
    from pynetdicom.sop_class import Verification

    def store(event: Any) -> int:
        (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0

    receiver = AE()
    receiver.supported_contexts = AllStoragePresentationContexts
    receiver.add_supported_context(Verification)
    receiver.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


SERVERS: dict[str, Callable[[int, Path], None]] = {"node": serve_node, "pynetdicom": serve_pynetdicom}
RECEIVERS: dict[str, Command] = {
    "node": ours("node"),
    "storescp": storescp(),
    "storescp +B -pdu 131072": storescp("+B", "-pdu", "131072"),
    "orthanc": orthanc,
    "pynetdicom": ours("pynetdicom"),
}

if __name__ == "__main__":
    main()

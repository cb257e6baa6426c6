"""The whole node beside receivers that merely store: images a second, milliseconds to a decision, and memory over time.

Throughput: dcmtk's dcmsend sends N uncompressed 3000 x 3000 12-bit DX films of 18 MB over one association on loopback,
TCP_NODELAY=1 on both ends. The node's clock stops when the last film is decided and that is committed; the others'
when dcmsend has its last answer. In each round everyone runs once on an empty folder, in a rotating order. The number:
images a second of the node over those of Orthanc (wanted >= 2) and of storescp (wanted >= 1), medians over rounds.

Latency: one film at a time, each in an association of its own. From the last byte written to the spool's part file
(its time of change, 4 ms coarse) to the moment at which a thread of the node saw the decision committed. p99 wanted:
50 ms uncompressed, 100 ms JPEG Lossless. After each film the same bytes are made durable without the node (`disk`), on
the same disk and the same clock: fsync, rename, fsync of the folder, one commit. The first film of each node is not
counted.

Soak: `--soak N` sends N films in batches of fresh UIDs, removes them when delivered, and states the resident memory of
all processes of the node at 500 and at N.

    python bench/node.py [--films 20] [--rounds 5] [--single 51] [--nodes 4] [--soak 5000] [--json]

Needs Debian's dcmtk and orthanc.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
import peers
import receivers
from disk import Disk
from pydicom import dcmread
from pydicom.uid import UID
from rich.console import Console
from rich.table import Table

from edgecxr.bundle import default_bundle_path
from edgecxr.phantom import chest, write_dicom

LATENCY_MS = {"explicit": 50, "jpeg_lossless": 100}
BATCH = 100  # films of the soak that lie on the disk at once, beside what the node has not yet removed
FIRST_LOOK = 500
PATIENCE_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=20, help="images an association")
    parser.add_argument("--rounds", type=int, default=5, help="0: no throughput")
    parser.add_argument("--side", type=int, default=3000, help="height and width of the films in pixels")
    parser.add_argument("--single", type=int, default=51, help="films to each node of the latency run; 0: none")
    parser.add_argument("--nodes", type=int, default=4, help="nodes of the latency run, one after another, each syntax")
    parser.add_argument("--soak", type=int, default=0, help="films of the soak; 0: none")
    parser.add_argument("--bundle", help="a .cxr file; the shipped one where not given")
    parser.add_argument("--folder", help="where receivers store (a disk, not a memory file system); a temporary folder")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of the tables")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(int(arguments.serve[0]), Path(arguments.serve[1]), arguments.bundle)
        return
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        if arguments.rounds:
            measured["throughput"] = throughput(Path(name), arguments)
        if arguments.single:
            measured["latency_ms"] = latencies(Path(name), arguments)
        if arguments.soak:
            measured["soak"] = soak(Path(name), arguments)
    asked = {**vars(arguments), "peers": receivers.versions()}
    bundle = arguments.bundle or default_bundle_path()
    path = harness.write_result("node_soak" if list(measured) == ["soak"] else "node", asked, measured, bundle=bundle)
    if arguments.json:
        print(path.read_text())
    else:
        show(measured)
        Console().print(f"stored in {path}", style="dim")


@contextmanager
def serving(folder: Path, bundle: str | None) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A node in a process of its own, on an empty folder; its port and process."""
    folder.mkdir()
    port = receivers.free_port()
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(port), str(folder)]
    command += ["--bundle", bundle] if bundle else []
    server = subprocess.Popen(command, env=receivers.ENVIRONMENT)
    try:
        receivers.wait_for(port, server)
        wait_until((folder / "ready").exists, server)
        yield port, server
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def serve(port: int, folder: Path, bundle: str | None) -> None:
    """A node as `edgecxr serve` runs it, and a thread that writes down when it saw each decision committed."""
    from edgecxr.runtimes.node import logs
    from edgecxr.runtimes.node.config import NodeConfig
    from edgecxr.runtimes.node.node import Node

    logs.configure("error", "text")
    settings = {
        "folder": folder / "node",
        "bundle": {"path": Path(bundle).resolve() if bundle else None, "allow_unsigned": True},
        "spool": {"refuse_below_mb": 0, "tidy_below_mb": 1, "keep_days": 0, "max_waiting": 100_000},
        "dicom": {"host": "127.0.0.1", "port": port},
        "http": None,
    }
    with Node(NodeConfig.model_validate(settings)) as node, (folder / "decisions").open("w") as seen:
        watcher = threading.Thread(target=watch, args=(node, seen), daemon=True)
        watcher.start()
        while not node.ready()[0]:
            time.sleep(0.02)
        (folder / "ready").touch()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


def watch(node: Any, seen: Any) -> None:
    """One JSON line for each decision, as soon as its transaction is committed."""
    last, change = 0, 0
    while True:
        change = node.spool.wait(change, 1.0)
        now = time.time()
        rows = node.spool.listing(limit=64)
        for image, result in sorted(rows, key=lambda row: row[0].id):
            if image.id > last and result is not None:
                last = image.id
                path = node.spool.path(image)
                end = path.stat().st_mtime if path.exists() else image.received
                told = {"ms": (now - end) * 1000, "status": result.status, "stages": result.record["milliseconds"]}
                told["stages"]["store"] = (image.received - end) * 1000  # until its row is written
                told["stages"]["commit"] = (now - result.record["decided"]) * 1000  # of the decision
                seen.write(json.dumps(told) + "\n")
        seen.flush()


def decisions(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "decisions").read_text().splitlines()
    return [json.loads(line) for line in lines]


def wait_until(true: Any, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit("the node did not get there")
        time.sleep(0.005)


def throughput(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    films = receivers.some_films(place / "films", arguments.films, arguments.side)
    names = ["edgecxr", *(name for name in receivers.RECEIVERS if name != "node")]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(arguments.rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            if name == "edgecxr":
                seconds[name].append(one_round(films, place / "received", arguments))
            else:
                seconds[name].append(receivers.one_round(name, films, place / "received").seconds)
    measured: dict[str, Any] = {}
    for name, its in seconds.items():
        measured[name] = {"images_a_second": arguments.films / statistics.median(its), "seconds_of_rounds": its}
        measured[name]["edgecxr_times"] = harness.ratio(its, seconds["edgecxr"])
    return measured


def one_round(films: Path, folder: Path, arguments: argparse.Namespace) -> float:
    """Seconds from the start of dcmsend to the last decision."""
    with serving(folder, arguments.bundle) as (port, server):
        start = time.perf_counter()
        receivers.send(films, port)
        wait_until(lambda: len(decisions(folder)) >= arguments.films, server)
        spent = time.perf_counter() - start
    check(decisions(folder), arguments.films)
    peers.remove(folder)
    return spent


def check(told: list[dict[str, Any]], wanted: int) -> None:
    decided = sum(line["status"] == "ok" for line in told)
    if decided != wanted:
        raise SystemExit(f"{decided} of {wanted} films were decided on: nothing that can be compared")


def latencies(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    files = {syntax: one_film(place / syntax, syntax, arguments.side) for syntax in LATENCY_MS}
    told: dict[str, list[dict[str, Any]]] = {syntax: [] for syntax in files}
    disk: dict[str, list[tuple[float, float]]] = {syntax: [] for syntax in files}
    for _ in range(arguments.nodes):
        for syntax, file in files.items():
            one_by_one(place / "received", file, arguments, told[syntax], disk[syntax])
    return {syntax: summarised(syntax, told[syntax], disk[syntax]) for syntax in files}


def one_film(folder: Path, syntax: str, side: int) -> Path:
    folder.mkdir()
    file = write_dicom(chest(1, size=side), folder / "film.dcm", syntax=syntax)
    stamp(file, 0)
    return file


def stamp(file: Path, number: int) -> None:
    """Give a film a UID that `peers.restamp` can change."""
    film = dcmread(file)
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = UID(peers.fresh_uid(number))
    film.save_as(file, enforce_file_format=True)


def one_by_one(folder: Path, file: Path, arguments: argparse.Namespace, told: list[Any], alone: list[Any]) -> None:
    """One film after another to a fresh node, and each to the disk alone; the first has the first inference in it."""
    with serving(folder, arguments.bundle) as (port, server):
        disk = Disk(folder / "alone")
        for number in range(arguments.single):
            peers.restamp(file, number, number + 1)
            receivers.send(file.parent, port)
            wait_until(lambda wanted=number + 1: len(decisions(folder)) >= wanted, server)
            if number:
                alone.append(disk.keep(file.read_bytes()))
        disk.close()
    check(decisions(folder), arguments.single)
    told += decisions(folder)[1:]
    peers.restamp(file, arguments.single, 0)
    peers.remove(folder)


def summarised(syntax: str, told: list[dict[str, Any]], alone: list[tuple[float, float]]) -> dict[str, Any]:
    stages = {name: statistics.median(line["stages"][name] for line in told) for name in told[0]["stages"]}
    return {
        **harness.summary([line["ms"] for line in told]),
        "stages_p50": stages,
        "wanted_p99": LATENCY_MS[syntax],
        "disk": harness.summary([last for _, last in alone]),
        "disk_from_first_byte": harness.summary([first for first, _ in alone]),
    }


def soak(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    folder, films = place / "received", receivers.some_films(place / "soak", BATCH, arguments.side)
    for number, file in enumerate(sorted(films.iterdir())):
        stamp(file, number)
    memory: dict[int, dict[str, float]] = {}
    start = time.perf_counter()
    with serving(folder, arguments.bundle) as (port, server):
        for sent in range(0, arguments.soak, BATCH):
            if sent:
                for number, file in enumerate(sorted(films.iterdir())):
                    peers.restamp(file, sent - BATCH + number, sent + number)
            receivers.send(films, port)
            wait_until(lambda wanted=sent + BATCH: len(decisions(folder)) >= wanted, server)
            memory[sent + BATCH] = peers.memory_mb(server.pid)
            wait_until(lambda: peers.free_mb(place) > 4000, server)  # the node removes what it has delivered
    peers.remove(folder)
    total = {count: sum(each.values()) for count, each in memory.items()}
    look = FIRST_LOOK if FIRST_LOOK in total else min(total)
    return {
        "films": max(total),
        "seconds": time.perf_counter() - start,
        "mb_at": {str(look): total[look], str(max(total)): total[max(total)]},
        "mb_by_process": {str(count): memory[count] for count in (look, max(total))},
        "mb": {str(count): value for count, value in total.items()},
    }


def show(measured: dict[str, Any]) -> None:
    console = Console()
    if "throughput" in measured:
        table = Table("receiver", "images a second", "edgecxr is as many times as fast", title="18 MB films")
        for name, row in measured["throughput"].items():
            table.add_row(name, f"{row['images_a_second']:.1f}", f"{row['edgecxr_times']:.2f}")
        console.print(table)
    if "latency_ms" in measured:
        columns = ("syntax", "films", "p50 ms", "p90 ms", "p99 ms", "wanted p99", "disk alone p50", "disk alone p99")
        table = Table(*columns, title="last byte to decision committed")
        for syntax, row in measured["latency_ms"].items():
            figures = (
                *(row[key] for key in ("p50", "p90", "p99", "wanted_p99")),
                row["disk"]["p50"],
                row["disk"]["p99"],
            )
            table.add_row(syntax, str(row["count"]), *(f"{figure:.1f}" for figure in figures))
        console.print(table)
    if "soak" in measured:
        told = ", ".join(f"{value:.0f} MB at {count}" for count, value in measured["soak"]["mb_at"].items())
        console.print(f"resident memory of all processes: {told} films")


if __name__ == "__main__":
    os.umask(0o077)
    main()

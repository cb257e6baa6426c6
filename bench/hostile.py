"""Whether others are served while a peer means harm: milliseconds of a C-ECHO and of storing one small film.

A node in a process of its own, as `edgecxr serve` runs it. In each round every situation is set up once, in a rotating
order, from 127.0.0.1: 12 connections that say nothing, 12 associations that say nothing, a transfer that stops
half-way, PDUs of 4 GB, a data set that is nested 100,000 deep, three bombs of pixels, a script in a patient's name.
While it lasts, another peer (127.0.0.2) asks for a C-ECHO and stores a 128 x 128 film, each in an association of its
own, from connect to release. `calm` is the same without hostility. Wanted: every one within 1,000 ms.

    python bench/hostile.py [--rounds 20] [--bundle FILE] [--json]
"""

import argparse
import contextlib
import sqlite3
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import harness
import node as whole_node
import peers
from pynetdicom import AE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtimes" / "node"))
import test_hostile_films as hostile
from conftest import RawPeer

from edgecxr.bundle import default_bundle_path

WANTED_MS = 1000
VERIFICATION = "1.2.840.10008.1.1"
HARM, GOOD = "127.0.0.1", "127.0.0.2"
PAUSE_S = 0.5  # after a situation, for the node to see that its connections are gone
WAITING = "SELECT COUNT(*) FROM images WHERE state IN ('received', 'screening')"
Setup = Callable[[ExitStack, int, str], None]  # what is to be closed in the end, port, a fresh UID


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--bundle", help="a .cxr file; the shipped one where not given")
    parser.add_argument("--json", action="store_true", help="print the stored result instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        film = whole_node.one_film(Path(name) / "film", "explicit", 128)
        with whole_node.serving(Path(name) / "node", arguments.bundle) as (port, server):
            index = Path(name) / "node" / "node" / "spool" / "node.db"

            def settle() -> None:
                """Until the films of one situation no longer keep the machine busy in the next."""
                time.sleep(PAUSE_S)
                whole_node.wait_until(lambda: not waiting(index), server)

            times = measured(port, film, arguments.rounds, settle)
    asked, bundle = vars(arguments) | {"wanted_ms": WANTED_MS}, arguments.bundle or default_bundle_path()
    path = harness.write_result("hostile", asked, summaries(times), bundle=bundle)
    if arguments.json:
        print(path.read_text())
    else:
        show(summaries(times))
        Console().print(f"stored in {path}", style="dim")


def waiting(index: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
        return int(connection.execute(WAITING).fetchone()[0])


def measured(port: int, film: Path, rounds: int, settle: Callable[[], None]) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each service in each situation, in the order of the rounds."""
    names = list(SITUATIONS)
    times: dict[str, dict[str, list[float]]] = {name: {"echo": [], "store": []} for name in names}
    sent = 0
    for number in range(-1, rounds):  # the first round warms up
        shift = number % len(names)
        for place, name in enumerate([*names[shift:], *names[:shift]]):
            with ExitStack() as stack:
                SITUATIONS[name](stack, port, f"2.25.9{number + 1:06d}{place:03d}")
                echo_ms = milliseconds(lambda: echo(port))
                peers.restamp(film, sent, sent := sent + 1)
                store_ms = milliseconds(lambda: store(port, film))
            if number >= 0:
                times[name]["echo"].append(echo_ms)
                times[name]["store"].append(store_ms)
            settle()
    return times


def milliseconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def echo(port: int) -> None:
    serve(port, VERIFICATION, lambda association: association.send_c_echo())


def store(port: int, film: Path) -> None:
    serve(port, hostile.DX, lambda association: association.send_c_store(film))


def serve(port: int, abstract: str, operation: Callable[[Any], Any]) -> None:
    """One operation of a peer that means well. Not served is no figure: it ends the run."""
    application = AE("GOOD")
    application.add_requested_context(abstract, hostile.EXPLICIT)
    association = application.associate("127.0.0.1", port, bind_address=(GOOD, 0))
    answer = operation(association) if association.is_established else {}
    association.release()
    if "Status" not in answer or answer.Status:
        raise SystemExit(f"another peer was not served: {answer or 'no association'}")


def calm(stack: ExitStack, port: int, uid: str) -> None:
    """Nobody else is there."""


def silent_connections(stack: ExitStack, port: int, uid: str) -> None:
    for _ in range(12):
        stack.enter_context(RawPeer(port, HARM))


def silent_associations(stack: ExitStack, port: int, uid: str) -> None:
    for number in range(12):
        stack.enter_context(RawPeer(port, HARM)).associate(calling=b"SILENT%d" % number)


def stalled_transfer(stack: ExitStack, port: int, uid: str) -> None:
    peer = stack.enter_context(RawPeer(port, HARM))
    peer.associate(calling=b"STALLED", contexts={hostile.DX: (hostile.EXPLICIT,)})
    peer.send(peer.store(hostile.DX, uid) + struct.pack(">BxL", 4, 1000))


def huge_pdus(stack: ExitStack, port: int, uid: str) -> None:
    for kind in (1, 4):
        peer = stack.enter_context(RawPeer(port, HARM))
        if kind == 4:
            peer.associate(calling=b"HUGE")
        with contextlib.suppress(ConnectionError):
            peer.send(struct.pack(">BxL", kind, 0xFFFFFFFF) + bytes(1_000_000))


def a_film(make: Callable[[str], bytes], syntax: str = hostile.EXPLICIT) -> Setup:
    """A film that is acknowledged, and is in the hands of a worker while others are served."""

    def setup(stack: ExitStack, port: int, uid: str) -> None:
        status = hostile.store(RawPeer(port, HARM), uid, syntax, make(uid))
        if status:
            raise SystemExit(f"the hostile film was answered with 0x{status:04X}: nothing is measured beside it")

    return setup


SITUATIONS: dict[str, Setup] = {
    "calm": calm,
    "12 silent connections": silent_connections,
    "12 silent associations": silent_associations,
    "a transfer that stalls": stalled_transfer,
    "PDUs of 4 GB": huge_pdus,
    "deep nesting": a_film(lambda uid: hostile.a_film(uid, middle=hostile.DEEP * 100_000)),
    "65535 x 65535 declared": a_film(lambda uid: hostile.a_film(uid, rows=65535)),
    "a JPEG 2000 bomb": a_film(
        lambda uid: hostile.a_film(uid, rows=65535, pixels=hostile.a_j2k_bomb()), syntax=hostile.J2K
    ),
    "a deflate bomb": a_film(lambda uid: hostile.a_deflate_bomb(hostile.a_film(uid)[:-140]), syntax=hostile.DEFLATED),
    "a script as a name": a_film(lambda uid: hostile.a_film(uid, name=hostile.SCRIPT)),
}


def summaries(times: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """`p50` and `max` of each service in each situation, and whether all of it is within what is wanted."""
    measured: dict[str, Any] = {}
    for name, its in times.items():
        told = {f"{what}_ms": {**harness.summary(list_), "max": max(list_)} for what, list_ in its.items()}
        within = all(max(list_) <= WANTED_MS for list_ in its.values())
        measured[name] = {**told, "within_wanted": within}
    return measured


def show(measured: dict[str, Any]) -> None:
    table = Table("situation", "C-ECHO p50 ms", "max", "C-STORE p50 ms", "max", f"all within {WANTED_MS:,} ms")
    for name, row in measured.items():
        figures = [f"{row[what][key]:.0f}" for what in ("echo_ms", "store_ms") for key in ("p50", "max")]
        table.add_row(name, *figures, "yes" if row["within_wanted"] else "NO")
    Console().print(table)


if __name__ == "__main__":
    main()

"""What is refused before it is an image: it has a row and says why, whatever the disk and the peers do."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spools import LIMITS
from waiting import until

from edgecxr.errors import SpoolFull
from edgecxr.runtimes.node import door
from edgecxr.runtimes.node.database import SCHEMA
from edgecxr.runtimes.node.door import MOST, MOST_OF_AN_ADDRESS, TurnedAway
from edgecxr.runtimes.node.spool import Spool

DX, EXPLICIT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.1.2.1"
PATIENT = b"\x10\0\x10\0PN\x08\0Doe^Jane"


def told(spool: Spool) -> list[tuple[str, ...]]:
    """Calling AE, answer and reason, oldest first."""
    return [(one.calling_ae, one.answer, one.reason) for one in spool.door.newest(MOST)[::-1]]


def element(number: int, value: str) -> bytes:
    raw = value.encode() + b"\0" * (len(value) % 2)
    return b"\x08\0" + number.to_bytes(2, "little") + b"UI" + len(raw).to_bytes(2, "little") + raw


def test_every_refused_transfer_has_a_row_without_patient_data(listening: Callable[..., Any]) -> None:
    node = listening({"max_object_mb": 1})
    with node.peer() as peer:
        peer.associate(calling=b"UNIT", contexts={DX: (EXPLICIT,)})

        def store(command: bytes, data: bytes = PATIENT) -> int:
            for start in range(0, len(data), 100_000):
                piece = data[start : start + 100_000]
                value = peer.value(piece, control=2 if start + 100_000 >= len(data) else 0)
                command += b"\4\0" + len(value).to_bytes(4, "big") + value
            peer.send(command)
            return int(peer.status())

        assert store(peer.store(DX, "1.2.3"), element(0x18, "1.2.4") + PATIENT) == 0xA900
        assert store(peer.store(DX, "Doe^Jane")) == 0x0117
        assert store(peer.store(DX, "1.2.3"), PATIENT + bytes(1_100_000)) == 0xA700
        peer.send(peer.store(DX, "1.2.3", x0800=b"\1\1"))
        assert peer.status() == 0xC000
        assert store(peer.store(DX, "1.2.3")) == 0
    expected = [
        ("UNIT", "C-STORE 0xA900", "the data set is of another SOP instance than the command"),
        ("UNIT", "C-STORE 0x0117", "the SOP Instance UID is no UID"),
        ("UNIT", "C-STORE 0xA700", "the object is larger than is taken"),
        ("UNIT", "C-STORE 0xC000", "a C-STORE without a data set"),
    ]
    until(lambda: told(node.spool) == expected)
    node.stop()
    assert b"Doe" not in b"".join(path.read_bytes() for path in node.spool.folder.glob("node.db*"))


def test_a_peer_out_of_room_is_told_apart(listening: Callable[..., Any]) -> None:
    node = listening({"max_waiting": 1})
    with node.peer() as peer:
        peer.associate(calling=b"UNIT", contexts={DX: (EXPLICIT,)})
        for number, status in enumerate((0, 0xA700, 0xA700)):
            value = peer.value(PATIENT, control=2)
            peer.send(peer.store(DX, f"1.2.{number}") + b"\4\0" + len(value).to_bytes(4, "big") + value)
            assert peer.status() == status
    until(lambda: node.spool.door.count(0) == 2)
    node.stop()
    spool = Spool(node.spool.folder, LIMITS)
    (one,) = spool.door.newest()
    spool.close()
    assert (one.answer, one.reason, one.number) == ("C-STORE 0xA700", "no room for another image", 2)
    assert (one.address, one.first <= one.last) == ("127.0.0.1", True)


@pytest.mark.parametrize(
    ("section", "request_", "expected"),
    [
        ({"check_called_ae": True}, {"called": b"OTHER"}, ("RAW", "rejected", "it calls another AE title than ours")),
        ({"peers": [{"ae": "KNOWN"}]}, {}, ("RAW", "rejected", "the calling AE title, or the address")),
        ({}, {"contexts": {"1.2.840.10008.5.1.4.1.1.2": (EXPLICIT,)}}, ("RAW", "accepted in vain", "nothing that it")),
    ],
)
def test_who_cannot_send_at_all_has_a_row(
    listening: Callable[..., Any], section: dict[str, Any], request_: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    node = listening(**section)
    with node.peer() as peer:
        peer.send(peer.request(**request_))
        assert peer.answer()[0] in (2, 3)
    until(lambda: [(*row[:2], row[2][: len(expected[2])]) for row in told(node.spool)] == [expected])


def test_a_broken_protocol_and_a_stalled_transfer_have_rows_and_a_silent_peer_has_none(
    listening: Callable[..., Any],
) -> None:
    node = listening(transfer_timeout_s=0.3, idle_timeout_s=0.3)
    for words in (b"", b"\4\0\xff\xff\xff\xff", b"store"):
        with node.peer() as peer:
            peer.associate(calling=b"UNIT", contexts={DX: (EXPLICIT,)})
            peer.send(peer.store(DX, "1.2.3") if words == b"store" else words)
            assert peer.answer()[0] == 7
    expected = [
        ("UNIT", "aborted", "a P-DATA-TF of 4,294,967,295 bytes is declared; 6 to 262,144 are taken"),
        ("UNIT", "aborted", "the peer fell silent half-way"),
    ]
    until(lambda: told(node.spool) == expected)


def test_equal_refusals_count_in_one_row_over_a_restart(folder: Path) -> None:
    for _ in range(2):
        spool = Spool(folder, LIMITS)
        for answer in ("rejected", "rejected", "aborted", "rejected"):
            spool.door.note("A", "10.0.0.1", answer, "why")
            spool.door.note("B", "10.0.0.1", "rejected", "why")
        spool.close()
    spool = Spool(folder, LIMITS)
    rows = [(one.calling_ae, one.answer, one.number) for one in spool.door.newest()]
    kinds = [("A", "rejected", 2), ("A", "aborted", 1), ("A", "rejected", 3), ("A", "aborted", 1), ("A", "rejected", 1)]
    assert sorted(rows) == sorted([*kinds, ("B", "rejected", 8)])
    assert spool.door.count(0) == 16
    assert spool.door.count(spool.door.newest()[0].last + 1) == 0
    spool.close()


def test_a_row_counts_for_ten_minutes() -> None:
    row = TurnedAway("A", "10.0.0.1", "rejected", "why", 1000.0, 1500.0, 7)
    assert row.same(TurnedAway("A", "10.0.0.1", "rejected", "why", 1600.0, 1600.0))
    assert not row.same(TurnedAway("A", "10.0.0.1", "rejected", "why", 1601.0, 1601.0))


def test_a_flood_is_a_few_transactions_and_never_pushes_out_the_others(spool: Spool) -> None:
    spool.door.note("UNIT", "10.0.0.1", "C-STORE 0xA700", "no room for another image")
    until(lambda: not spool.door._notes)
    before = spool.change()
    for number in range(50_000):
        spool.door.note(f"T{number}", "10.0.0.66", "rejected", "why")
    assert spool.change() - before <= 1 + (50_000 // 1000)
    for number in range(2 * MOST):
        spool.door.note("", f"10.1.{number >> 8}.{number & 255}", "closed", "no room for another connection")
    spool.door.write()
    assert len(told(spool)) <= MOST
    for _ in range(20):
        spool.door.note("NOISE", "10.0.0.66", "rejected", "why")
        spool.door.note("NOISE", "10.0.0.66", "aborted", "why")
        spool.door.write()
    rows = spool.door.newest(MOST)
    assert sum(one.address == "10.0.0.66" for one in rows) <= MOST_OF_AN_ADDRESS


def test_one_noisy_address_leaves_the_rows_of_the_others(spool: Spool) -> None:
    spool.door.note("UNIT", "10.0.0.1", "C-STORE 0xA700", "no room for another image")
    for number in range(3 * MOST):
        spool.door.note(f"T{number}", "10.0.0.66", "rejected", "why")
        if number % 500 == 0:
            spool.door.write()
    spool.door.write()
    assert ("UNIT", "C-STORE 0xA700", "no room for another image") in told(spool)
    assert len(told(spool)) == 1 + MOST_OF_AN_ADDRESS


def test_a_full_disk_blocks_nothing_and_what_waits_is_shown(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "EVERY_S", 0.05)
    with spool._database.read() as connection:
        connection.execute("PRAGMA max_page_count = 1")
    for number in range(3 * MOST_OF_AN_ADDRESS):
        spool.door.note(f"T{number}" * 4, "10.0.0.1", "rejected", "why")
    with pytest.raises(SpoolFull):
        spool.door.write()
    until(lambda: len(told(spool)) == spool.door.count(0) == MOST_OF_AN_ADDRESS)
    spool.door.note("LAST", "10.0.0.2", "rejected", "why")
    until(lambda: told(spool)[-1] == ("LAST", "rejected", "why"))
    with spool._database.read() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    until(lambda: not spool.door._notes and len(told(spool)) == MOST_OF_AN_ADDRESS + 1)


def test_a_spool_of_an_earlier_version_gets_the_table(folder: Path) -> None:
    folder.mkdir()
    connection = sqlite3.connect(folder / "node.db")
    connection.executescript(SCHEMA)
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    spool = Spool(folder, LIMITS)
    spool.door.note("UNIT", "10.0.0.1", "rejected", "why")
    spool.close()
    spool = Spool(folder, LIMITS)
    assert told(spool) == [("UNIT", "rejected", "why")]
    spool.close()


def test_without_a_thread_to_write_it_a_note_is_kept_and_written_later(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        spool.door.note("UNIT", "10.0.0.1", "rejected", "why")
    assert told(spool) == [("UNIT", "rejected", "why")]
    spool.door.note("UNIT", "10.0.0.1", "rejected", "why")
    until(lambda: not spool.door._notes and spool.door.count(0) == 2)

"""A whole node under everything hostile at once: up, others served, memory bounded, and nothing passed over."""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import LONG_S, until

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.caller import Peer
from edgecxr.runtimes.node.config import NodeConfig
from edgecxr.runtimes.node.node import Node
from edgecxr.runtimes.node.sender import send
from edgecxr.runtimes.node.spool import State

DX, EXPLICIT, DEFLATED = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
J2K = "1.2.840.10008.1.2.4.90"
SCRIPT = b"<script>alert(1)</script>"
MOST_BYTES, MOST_OF_CHILD = 200e6, 900e6  # more than before; the child may inflate 264 MB (`guard.Limits`), and copies


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OW", b"OB", b"SQ", b"UN")
    return head + (struct.pack("<xxL", len(value)) if long else struct.pack("<H", len(value))) + value


def a_film(
    uid: str, *, rows: int = 8, pixels: bytes = bytes(128), name: bytes = b"Doe^Jane", middle: bytes = b""
) -> bytes:
    """A data set that says what it likes about itself."""
    numbers = {0x280002: 1, 0x280010: rows, 0x280011: rows, 0x280100: 16, 0x280101: 12, 0x280102: 11, 0x280103: 0}
    image = {0x280004: (b"CS", b"MONOCHROME2")} | {tag: (b"US", struct.pack("<H", n)) for tag, n in numbers.items()}
    return b"".join(
        (
            element(0x80016, b"UI", DX.encode() + b"\0"),
            element(0x80018, b"UI", uid.encode() + b"\0" * (len(uid) % 2)),
            element(0x80060, b"CS", b"DX"),
            middle,
            element(0x100010, b"PN", name),
            element(0x100020, b"LO", SCRIPT),
            *(element(tag, vr, value) for tag, (vr, value) in sorted(image.items())),
            pixels if pixels.startswith(b"\xe0\x7f") else element(0x7FE00010, b"OW", pixels),
        )
    )


def a_j2k_bomb() -> bytes:
    """Encapsulated pixel data whose codestream declares 4 gigapixels in one tile, and has none (ISO 15444-1 A.5.1)."""
    size = struct.pack(">HLLLLLLLLH", 0, 65535, 65535, 0, 0, 65535, 65535, 0, 0, 1) + b"\x0b\1\1"
    stream = b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + b"\xff\xd9"
    stream += b"\0" * (len(stream) % 2)
    item = b"\xfe\xff\0\xe0"
    items = item + bytes(4) + item + struct.pack("<L", len(stream)) + stream + b"\xfe\xff\xdd\xe0" + bytes(4)
    return b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + items


def a_deflate_bomb(film: bytes) -> bytes:
    """Two megabytes for two gigabytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(film + b"\xe1\x7f\x10\0OB\0\0\xff\xff\xff\x7f") + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + zeros * 128 + packer.flush()


DEEP = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"  # a sequence and an item without an end
HOSTILE = {
    "1.1": (EXPLICIT, a_film("1.1", middle=DEEP * 100_000)),
    "1.2": (EXPLICIT, a_film("1.2", rows=65535)),
    "1.3": (J2K, a_film("1.3", rows=65535, pixels=a_j2k_bomb())),
    "1.4": (EXPLICIT, a_film("1.4", name=SCRIPT)),
    "1.5": (EXPLICIT, b"\xff" * 5000),
    "1.6": (EXPLICIT, a_film("1.6")[:-100]),
}


@pytest.fixture
def node(tmp_path: Path, tiny_bundle: Path) -> Iterator[Node]:
    settings = {
        "folder": str(tmp_path / "node"),
        "bundle": {"path": str(tiny_bundle), "allow_unsigned": True},
        "screening": {"threads": 1},
        "spool": {"refuse_below_mb": 0, "tidy_below_mb": 1},
        "dicom": {"host": "127.0.0.1", "port": 0},
        "http": {"port": 0},
    }
    with Node(NodeConfig.model_validate(settings, strict=False)) as node:
        until(lambda: node.ready()[0])
        yield node


def port_of(node: Node) -> int:
    return node.receiver.port if node.receiver else 0


def peak_bytes(pid: int | str) -> int:
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


def store(peer: Any, uid: str, syntax: str, data: bytes) -> int:
    """The status of a C-STORE; the peer then vanishes without a release."""
    with peer:
        peer.associate(calling=b"HOSTILE", contexts={DX: (syntax,)})
        return _store(peer, uid, data)


def _store(peer: Any, uid: str, data: bytes) -> int:
    peer.send(peer.store(DX, uid))
    for start in range(0, len(data), 200_000):
        value = peer.value(data[start : start + 200_000], control=2 * (start + 200_000 >= len(data)))
        peer.send(struct.pack(">BxL", 4, len(value)) + value)
    status: int = peer.status()
    return status


def test_others_are_served_while_everything_hostile_happens(node: Node, raw_peer: Any, tmp_path: Path) -> None:
    child = node.workers.states()[0].pid
    before = peak_bytes("self"), peak_bytes(child)
    port = port_of(node)
    for number in range(12):
        raw_peer(port)
        raw_peer(port).associate(calling=b"SILENT%d" % number)
    stalled = raw_peer(port)
    stalled.associate(calling=b"STALLED", contexts={DX: (EXPLICIT,)})
    stalled.send(stalled.store(DX, "1.9") + struct.pack(">BxL", 4, 1000))
    for kind in (1, 4):
        huge = raw_peer(port)
        if kind == 4:
            huge.associate()
        with contextlib.suppress(ConnectionError):
            huge.send(struct.pack(">BxL", kind, 0xFFFFFFFF) + bytes(100_000))
    statuses = {uid: store(raw_peer(port), uid, syntax, data) for uid, (syntax, data) in HOSTILE.items()}
    assert set(statuses.values()) == {0}
    bomb = a_deflate_bomb(a_film("1.7")[:-140])
    assert store(raw_peer(port), "1.7", DEFLATED, bomb) == 0
    film = write_dicom(chest(1, "normal", size=128), tmp_path / "good.dcm")
    assert [result.status for result in send([film], Peer("EDGECXR", "127.0.0.1", port), "GOOD")] == [0]
    until(lambda: sum(node.spool.counts()[state] for state in (State.DELIVERED, State.QUARANTINED)) == len(HOSTILE) + 2)
    ends = {image.sop_instance: (image, result) for image, result in node.spool.listing()}
    for uid in (*HOSTILE, "1.7"):
        image, result = ends[uid]
        assert image.error if result is None else result.status == "refused", uid
    (good,) = (result for image, result in ends.values() if image.calling_ae == "GOOD")
    assert good is not None
    assert good.status == "ok"
    assert node.ready() == (True, [])
    assert node.receiver is not None
    assert node.receiver.statistics()["faults"] == 0
    assert peak_bytes("self") - before[0] < MOST_BYTES
    assert peak_bytes(child) - before[1] < MOST_OF_CHILD  # and it is the same: nothing crashed it
    if node.web is None:
        raise TypeError("no page")
    with httpx.Client(base_url=f"http://127.0.0.1:{node.web.port}", timeout=LONG_S) as browser:
        pages = [browser.get("/").text] + [browser.get(f"/results/{image.id}").text for image, _ in ends.values()]
    assert not any(SCRIPT.decode() in page for page in pages)
    assert "&lt;script&gt;alert(1)" in pages[0]

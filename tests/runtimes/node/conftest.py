"""A receiver on a spool of its own, and peers that speak DICOM by hand."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import DicomSection, SpoolLimits
from edgecxr.runtimes.node.receiver import Receiver
from edgecxr.runtimes.node.spool import Spool

PATIENCE_S = 120  # how long a peer waits before the test fails instead of hanging
VERIFICATION, EXPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2.1"


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


class RawPeer:
    """A TCP connection and the few PDUs a test needs, written down from PS3.8 and PS3.7 alone."""

    def __init__(self, port: int, host: str) -> None:
        self.sock = socket.create_connection((host, port), timeout=PATIENCE_S)

    def request(
        self,
        calling: bytes = b"RAW",
        called: bytes = b"EDGECXR",
        *,
        contexts: dict[str, tuple[str, ...]] | None = None,
        version: int = 1,
        application: bytes = b"1.2.840.10008.3.1.1.1",
        user: bytes = b"",
    ) -> bytes:
        """An A-ASSOCIATE-RQ; contexts are numbered 1, 3, 5 …"""
        proposed = b"".join(
            item(
                0x20,
                bytes((2 * number + 1, 0, 0, 0))
                + item(0x30, abstract.encode())
                + b"".join(item(0x40, transfer.encode()) for transfer in transfers),
            )
            for number, (abstract, transfers) in enumerate((contexts or {VERIFICATION: (EXPLICIT,)}).items())
        )
        fixed = struct.pack(">HH", version, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
        length = item(0x51, struct.pack(">L", 16384))
        return pdu(1, fixed + item(0x10, application) + proposed + item(0x50, length + user))

    def associate(self, **request: Any) -> bytes:
        """Ask for an association; the body of the A-ASSOCIATE-AC."""
        self.send(self.request(**request))
        kind, body = self.answer()
        assert kind == 2, f"PDU type {kind} {body.hex()}"
        return body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self) -> tuple[int, bytes]:
        """The next PDU: type and body; (0, b"") where the connection was closed."""
        head = self.read(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self.read(length)

    def read(self, count: int) -> bytes:
        data = b""
        try:
            while len(data) < count and (piece := self.sock.recv(count - len(data))):
                data += piece
        except ConnectionResetError:
            return b""
        return data

    def message(self, elements: dict[int, bytes], context: int = 1) -> bytes:
        """A command set in one P-DATA-TF."""
        body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
        command = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
        return pdu(4, self.value(command, context, 3))

    def value(self, data: bytes, context: int = 1, control: int = 0) -> bytes:
        """One presentation data value: control 1 is a command, 2 the last of its message."""
        return struct.pack(">LBB", len(data) + 2, context, control) + data

    def echo(self) -> int:
        """The status of a C-ECHO on context 1."""
        self.send(
            self.message({0x0002: VERIFICATION.encode() + b"\0", 0x0100: b"\x30\0", 0x0110: b"\1\0", 0x0800: b"\1\1"})
        )
        return self.status()

    def store(self, sop_class: str, instance: str, **changes: bytes) -> bytes:
        """The C-STORE-RQ of context 1."""
        elements = {0x0002: even(sop_class), 0x0100: b"\1\0", 0x0110: b"\7\0", 0x0700: b"\0\0", 0x0800: b"\0\0"}
        elements[0x1000] = even(instance)
        return self.message(elements | {int(name[1:], 16): value for name, value in changes.items()})

    def status(self) -> int:
        """The status of the next answer."""
        return int.from_bytes(self.reply()[0x0900], "little")

    def reply(self) -> dict[int, bytes]:
        """The elements of the next command set."""
        kind, body = self.answer()
        assert kind == 4, f"PDU type {kind} {body.hex()}"
        command, elements = body[6:], {}
        while command:
            _, tag, length = struct.unpack_from("<HHL", command)
            elements[tag], command = command[8 : 8 + length], command[8 + length :]
        return elements

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()


def even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


class Node:
    """A receiver that listens, and its spool."""

    def __init__(self, folder: Path, limits: SpoolLimits, config: DicomSection) -> None:
        self.spool = Spool(folder, limits)
        self.spool.recover()
        self.receiver = Receiver(self.spool, config)
        self.receiver.start()

    @property
    def port(self) -> int:
        return self.receiver.port

    def peer(self, host: str = "127.0.0.1") -> RawPeer:
        return RawPeer(self.port, host)

    def stop(self) -> None:
        self.receiver.stop(0)
        self.spool.close()


@pytest.fixture(scope="session")
def slow_film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A film that takes seconds to decode. It takes more to be made."""
    path = tmp_path_factory.mktemp("slow") / "slow.dcm"
    return write_dicom(chest(1, size=4500), path, syntax="jpeg2000").read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    """A spool of its own, open as a node's."""
    opened = Spool(folder, SpoolLimits(refuse_below_mb=0, tidy_below_mb=0))
    opened.recover()
    yield opened
    opened.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start a receiver on a free port: `listening(limits={…}, **dicom_section)`."""
    with ExitStack() as stack:

        def start(limits: dict[str, Any] | None = None, **section: Any) -> Node:
            folder = tmp_path / f"spool{len(list(tmp_path.glob('spool*')))}"
            room = SpoolLimits(**{"refuse_below_mb": 0, **(limits or {})})
            node = Node(folder, room, DicomSection(**{"host": "127.0.0.1", "port": 0, **section}))
            stack.callback(node.stop)
            return node

        yield start


@pytest.fixture
def raw_peer() -> Iterator[Callable[[int], RawPeer]]:
    """Connect to a port of this machine, by hand."""
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(RawPeer(port, "127.0.0.1"))

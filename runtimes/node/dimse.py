"""Messages on an association (PS3.7 6.3, 9, 10 and annex E): commands, what serves them, and their answers.

A command set is Implicit VR Little Endian always, and small; a data set goes piece by piece into its service's `Sink`.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from edgecxr.runtimes.node.association import Association, Fragment
from edgecxr.runtimes.node.pdu import AbortReason, PduError, printable

__all__ = [
    "Command",
    "Context",
    "Dialogue",
    "Drain",
    "Exchange",
    "Operation",
    "Reply",
    "Service",
    "Sink",
    "Status",
    "Tag",
    "even",
    "named",
]

MOST_EMPTY = 64  # fragments without a byte in one message; PS3.8 allows them, and nobody needs them
MOST_COMMAND = 1 << 16  # bytes of a command set; a C-STORE-RQ has about 200
MOST_DRAINED = 1 << 30  # bytes of a refused data set that are taken before the association is aborted
NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHL")


class Tag(IntEnum):
    """Elements (0000,xxxx) of PS3.7 E.1."""

    GROUP_LENGTH = 0x0000
    AFFECTED_CLASS = 0x0002
    REQUESTED_CLASS = 0x0003
    FIELD = 0x0100
    MESSAGE = 0x0110
    ANSWERED_MESSAGE = 0x0120
    PRIORITY = 0x0700
    DATA_SET = 0x0800
    STATUS = 0x0900
    COMMENT = 0x0902
    AFFECTED_INSTANCE = 0x1000
    REQUESTED_INSTANCE = 0x1001
    ACTION = 0x1008


REPEATED = ((Tag.AFFECTED_CLASS, Tag.REQUESTED_CLASS), (Tag.AFFECTED_INSTANCE, Tag.REQUESTED_INSTANCE))


class Operation(IntEnum):
    """Command fields of what is asked of us (PS3.7 E.1)."""

    STORE = 0x0001
    ECHO = 0x0030
    ACTION = 0x0130
    CANCEL = 0x0FFF


def named(operation: int) -> str:
    """``C-STORE``, as the standard calls it; the command field in hexadecimal where it is none of ours."""
    names = {Operation.STORE: "C-STORE", Operation.ECHO: "C-ECHO", Operation.ACTION: "N-ACTION"}
    return next((name for field, name in names.items() if field == operation), f"0x{operation:04X}")


class Status(IntEnum):
    """PS3.7 annex C; PS3.4 B.2.3 for storage."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    INVALID_ARGUMENT = 0x0115
    INVALID_INSTANCE = 0x0117
    NO_SUCH_CLASS = 0x0118
    CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    UNRECOGNIZED = 0x0211
    RESOURCE_LIMIT = 0x0213
    OUT_OF_RESOURCES = 0xA700
    MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class Command:
    """A command set, by element."""

    def __init__(self, elements: dict[int, bytes]) -> None:
        self.elements = elements

    @classmethod
    def decode(cls, data: bytes) -> "Command":
        """Raises PduError: a length reaches past the set, an element is not of group 0000 or stands there twice."""
        elements: dict[int, bytes] = {}
        position = 0
        while position < len(data):
            if position + _ELEMENT.size > len(data):
                raise PduError("a command set ends inside an element")
            group, number, length = _ELEMENT.unpack_from(data, position)
            position += _ELEMENT.size
            if group or number in elements or position + length > len(data):
                raise PduError(f"a command set with ({group:04X},{number:04X}) of {length:,} bytes in a wrong place")
            elements[number] = data[position : position + length]
            position += length
        return cls(elements)

    def number(self, tag: Tag) -> int | None:
        """An unsigned 16-bit value; None when absent. Raises PduError when it has another size."""
        value = self.elements.get(tag)
        if value is None:
            return None
        if len(value) != 2:
            raise PduError(f"(0000,{tag:04X}) of a command has {len(value)} bytes; it has 2")
        return int.from_bytes(value, "little")

    def required(self, tag: Tag) -> int:
        """`number`. Raises PduError when absent."""
        value = self.number(tag)
        if value is None:
            raise PduError(f"a command without (0000,{tag:04X})")
        return value

    def text(self, tag: Tag) -> str:
        """A UID, stripped; "" when absent."""
        return printable(self.elements.get(tag, b""))

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows (PS3.7 9.3.1: anything but 0101H)."""
        return self.required(Tag.DATA_SET) != NO_DATA_SET


@dataclass(frozen=True)
class Reply:
    """The status of an operation, a comment for who reads the peer's log, and elements of this operation's answer."""

    status: Status
    comment: str = ""
    elements: dict[Tag, bytes] = field(default_factory=dict)
    note: dict[str, object] = field(default_factory=dict)  # for our log

    def encode(self, command: Command) -> bytes:
        """The response to `command`, which repeats its class and instance (PS3.7 9.3, 10.3)."""
        answer = {
            Tag.FIELD: struct.pack("<H", command.required(Tag.FIELD) | 0x8000),
            Tag.ANSWERED_MESSAGE: struct.pack("<H", command.required(Tag.MESSAGE)),
            Tag.DATA_SET: struct.pack("<H", NO_DATA_SET),
            Tag.STATUS: struct.pack("<H", self.status),
        }
        for affected, requested in REPEATED:
            name = command.text(affected) or command.text(requested)
            if name:
                answer[affected] = even(name.encode(), b"\0")
        if self.comment:
            answer[Tag.COMMENT] = even(self.comment[:64].encode("ascii", "replace"), b" ")  # VR LO
        answer |= self.elements
        body = b"".join(_ELEMENT.pack(0, tag, len(answer[tag])) + answer[tag] for tag in sorted(answer))
        return _ELEMENT.pack(0, Tag.GROUP_LENGTH, 4) + struct.pack("<L", len(body)) + body


def even(value: bytes, padding: bytes) -> bytes:
    """`value`, padded to an even length (PS3.5 7.1.1)."""
    return value + padding if len(value) % 2 else value


@dataclass(frozen=True)
class Context:
    """An accepted presentation context."""

    number: int
    abstract: str
    transfer: str


class Sink(Protocol):
    """What takes a data set, piece by piece, and then gives the answer."""

    def write(self, piece: memoryview) -> None:
        """Take a piece; it is valid during the call."""

    def finish(self) -> Reply:
        """All is there."""

    def discard(self) -> None:
        """The rest will not come. Called in the end in any case; harmless after `finish`."""


class Drain:
    """Takes a data set to nowhere and gives an answer that was decided before."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.drained = 0

    def write(self, piece: memoryview) -> None:
        """Raises PduError above 1 GiB: nobody goes on for ever with what was refused."""
        self.drained += len(piece)
        if self.drained > MOST_DRAINED:
            raise PduError("a refused data set that does not end", AbortReason.NOT_SPECIFIED)

    def finish(self) -> Reply:
        """What was decided."""
        return self.reply

    def discard(self) -> None:
        """Nothing was kept."""


@dataclass(frozen=True)
class Exchange:
    """One operation, when its answer is known."""

    command: Command
    context: Context
    reply: Reply
    size: int  # bytes of the data set, as sent


Service = Callable[[Command, Context], Sink]
Observer = Callable[[Exchange], None]


class Dialogue:
    """The messages of one association, one after the other: fragments in, an answer to each whole message out."""

    def __init__(
        self, association: Association, contexts: dict[int, Context], service: Service, observer: Observer
    ) -> None:
        """`service` opens a sink for each command; `observer` is told of each answer before it is sent."""
        self._association = association
        self._contexts = contexts
        self._service = service
        self._observer = observer
        self._size = 0
        self._gathered = bytearray()
        self._begun = False  # a command, of which perhaps nothing has come but an empty fragment
        self._empty = 0  # fragments without a byte, in this message
        self._context = 0
        self._command: Command | None = None
        self._sink: Sink | None = None

    @property
    def _open(self) -> bool:
        """Whether a message has begun and was not answered yet."""
        return self._begun or self._command is not None

    def run(self) -> None:
        """Until the peer releases the association. Raises PduError, Closed, TimeoutError, OSError."""
        for fragment in self._association.fragments():
            self._take(fragment)
            self._association.inside = self._open

    def _take(self, fragment: Fragment) -> None:
        if self._open and fragment.context != self._context:
            raise PduError(f"presentation context {fragment.context} inside a message on {self._context}")
        self._context = fragment.context
        if not fragment.data and not fragment.last:
            self._empty += 1
            if self._empty > MOST_EMPTY:
                raise PduError(f"more than {MOST_EMPTY} empty fragments in one message")
        if fragment.command:
            self._take_command(fragment)
            return
        if self._sink is None:
            raise PduError("a data set that no command announced", AbortReason.UNEXPECTED_PARAMETER)
        self._size += len(fragment.data)
        self._sink.write(fragment.data)
        if fragment.last:
            self._answer()

    def _take_command(self, fragment: Fragment) -> None:
        if self._command is not None:
            raise PduError("a command where a data set belongs", AbortReason.UNEXPECTED_PARAMETER)
        if len(self._gathered) + len(fragment.data) > MOST_COMMAND:
            raise PduError(f"a command set of more than {MOST_COMMAND:,} bytes")
        self._gathered += fragment.data
        self._begun = not fragment.last
        if self._begun:
            return
        command = Command.decode(bytes(self._gathered))
        self._gathered.clear()
        operation = command.required(Tag.FIELD)
        if operation == Operation.CANCEL:
            self._empty = 0
            return  # ours are answered before the next command is read
        if operation & 0x8000:
            raise PduError(f"an answer ({operation:#06x}) to what was not asked", AbortReason.UNEXPECTED_PARAMETER)
        command.required(Tag.MESSAGE)
        follows = command.has_data_set
        self._command = command
        self._sink = self._service(command, self._contexts[self._context])
        if not follows:
            self._answer()

    def _answer(self) -> None:
        command, sink = self._command, self._sink
        if command is None or sink is None:
            return
        reply = sink.finish()
        self._observer(Exchange(command, self._contexts[self._context], reply, self._size))
        self._command, self._sink, self._size, self._empty = None, None, 0, 0
        self._association.send(self._context, reply.encode(command))

    def discard(self) -> None:
        """The association is over: what was not finished is thrown away."""
        if self._sink is not None:
            self._sink.discard()
            self._sink = None

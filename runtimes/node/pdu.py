"""Protocol data units of the DICOM upper layer (PS3.8 9.3, annex D; PS3.7 annex D.3), as bytes.

What a peer sent is decoded with every length checked against what holds it; what is sent is encoded. Sockets and
states are in `association`.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from edgecxr.errors import EdgeCxrError

__all__ = [
    "APPLICATION_CONTEXT",
    "HEADER",
    "IMPLEMENTATION_UID",
    "IMPLEMENTATION_VERSION",
    "AbortReason",
    "Answer",
    "AssociateRequest",
    "PduError",
    "PduType",
    "ProposedContext",
    "Rejection",
    "Verdict",
    "decode_associate",
    "encode_abort",
    "encode_accept",
    "encode_data",
    "encode_reject",
    "encode_release_reply",
    "printable",
]

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
IMPLEMENTATION_UID = "2.25.122740381489512502513315460309918264385"
IMPLEMENTATION_VERSION = "EDGECXR"  # without a release number: a file received twice is the same file after an update
HEADER = struct.Struct(">BxL")  # type, length of what follows (PS3.8 9.3.1)

_ITEM = struct.Struct(">BxH")
_FIXED = 68  # bytes of an A-ASSOCIATE body before its items: version, titles, reserved
_TITLES = slice(4, 36)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class PduType(IntEnum):
    """PS3.8 9.3.1."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class Rejection(Enum):
    """Why an association is not accepted: result (1 permanent, 2 transient), source and reason (PS3.8 table 9-21)."""

    APPLICATION_CONTEXT = (1, 1, 2)
    CALLING_AE = (1, 1, 3)
    CALLED_AE = (1, 1, 7)
    PROTOCOL_VERSION = (1, 2, 2)
    CONGESTION = (2, 3, 1)
    LOCAL_LIMIT = (2, 3, 2)


class Verdict(IntEnum):
    """What becomes of one presentation context (PS3.8 table 9-18)."""

    ACCEPTED = 0
    USER_REJECTED = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX = 3
    TRANSFER_SYNTAXES = 4


class PduError(EdgeCxrError):
    """A peer sent what PS3.8 does not allow; `reason` goes into the A-ABORT."""

    def __init__(self, message: str, reason: AbortReason = AbortReason.INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ProposedContext:
    """One presentation context of a request."""

    number: int  # odd, 1 to 255
    abstract: str
    transfers: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What becomes of a proposed context; `transfer` says nothing unless it was accepted."""

    number: int
    verdict: Verdict
    transfer: str


@dataclass(frozen=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ. Titles are stripped, and what is not printable ASCII in them reads as ``?``."""

    version: int  # bit 0: version 1 of the protocol
    called: str
    calling: str
    titles: bytes  # both as sent, 32 bytes: the answer repeats them
    application: str = ""
    contexts: tuple[ProposedContext, ...] = ()
    max_pdu: int = 0  # bytes; 0 is no limit
    implementation_uid: str = ""
    implementation_version: str = ""
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)  # abstract syntax -> (SCU, SCP) proposed


def decode_associate(body: bytes) -> AssociateRequest:
    """An A-ASSOCIATE-RQ without its six bytes of header (PS3.8 9.3.2). Unknown items are passed over.

    Raises PduError.
    """
    if len(body) < _FIXED:
        raise PduError(f"an A-ASSOCIATE-RQ of {len(body)} bytes; it has at least {_FIXED}")
    application, contexts, user = "", [], b""
    for kind, value in _items(body[_FIXED:]):
        if kind == 0x10:
            application = printable(value)
        elif kind == 0x20:
            contexts.append(_context(value))
        elif kind == 0x50:
            user = value
    numbers = [context.number for context in contexts]
    if len(set(numbers)) != len(numbers):
        raise PduError("two presentation contexts have the same number")
    titles = body[_TITLES]
    return AssociateRequest(
        version=int.from_bytes(body[:2], "big"),
        called=printable(titles[:16]),
        calling=printable(titles[16:]),
        titles=titles,
        application=application,
        contexts=tuple(contexts),
        **_user_information(user),
    )


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            raise PduError(f"{len(data) - position} bytes are left where an item of at least 4 belongs")
        kind, length = _ITEM.unpack_from(data, position)
        value = data[position + 4 : position + 4 + length]
        if len(value) != length:
            raise PduError(f"item {kind:#04x} declares {length} bytes; {len(value)} are left")
        yield kind, value
        position += 4 + length


def _context(value: bytes) -> ProposedContext:
    if len(value) < 4:
        raise PduError(f"a presentation context of {len(value)} bytes; it has at least 4")
    abstract, transfers = "", []
    for kind, name in _items(value[4:]):
        if kind == 0x30:
            abstract = printable(name)
        elif kind == 0x40:
            transfers.append(printable(name))
    return ProposedContext(value[0], abstract, tuple(transfers))


def _user_information(value: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"roles": {}}
    for kind, content in _items(value):
        if kind == 0x51:
            if len(content) != 4:
                raise PduError(f"a maximum length of {len(content)} bytes; it has 4")
            found["max_pdu"] = int.from_bytes(content, "big")
        elif kind == 0x52:
            found["implementation_uid"] = printable(content)
        elif kind == 0x54:
            name, user, provider = _role(content)
            found["roles"][name] = (bool(user), bool(provider))
        elif kind == 0x55:
            found["implementation_version"] = printable(content)
    return found


def _role(content: bytes) -> tuple[str, int, int]:
    length = int.from_bytes(content[:2], "big")
    if len(content) != length + 4:
        raise PduError(f"a role selection of {len(content)} bytes, whose UID takes {length}")
    return printable(content[2 : 2 + length]), content[-2], content[-1]


def printable(raw: bytes) -> str:
    """Text of a peer, fit for a log or a file: stripped, anything but printable ASCII read as ``?``."""
    return _UNPRINTABLE.sub("?", raw.decode("latin-1").strip(" \0"))


def encode_accept(request: AssociateRequest, answers: Sequence[Answer], max_pdu: int) -> bytes:
    """An A-ASSOCIATE-AC (PS3.8 9.3.3): titles as they came, roles answered for accepted classes (SCU of theirs only).

    No asynchronous operations window is answered, which means one operation at a time (PS3.7 D.3.3.3); neither is a
    user identity.
    """
    accepted = {answer.number for answer in answers if answer.verdict is Verdict.ACCEPTED}
    classes = {context.abstract for context in request.contexts if context.number in accepted}
    user = _item(0x51, struct.pack(">L", max_pdu)) + _item(0x52, IMPLEMENTATION_UID.encode())
    for name in sorted(classes & set(request.roles)):
        user += _item(0x54, struct.pack(">H", len(name)) + name.encode() + bytes((request.roles[name][0], 0)))
    user += _item(0x55, IMPLEMENTATION_VERSION.encode())
    contexts = b"".join(
        _item(0x21, bytes((answer.number, 0, answer.verdict, 0)) + _item(0x40, answer.transfer.encode()))
        for answer in answers
    )
    fixed = struct.pack(">HH", 1, 0) + request.titles + bytes(32)
    body = fixed + _item(0x10, APPLICATION_CONTEXT.encode()) + contexts + _item(0x50, user)
    return HEADER.pack(PduType.ASSOCIATE_AC, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def encode_reject(rejection: Rejection) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return HEADER.pack(PduType.ASSOCIATE_RJ, 4) + bytes((0, *rejection.value))


def encode_release_reply() -> bytes:
    """An A-RELEASE-RP (PS3.8 9.3.7)."""
    return HEADER.pack(PduType.RELEASE_RP, 4) + bytes(4)


def encode_abort(reason: AbortReason | None = None) -> bytes:
    """An A-ABORT (PS3.8 9.3.8): by the service provider for `reason`, by us as its user without one."""
    source = (0, 0) if reason is None else (2, reason)
    return HEADER.pack(PduType.ABORT, 4) + bytes((0, 0, *source))


def encode_data(context: int, message: bytes, max_pdu: int, *, command: bool) -> bytes:
    """One command or data set as P-DATA-TF PDUs, one PDV in each (PS3.8 9.3.5, annex E), none above `max_pdu` bytes.

    `max_pdu` is the peer's: 0 is no limit.
    """
    step = max(2, (max_pdu - 6) & ~1) if max_pdu else max(1, len(message))
    pdus = bytearray()
    for start in range(0, len(message), step):
        fragment = message[start : start + step]
        control = command | (start + step >= len(message)) << 1
        pdus += HEADER.pack(PduType.DATA, len(fragment) + 6)
        pdus += struct.pack(">LBB", len(fragment) + 2, context, control) + fragment
    return bytes(pdus)

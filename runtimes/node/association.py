"""One association as its acceptor (PS3.8 7 and 9): bytes from a socket, negotiation, fragments in, messages out.

Nothing here allocates what a peer declares: a request is gathered as it arrives, below a limit, and data passes
through one buffer of fixed size. Every wait has a deadline.
"""

import contextlib
import math
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from edgecxr.errors import EdgeCxrError
from edgecxr.runtimes.node.pdu import (
    APPLICATION_CONTEXT,
    HEADER,
    AbortReason,
    Answer,
    AssociateRequest,
    PduError,
    PduType,
    ProposedContext,
    Rejection,
    Verdict,
    decode_associate,
    encode_data,
)

__all__ = ["Association", "Closed", "Fragment", "Terms", "Wire", "negotiate", "objection", "read_request"]

MOST_REQUEST = 1 << 18  # bytes of an A-ASSOCIATE-RQ; 128 contexts of 16 syntaxes take 60 KB
SLOWEST = 4096  # bytes a second; whoever sends an object slower than this is taken for stuck
SMALL, LARGE = 1 << 12, 1 << 18  # bytes of the buffer: before, and on an association
LINGER_S, LINGER_BYTES = 2.0, 1 << 24  # how long, and for how much, the last word waits to be read by the peer


class Closed(EdgeCxrError):
    """The connection is over without a release: the peer closed or aborted it, or we were asked to end it."""


@dataclass(frozen=True)
class Fragment:
    """A piece of a command or of a data set. `data` is valid until the next piece is asked for."""

    context: int
    command: bool
    last: bool  # of its command or data set
    data: memoryview


class Wire:
    """A socket and one buffer, read by one thread. Every read ends by a deadline with TimeoutError."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._interrupted = False
        self._buffer = memoryview(bytearray(SMALL))
        self._start = self._end = 0
        self._received = 0
        self.pace(math.inf, 0)

    def pace(self, silence_s: float, slowest: int = SLOWEST) -> None:
        """From now on: never `silence_s` without a byte, nor slower than `slowest` bytes/s. 0: all in `silence_s`."""
        self._silence_s = silence_s
        self._since = time.monotonic()
        self._before = self._received
        self._seconds_a_byte = 1 / slowest if slowest else 0.0

    def secure(self, context: ssl.SSLContext) -> None:
        """Begin to speak TLS, as the server, inside the time that `pace` gives. Raises ssl.SSLError, OSError."""
        self._sock = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        self._sock.settimeout(self._left())
        self._sock.do_handshake()

    def wake(self) -> None:
        """From another thread: let a read that waits end with Closed, as if the peer had closed."""
        with contextlib.suppress(OSError):  # not SSLSocket.shutdown, which takes the encryption from under the reader
            socket.socket.shutdown(self._sock, socket.SHUT_RD)

    def interrupt(self) -> None:
        """From another thread: let the next read end with Closed, even if bytes keep coming."""
        self._interrupted = True
        self.wake()

    def enlarge(self) -> None:
        """Take the large buffer, for an association that was accepted."""
        larger = memoryview(bytearray(LARGE))
        waiting = self._end - self._start
        larger[:waiting] = self._buffer[self._start : self._end]
        self._buffer, self._start, self._end = larger, 0, waiting

    def wait(self) -> None:
        """Until a byte is there to be read."""
        if self._start == self._end:
            self._fill()

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        data = bytearray()
        for chunk in self.stream(count):
            data += chunk
        return bytes(data)

    def stream(self, count: int) -> Iterator[memoryview]:
        """Exactly `count` bytes in pieces as they arrive; a piece is valid until the next one is asked for."""
        while count:
            self.wait()
            stop = min(self._end, self._start + count)
            piece = self._buffer[self._start : stop]
            self._start = stop
            count -= len(piece)
            yield piece

    def _left(self) -> float | None:
        """Seconds until the next byte is due; None for ever. Raises TimeoutError."""
        due = self._since + self._silence_s + (self._received - self._before) * self._seconds_a_byte
        left = min(self._silence_s, due - time.monotonic())
        if left <= 0:
            raise TimeoutError("the peer is too slow")
        return None if math.isinf(left) else left

    def _fill(self) -> None:
        self._sock.settimeout(self._left())
        got = 0 if self._interrupted else self._sock.recv_into(self._buffer)
        if not got:
            raise Closed("the peer closed the connection")
        self._start, self._end = 0, got
        self._received += got

    def send(self, data: bytes, timeout_s: float) -> None:
        """All of `data`, in one call."""
        self._sock.settimeout(timeout_s)
        self._sock.sendall(data)

    def hang_up(self, last_word: bytes = b"") -> None:
        """Send `last_word`, wait shortly for the peer to close, and close. Never raises OSError.

        Closing while received bytes are unread would reset the connection, and the peer would miss the last word.
        """
        with contextlib.suppress(OSError, Closed):
            if last_word:
                self.send(last_word, LINGER_S)
                if isinstance(self._sock, ssl.SSLSocket):
                    self._sock.settimeout(LINGER_S)
                    self._sock.unwrap()
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
                self.pace(LINGER_S, 0)
                self._interrupted = False
                for _ in self.stream(LINGER_BYTES):
                    pass
        self._sock.close()


def read_request(wire: Wire) -> AssociateRequest:
    """The A-ASSOCIATE-RQ that opens every association. Raises PduError, Closed, OSError."""
    kind, length = HEADER.unpack(wire.read(HEADER.size))
    if kind != PduType.ASSOCIATE_RQ:
        known = kind in set(PduType)
        reason = AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNIZED_PDU
        raise PduError(f"PDU type {kind:#04x} where an A-ASSOCIATE-RQ belongs", reason)
    if length > MOST_REQUEST:
        raise PduError(f"an A-ASSOCIATE-RQ of {length:,} bytes is declared; {MOST_REQUEST:,} are taken")
    return decode_associate(wire.read(length))


def objection(request: AssociateRequest) -> Rejection | None:
    """What PS3.8 itself has against a request, whoever sent it."""
    if not request.version & 1:
        return Rejection.PROTOCOL_VERSION
    return None if request.application == APPLICATION_CONTEXT else Rejection.APPLICATION_CONTEXT


def negotiate(request: AssociateRequest, offered: Mapping[str, Collection[str]]) -> list[Answer]:
    """An answer to each proposed context. `offered`: abstract syntax -> transfer syntaxes.

    Of several syntaxes in one context the first that we read is taken: what a peer names first is what it has. dcmtk's
    ``storescu +C -xv``, for one, names Explicit VR behind JPEG 2000, and cannot convert.
    """
    return [_answer(context, request, offered) for context in request.contexts]


def _answer(context: ProposedContext, request: AssociateRequest, offered: Mapping[str, Collection[str]]) -> Answer:
    first = context.transfers[0] if context.transfers else ""
    if context.abstract not in offered:
        return Answer(context.number, Verdict.ABSTRACT_SYNTAX, first)
    if not request.roles.get(context.abstract, (True, False))[0]:  # the peer wants to be provider only
        return Answer(context.number, Verdict.USER_REJECTED, first)
    for transfer in context.transfers:
        if transfer in offered[context.abstract]:
            return Answer(context.number, Verdict.ACCEPTED, transfer)
    return Answer(context.number, Verdict.TRANSFER_SYNTAXES, first)


@dataclass(frozen=True)
class Terms:
    """What holds on one association."""

    max_pdu: int  # most bytes of a P-DATA-TF PDU that we take
    peer_max_pdu: int  # that the peer takes; 0 is any
    idle_timeout_s: float  # longest silence between messages
    transfer_timeout_s: float  # longest silence inside one


class Association:
    """An accepted association: fragments of messages in, whole messages out."""

    def __init__(self, wire: Wire, terms: Terms, contexts: Collection[int], rest: Callable[[bool], None]) -> None:
        """`rest` is called with True when the wait for a message begins, and with False when one is coming.

        It may raise Closed to end the association there.
        """
        self.wire = wire
        self.terms = terms
        self.contexts = frozenset(contexts)
        self.inside = False  # of a message: whoever puts them together says so
        self._rest = rest
        wire.enlarge()

    def fragments(self) -> Iterator[Fragment]:
        """What the peer sends, piece by piece, until it releases the association.

        Raises PduError (what PS3.8 does not allow), Closed (aborted or closed), TimeoutError, OSError.
        """
        while True:
            if not self.inside:
                self._await_message()
            kind, length = HEADER.unpack(self.wire.read(HEADER.size))
            if kind == PduType.DATA:
                yield from self._values(length)
            elif kind == PduType.RELEASE_RQ:
                return
            elif kind == PduType.ABORT:
                raise Closed("the peer aborted the association")
            elif kind in set(PduType):
                raise PduError(f"PDU type {kind:#04x} on an open association", AbortReason.UNEXPECTED_PDU)
            else:
                raise PduError(f"there is no PDU type {kind:#04x}", AbortReason.UNRECOGNIZED_PDU)

    def _await_message(self) -> None:
        self._rest(True)
        self.wire.pace(self.terms.idle_timeout_s, 0)
        self.wire.wait()
        self._rest(False)
        self.wire.pace(self.terms.transfer_timeout_s)

    def _values(self, length: int) -> Iterator[Fragment]:
        """The presentation data values of one P-DATA-TF PDU."""
        if not HEADER.size <= length <= self.terms.max_pdu + HEADER.size:  # some senders count the header, some do not
            raise PduError(f"a P-DATA-TF of {length:,} bytes is declared; 6 to {self.terms.max_pdu:,} are taken")
        while length:
            if length < HEADER.size:
                raise PduError(f"{length} bytes are left in a P-DATA-TF where a data value of at least 6 belongs")
            head = self.wire.read(HEADER.size)
            size, context, control = int.from_bytes(head[:4], "big"), head[4], head[5]
            length -= size + 4
            if size < 2 or length < 0:
                raise PduError(f"a data value of {size:,} bytes does not fit its P-DATA-TF")
            if context not in self.contexts:
                raise PduError(f"data on presentation context {context}, which was not accepted")
            yield from self._pieces(size - 2, context, control)

    def _pieces(self, left: int, context: int, control: int) -> Iterator[Fragment]:
        command, last = bool(control & 1), bool(control & 2)
        if not left:
            yield Fragment(context, command, last, memoryview(b""))
        for piece in self.wire.stream(left):
            left -= len(piece)
            yield Fragment(context, command, last and not left, piece)

    def send(self, context: int, message: bytes) -> None:
        """One command, in one call of the socket."""
        pdus = encode_data(context, message, self.terms.peer_max_pdu, command=True)
        self.wire.send(pdus, self.terms.transfer_timeout_s)

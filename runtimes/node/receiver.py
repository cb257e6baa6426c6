"""The DICOM receiver of the node: a listening socket, a thread for each connection, and what they have in common.

A connection lives through TLS where configured, an A-ASSOCIATE-RQ within the ARTIM time, messages, release or abort.
Whatever goes wrong in one ends that one. The log tells titles, addresses, statuses, sizes and syntaxes; never what is
in a data set.
"""

import contextlib
import errno
import logging
import socket
import threading
import time
from collections import Counter

from edgecxr.errors import ConfigError
from edgecxr.runtimes.node.association import Association, Closed, Terms, Wire, negotiate, objection, read_request
from edgecxr.runtimes.node.commitment import PUSH_MODEL, Commitment
from edgecxr.runtimes.node.commitment import SYNTAXES as COMMITMENT_SYNTAXES
from edgecxr.runtimes.node.config import DicomSection, PeerSection
from edgecxr.runtimes.node.dimse import (
    Command,
    Context,
    Dialogue,
    Drain,
    Exchange,
    Operation,
    Reply,
    Sink,
    Status,
    Tag,
    named,
)
from edgecxr.runtimes.node.pdu import (
    AbortReason,
    AssociateRequest,
    PduError,
    Rejection,
    Verdict,
    encode_abort,
    encode_accept,
    encode_reject,
    encode_release_reply,
)
from edgecxr.runtimes.node.peers import AllowList, Connection, Table, tls_context, unmapped
from edgecxr.runtimes.node.spool import Spool
from edgecxr.runtimes.node.storage import CLASSES, EXPLICIT, IMPLICIT, SYNTAXES, Caller, Storage

__all__ = ["Receiver"]

VERIFICATION = "1.2.840.10008.1.1"
OFFERED = {
    VERIFICATION: (EXPLICIT, IMPLICIT),
    PUSH_MODEL: COMMITMENT_SYNTAXES,
    **dict.fromkeys(CLASSES, SYNTAXES),
}
COUNTED = (
    "connections",  # TCP connections that were accepted
    "refused_connections",  # closed at once: every other one was an association with something under way
    "evicted",  # ended to make room for others
    "associations",  # accepted
    "rejected",  # answered with A-ASSOCIATE-RJ
    "aborted",  # associations that the peer ended without a release
    "closed",  # connections that ended without an association
    "timeouts",
    "protocol_errors",
    "faults",  # of our own
    "echoes",
    "stored",  # C-STOREs answered with success
    "stored_bytes",
    "refused_full",  # A7xx
    "refused",  # any other failure status
    "commitments",  # requests accepted
)
REJECTED = {
    Rejection.APPLICATION_CONTEXT: "another application context than that of DICOM",
    Rejection.CALLING_AE: "the calling AE title, or the address that it calls from, is not among dicom.peers",
    Rejection.CALLED_AE: "it calls another AE title than ours (dicom.ae)",
    Rejection.PROTOCOL_VERSION: "another protocol version",
    Rejection.CONGESTION: "too much to do",
    Rejection.LOCAL_LIMIT: "too many associations, of this peer or of all",
}
ACCEPT_S, TIDY_S = 0.5, 5.0  # how often the listening thread looks up; how long ended connections may take to close

logger = logging.getLogger(__name__)


class Receiver:
    """Listens from `start` to `stop`. Raises ConfigError where certificates or the address cannot be used."""

    def __init__(self, spool: Spool, config: DicomSection) -> None:
        self.config = config
        self.port = config.port  # the one in use, once started
        self._allowed = AllowList(config.peers)
        self._table = Table(config)
        self._storage, self._commitment = Storage(spool), Commitment(spool)
        self._door = spool.door
        self._tls = None if config.tls is None else tls_context(config.tls, "dicom.tls")
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen. Raises ConfigError where the address is not ours or in use."""
        host, port = self.config.host, self.config.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=host == "::")
        except OSError as error:
            raise ConfigError(f"dicom: cannot listen on {host} port {port}: {error.strerror or error}") from error
        listener.settimeout(ACCEPT_S)
        self.port = listener.getsockname()[1]
        self._stopping.clear()
        self._listener = listener
        self._thread = threading.Thread(target=self._listen, args=(listener,), name="dicom-listener", daemon=True)
        self._thread.start()
        logger.info("listening for DICOM", extra={"ae": self.config.ae, "host": host, "port": self.port})

    def stop(self, grace_s: float = 10.0) -> None:
        """Take no more connections, let what is under way finish for up to `grace_s`, then abort the rest."""
        if self._listener is None or self._thread is None:
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._table.each():
            connection.end("the receiver stops")
        self._wait_for_the_last(grace_s)
        for connection in self._table.each():
            connection.cut("the receiver stops")
        self._wait_for_the_last(TIDY_S)
        self._listener = self._thread = None

    def statistics(self) -> dict[str, int]:
        """Counts since the start (see `COUNTED`), and `connections_open` and `associations_open` now."""
        connections, associations = self._table.open_now()
        with self._lock:
            counts = dict(self._counts)
        gauges = {"connections_open": connections, "associations_open": associations}
        return {**counts, "evicted": self._table.evicted, **gauges}

    def __enter__(self) -> "Receiver":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_for_the_last(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._table.each() and time.monotonic() < until:
            time.sleep(0.02)

    def _count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number

    def _listen(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                sock, address = listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if not self._stopping.is_set():
                    self._hold_off(error)
                continue
            self._admit(sock, unmapped(str(address[0])))

    def _hold_off(self, error: OSError) -> None:
        """The system has no more sockets: the silent make room, and the next try waits a little."""
        logger.warning("no connection could be accepted", extra={"reason": errno.errorcode.get(error.errno or 0, "")})
        self._table.shed()
        self._stopping.wait(0.1)

    def _admit(self, sock: socket.socket, address: str) -> None:
        self._count("connections")
        connection = Connection(Wire(sock), address)
        if not self._table.open(connection):
            self._count("refused_connections")
            logger.warning("no room for a connection", extra={"address": address})
            self._door.note("", address, "closed", "no room for another connection")
            connection.wire.hang_up()
            return
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            threading.Thread(target=self._serve, args=(connection,), name=f"dicom-{address}", daemon=True).start()
        except (OSError, RuntimeError):  # closed already; no more threads
            self._table.close(connection)
            connection.wire.hang_up()

    def _serve(self, connection: Connection) -> None:
        """The life of one connection; nothing leaves it but counts and log lines."""
        try:
            self._converse(connection)
        except Closed as error:
            self._count("aborted" if connection.peer and not connection.ending else "closed")
            self._tell(logging.INFO, "a connection ended", connection, connection.ending or str(error))
            if connection.peer and connection.ending:
                self._abort(connection)
        except PduError as error:
            self._count("protocol_errors")
            self._tell(logging.WARNING, "a peer broke the protocol", connection, str(error))
            self._door.note(connection.ae, connection.address, "aborted", str(error))
            self._abort(connection, error.reason)
        except TimeoutError as error:
            self._count("timeouts")
            self._tell(logging.WARNING, "a peer fell silent", connection, str(error))
            if connection.peer and connection.resting_since is None:  # in the middle of a message
                self._door.note(connection.ae, connection.address, "aborted", "the peer fell silent half-way")
            if connection.peer:
                self._abort(connection)
        except OSError as error:
            self._count("aborted" if connection.peer else "closed")
            self._tell(logging.INFO, "a connection failed", connection, type(error).__name__)
        except Exception:  # the boundary: one association never harms another
            self._count("faults")
            logger.exception("a fault in an association", extra={"address": connection.address})
            self._abort(connection)
        finally:
            connection.wire.hang_up()
            self._table.close(connection)

    def _abort(self, connection: Connection, reason: AbortReason | None = None) -> None:
        connection.leave()
        connection.wire.hang_up(encode_abort(reason))

    def _tell(self, level: int, event: str, connection: Connection, reason: str) -> None:
        logger.log(level, event, extra={"ae": connection.ae, "address": connection.address, "reason": reason})

    def _converse(self, connection: Connection) -> None:
        wire = connection.wire
        wire.pace(self.config.request_timeout_s, 0)
        if self._tls is not None:
            wire.secure(self._tls)
        request = read_request(wire)
        connection.ae = request.calling
        peer = self._allowed.find(request.calling, connection.address)
        rejection = self._objection(request, peer)
        if rejection is None and not self._table.associate(connection, (request.calling, connection.address)):
            rejection = Rejection.LOCAL_LIMIT
        if rejection is not None or peer is None:
            self._reject(connection, request, rejection or Rejection.CALLING_AE)
            return
        caller = Caller(request.calling, connection.address, peer.priority, peer.port)
        self._associate(connection, request, caller)

    def _objection(self, request: AssociateRequest, peer: PeerSection | None) -> Rejection | None:
        if self.config.check_called_ae and request.called != self.config.ae.strip():
            return objection(request) or Rejection.CALLED_AE
        return objection(request) or (Rejection.CALLING_AE if peer is None else None)

    def _reject(self, connection: Connection, request: AssociateRequest, rejection: Rejection) -> None:
        self._count("rejected")
        told = {"ae": request.calling, "called": request.called, "address": connection.address}
        logger.warning("an association was rejected", extra={**told, "reason": rejection.name.lower()})
        self._door.note(request.calling, connection.address, "rejected", REJECTED[rejection])
        connection.wire.hang_up(encode_reject(rejection))

    def _associate(self, connection: Connection, request: AssociateRequest, caller: Caller) -> None:
        answers = negotiate(request, OFFERED)
        abstracts = {context.number: context.abstract for context in request.contexts}
        contexts = {
            answer.number: Context(answer.number, abstracts[answer.number], answer.transfer)
            for answer in answers
            if answer.verdict is Verdict.ACCEPTED
        }
        config = self.config
        terms = Terms(config.max_pdu, request.max_pdu, config.idle_timeout_s, config.transfer_timeout_s)
        association = Association(connection.wire, terms, contexts, connection.rest)
        self._count("associations")
        told = {"ae": caller.ae, "called": request.called, "address": caller.address}
        told |= {"contexts": f"{len(contexts)} of {len(answers)}", "peer_version": request.implementation_version}
        logger.info("an association was accepted", extra=told)
        if not contexts:
            self._door.note(caller.ae, caller.address, "accepted in vain", "nothing that it proposed is taken here")
        connection.wire.send(encode_accept(request, answers, config.max_pdu), config.transfer_timeout_s)

        def service(command: Command, context: Context) -> Sink:
            return self._open(command, context, caller)

        dialogue = Dialogue(association, contexts, service, lambda exchange: self._observe(exchange, caller))
        try:
            dialogue.run()
        finally:
            dialogue.discard()
        connection.leave()
        connection.wire.hang_up(encode_release_reply())

    def _open(self, command: Command, context: Context, caller: Caller) -> Sink:
        """The service that a command asks for."""
        operation = command.required(Tag.FIELD)
        if operation == Operation.ECHO:
            return Drain(Reply(Status.SUCCESS))
        if operation == Operation.STORE and context.abstract in CLASSES:
            return self._storage.open(command, context, caller)
        if operation == Operation.ACTION:
            return self._commitment.open(command, context, caller)
        return Drain(Reply(Status.UNRECOGNIZED, "the operation is not one of this presentation context"))

    def _observe(self, exchange: Exchange, caller: Caller) -> None:
        operation, status = exchange.command.required(Tag.FIELD), exchange.reply.status
        if status is not Status.SUCCESS:
            self._count("refused_full" if status is Status.OUT_OF_RESOURCES else "refused")
        elif operation == Operation.STORE:
            self._count("stored")
            self._count("stored_bytes", exchange.size)
        else:
            self._count("echoes" if operation == Operation.ECHO else "commitments")
        told: dict[str, object] = {"ae": caller.ae, "address": caller.address, "operation": named(operation)}
        told |= {"status": f"0x{status:04X}", "bytes": exchange.size, "syntax": exchange.context.transfer}
        if exchange.reply.comment:
            told["reason"] = exchange.reply.comment
        if status is not Status.SUCCESS:
            answer = f"{named(operation)} 0x{status:04X}"
            self._door.note(caller.ae, caller.address, answer, exchange.reply.comment)
        level = logging.INFO if status is Status.SUCCESS else logging.WARNING
        logger.log(level, "an operation was answered", extra={**told, **exchange.reply.note})

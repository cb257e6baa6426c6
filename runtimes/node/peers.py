"""Who may call, and how many at a time: the allow-list, certificates, and the table of open connections.

When the table is full of the silent, they make room: a half-open Wi-Fi link or a port scanner never keeps a modality
out. A connection without association goes first, the oldest of the address that has most of them; then an association
on which nothing is under way, the longest silent first.
"""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence

from edgecxr.errors import ConfigError
from edgecxr.runtimes.node.association import Closed, Wire
from edgecxr.runtimes.node.config import DicomSection, PeerSection, TlsSection

__all__ = ["AllowList", "Connection", "Table", "tls_context", "unmapped"]

ANYONE = PeerSection(ae="ANYONE")
LEAVING = 16  # connections that were ended and are still on their way out, beside those that are allowed
LEAVING_S = 1.0  # that long a new connection waits for one of them to leave
SPARED_S = 1.0  # an association that rested for less than this is not ended to make room


class AllowList:
    """The configured peers; empty means anyone."""

    def __init__(self, peers: Sequence[PeerSection]) -> None:
        self._peers = tuple(peers)

    def find(self, calling: str, address: str) -> PeerSection | None:
        """Who calls by that AE title from that address; None when nobody may."""
        if not self._peers:
            return ANYONE
        named = (peer for peer in self._peers if peer.ae.strip() == calling)
        return next((peer for peer in named if _calls_from(peer.host, address)), None)


def _calls_from(host: str | None, address: str) -> bool:
    if host is None:
        return True
    caller = _plain(address)
    try:
        return caller in ipaddress.ip_network(host, strict=False)
    except ValueError:
        return any(caller == _plain(found) for found in _addresses(host))


def unmapped(address: str) -> str:
    """The address, as IPv4 where it is one in IPv6's clothes (RFC 4291 2.5.5.2)."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return address if mapped is None else str(mapped)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its zone."""
    return ipaddress.ip_address(unmapped(address).split("%")[0])


def _addresses(host: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


class Connection:
    """One open connection: what the rest of the receiver may know of it, and do to it."""

    def __init__(self, wire: Wire, address: str) -> None:
        self.wire = wire
        self.address = address
        self.ae = ""  # for the log, once it said so
        self.opened = time.monotonic()
        self.peer: tuple[str, str] | None = None  # (calling AE title, address) once associated
        self.resting_since: float | None = None  # associated, and nothing under way
        self.used = False  # at least one message has begun
        self.ending = ""  # why it is to end at the next rest

    def rest(self, resting: bool) -> None:
        """Called by the connection's own thread between messages. Raises Closed when the connection is to end."""
        self.used = self.used or (not resting and self.peer is not None)
        self.resting_since = time.monotonic() if resting else None
        if resting and self.ending:
            raise Closed(self.ending)

    def leave(self) -> None:
        """It is no association any more; only the last word is still to be read by the peer."""
        self.peer = self.resting_since = None

    def end(self, reason: str) -> None:
        """End it when nothing is under way: now, or at its next rest."""
        self.ending = self.ending or reason
        if self.peer is None or self.resting_since is not None:
            self.wire.wake()

    def cut(self, reason: str) -> None:
        """End it now, whatever is under way."""
        self.ending = self.ending or reason
        self.wire.interrupt()


class Table:
    """The open connections, bounded: all of them, associations, and associations of one peer and of one address."""

    def __init__(self, config: DicomSection) -> None:
        self._config = config
        # an address may call itself by any title: it never holds every place, unless the limits say that it may
        self._most_of_an_address = max(config.max_associations // 2, config.max_associations_per_peer)
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._all: list[Connection] = []  # oldest first
        self.evicted = 0

    def open(self, connection: Connection) -> bool:
        """Add a connection, ending another where that is needed; False when there is no room for it.

        While `LEAVING` that were ended have not left yet, it waits for them: who comes faster waits in the backlog.
        """
        with self._lock:
            most = self._config.max_connections + LEAVING - 1
            if not self._left.wait_for(lambda: len(self._all) <= most, LEAVING_S):
                return False
            living = self._living()
            if len(living) >= self._config.max_connections and not self._make_room(_strangers(living)):
                return False
            self._all.append(connection)
            return True

    def associate(self, connection: Connection, peer: tuple[str, str]) -> bool:
        """Count a connection as association of `peer`, ending another where that is needed; False without room."""
        with self._lock:
            associated = [other for other in self._living() if other.peer is not None]
            its = [other for other in associated if other.peer == peer]
            if len(its) >= self._config.max_associations_per_peer and not self._make_room(_resting(its)):
                return False
            near = [other for other in associated if other.address == connection.address and not other.ending]
            if len(near) >= self._most_of_an_address and not self._make_room(_resting(near)):
                return False
            associated = [other for other in associated if not other.ending]
            if len(associated) >= self._config.max_associations and not self._make_room(_resting(associated)):
                return False
            connection.peer = peer
            return True

    def close(self, connection: Connection) -> None:
        """Forget a connection."""
        with self._lock, contextlib.suppress(ValueError):
            self._all.remove(connection)
            self._left.notify_all()

    def shed(self) -> None:
        """End one connection without association, if there is one."""
        with self._lock:
            self._make_room(_strangers(self._living()))

    def open_now(self) -> tuple[int, int]:
        """Open connections, and how many of them are associations."""
        with self._lock:
            return len(self._all), sum(connection.peer is not None for connection in self._all)

    def each(self) -> list[Connection]:
        """The open connections, oldest first."""
        with self._lock:
            return list(self._all)

    def _living(self) -> list[Connection]:
        return [connection for connection in self._all if not connection.ending]

    def _make_room(self, candidates: list[Connection]) -> bool:
        if candidates:
            self.evicted += 1
            candidates[0].end("made room for another peer")
        return bool(candidates)


def _strangers(connections: list[Connection]) -> list[Connection]:
    """Those without association: of the address that has most of them, the oldest first."""
    strangers = [connection for connection in connections if connection.peer is None]
    crowd = Counter(connection.address for connection in strangers)
    return sorted(strangers, key=lambda connection: (-crowd[connection.address], connection.opened))


def _resting(connections: list[Connection]) -> list[Connection]:
    """Associations with nothing under way: those that never were used first, then the longest silent."""
    latest = time.monotonic() - SPARED_S
    resting = [(c.used, c.resting_since, c.opened, c) for c in connections if c.resting_since is not None]
    return [entry[-1] for entry in sorted(resting, key=lambda entry: entry[:3]) if entry[1] <= latest]


def tls_context(section: TlsSection, name: str) -> ssl.SSLContext:
    """TLS 1.2 or newer (BCP 195), with a certificate asked of the peer where an authority is given.

    Raises ConfigError, which calls the section by its `name` in the configuration.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(section.certificate, section.key)
        if section.authority is not None:
            context.load_verify_locations(section.authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        files = ", ".join(str(path) for path in (section.certificate, section.key, section.authority) if path)
        raise ConfigError(f"{name}: {files}: {error.strerror or error}; PEM files are wanted") from error
    return context

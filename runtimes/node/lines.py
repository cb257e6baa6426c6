"""Connections that the node opens: TCP or TLS, bounded in time, and cut together when their owner stops."""

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edgecxr.errors import ConfigError, SendError
from edgecxr.runtimes.node.config import DestinationSection, TlsSection

__all__ = ["Calls", "Peer", "connect", "tls_context", "words"]


@dataclass(frozen=True)
class Peer:
    """A DICOM application that listens somewhere."""

    ae: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, section: DestinationSection) -> "Peer":
        """The peer of a configured destination. Raises ConfigError when its certificates cannot be loaded."""
        secured = tls_context(section.tls) if section.tls else None
        return cls(section.ae, section.host, section.port, secured)

    def __str__(self) -> str:
        return f"{self.ae}@{self.host}:{self.port}"


def tls_context(section: TlsSection) -> ssl.SSLContext:
    """TLS 1.2 or newer (BCP 195) with our certificate.

    With an authority the peer must show a certificate that it signed; host names are not compared, since modalities
    and archives are configured by address. Without one, the peer is not verified. Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if section.authority else ssl.CERT_NONE
    try:
        context.load_cert_chain(section.certificate, section.key)
        if section.authority:
            context.load_verify_locations(section.authority)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(path) for path in (section.certificate, section.key, section.authority) if path)
        raise ConfigError(f"TLS: certificate and key cannot be loaded ({files}): {error}") from error
    return context


class Calls:
    """The connections that one owner has open, so that it can cut them all when it stops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: set[socket.socket] = set()
        self.ended = False

    def end(self) -> None:
        """Cut every connection, also one that is still being made; later ones are refused."""
        with self._lock:
            self.ended = True
            for line in self._lines:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def add(self, line: socket.socket) -> None:
        """Raises SendError when this owner has stopped."""
        with self._lock:
            if self.ended:
                raise SendError("the node is stopping")
            self._lines.add(line)

    def remove(self, line: socket.socket) -> None:
        """Forget a connection that is closed."""
        with self._lock:
            self._lines.discard(line)


def connect(peer: Peer, timeout_s: float, owner: Calls) -> socket.socket:
    """A connection, with TLS where the peer wants it; `owner` may cut it meanwhile. Raises SendError."""
    problem = "the name has no address"
    try:
        addresses = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SendError(f"{peer}: {words(error)}") from error
    for family, kind, protocol, _, address in addresses:
        line = socket.socket(family, kind, protocol)
        try:
            return _dial(line, address, peer, timeout_s, owner)
        except OSError as error:
            problem = words(error)
        except SendError:
            line.close()
            raise
        owner.remove(line)
        line.close()
    raise SendError(f"{peer}: {problem}")


def _dial(line: socket.socket, address: Any, peer: Peer, timeout_s: float, owner: Calls) -> socket.socket:
    owner.add(line)
    line.settimeout(timeout_s)
    line.connect(address)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if peer.tls is None:
        return line
    owner.remove(line)  # wrapping takes the file descriptor away from it
    secured = peer.tls.wrap_socket(line, server_hostname=peer.host, do_handshake_on_connect=False)
    try:
        owner.add(secured)
        secured.do_handshake()
    except (OSError, SendError):
        owner.remove(secured)
        secured.close()
        raise
    return secured


def words(error: BaseException) -> str:
    """An error of the operating system, as it says it."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "Connection refused: nothing listens there; check the address, the port, and whether it runs"
    return str(getattr(error, "strerror", None) or error)

"""The HTTP server: uvicorn in a thread, on loopback, the clinic's network (TLS) or a Unix socket."""

import asyncio
import functools
import logging
import os
import socket
import ssl
import stat
import threading
import time
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgecxr.errors import ConfigError
from edgecxr.runtimes.node.config import HttpSection
from edgecxr.runtimes.node.peers import tls_context

__all__ = ["WebServer"]

START_S = 30.0
REQUEST_S = 15  # from connection, or a request's first byte, to the end of its header; TLS has to fit in
KEEP_ALIVE_S = 30
CONNECTIONS = 512  # that are answered; a few more are told 503, and the rest are hung up on
CONNECTIONS_PER_ADDRESS = 128  # a page holds one or two
SOCKET_MODE = 0o660
logger = logging.getLogger("edgecxr.node")


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on who connects and does not ask, or asks by drips, and on who takes all connections.

    While a request is answered no clock runs here: its handler has its own. Between requests uvicorn's keep-alive runs.
    """

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock, or hang up at once where there are too many connections, in all or from there."""
        super().connection_made(transport)
        if self._is_one_too_many():
            logger.warning("no room for a connection to the page", extra={"address": self.client and self.client[0]})
            transport.abort()
            return
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take bytes; whoever has begun to ask has to go on."""
        super().data_received(data)
        self._judge()

    def on_response_complete(self) -> None:
        """Answered: the rest of a body that nobody wanted must come, or end, in time."""
        super().on_response_complete()
        self._judge()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _judge(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self._rests():
            self._stop_clock()
        else:
            self._await_request()

    def _rests(self) -> bool:
        return self.cycle is not None and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

    def _await_request(self) -> None:
        if self._clock is None and not self.transport.is_closing():
            self._clock = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _is_one_too_many(self) -> bool:
        if len(self.connections) > CONNECTIONS + CONNECTIONS_PER_ADDRESS:
            return True
        if self.client is None:
            return False
        clients = [getattr(other, "client", None) for other in self.connections]
        same = [client for client in clients if client is not None and client[0] == self.client[0]]
        return len(same) > CONNECTIONS_PER_ADDRESS


class TlsProtocol(PromptProtocol):
    """The same over TLS, counted and clocked from the connection on.

    uvicorn's own TLS makes a connection known only when its handshake has ended, and until then nothing limits them.
    """

    def __init__(self, tls: ssl.SSLContext, **told: Any) -> None:
        super().__init__(**told)
        self._tls = tls
        self._early: bytearray | None = bytearray()  # decrypted before HTTP has taken over; None from then on
        self._securing: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        """Count and clock it, then speak TLS."""
        super().connection_made(transport)
        if not transport.is_closing():
            self._securing = self.loop.create_task(self._secure(transport))

    def data_received(self, data: bytes) -> None:
        """Take decrypted bytes; what is not encrypted is no request."""
        if self._early is None:
            super().data_received(data)
        elif self.transport.get_protocol() is self:  # the transport is still that of TCP
            self.transport.abort()
        else:
            self._early += data

    async def _secure(self, transport: asyncio.Transport) -> None:
        reason: OSError | None = None
        try:
            secured = await self.loop.start_tls(
                transport, self, self._tls, server_side=True, ssl_handshake_timeout=REQUEST_S
            )
        except OSError as error:
            secured, reason = None, error
        if secured is None or secured.is_closing() or self not in self.connections:
            transport.abort()
            self.connection_lost(reason)  # asyncio does not tell it of a connection that ends before TLS is spoken
            return
        early, self._early = self._early, None
        H11Protocol.connection_made(self, secured)
        if early:
            self.data_received(bytes(early))


class WebServer:
    """Serves `app` (of `create_app`) as its section of the configuration says. A context manager."""

    def __init__(self, app: FastAPI, section: HttpSection) -> None:
        self._app = app
        self._section = section
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The TCP port it listens on; 0 on a Unix socket. Raises RuntimeError before `start`."""
        if self._socket is None:
            raise RuntimeError("the server has not been started")
        return 0 if self._section.socket is not None else int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Return when it listens. Raises ConfigError when address, socket or certificate cannot be used."""
        http: Any = PromptProtocol
        if self._section.tls is not None:
            http = functools.partial(TlsProtocol, tls_context(self._section.tls, "http.tls"))
        config = uvicorn.Config(
            self._app,
            http=http,
            loop="asyncio",  # and not uvloop where that happens to be installed
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # a search is in the address, and a search is a patient's name
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._socket = _listen(self._section)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="edgecxr-http")
        self._thread.start()
        self._await_start()

    def _await_start(self) -> None:
        limit = time.monotonic() + START_S
        while self._server is not None and not self._server.started:
            if self._thread is None or not self._thread.is_alive() or time.monotonic() > limit:
                self.stop(0)
                raise ConfigError("the HTTP server did not start; the log says why")
            time.sleep(0.01)

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no more requests, end streams and waits, let the rest finish within `grace_s`. Twice does no harm."""
        thread, server, self._thread = self._thread, self._server, None
        if thread is None or server is None:
            return
        self._app.state.changes.close()
        server.should_exit = True
        thread.join(grace_s)
        if thread.is_alive():
            server.force_exit = True
            thread.join()
        if self._socket is not None:
            self._socket.close()
        if self._section.socket is not None:
            self._section.socket.unlink(missing_ok=True)

    def __enter__(self) -> "WebServer":
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()


def _listen(section: HttpSection) -> socket.socket:
    try:
        return _unix(section.socket) if section.socket is not None else _tcp(section.host, section.port)
    except OSError as error:
        where = section.socket or f"{section.host} port {section.port}"
        raise ConfigError(f"http: cannot listen on {where}: {error.strerror or error}; choose another") from error


def _tcp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


def _unix(path: Path) -> socket.socket:
    """A socket that only its owner and group may open; nobody can connect between `bind` and `chmod`."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, SOCKET_MODE)
        listener.listen(CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove the socket that a killed node left behind. Raises OSError when something else is there, or answers."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(0, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise FileExistsError(0, "another server answers there")

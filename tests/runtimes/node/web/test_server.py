"""Connections: how long, how many, and the end of the server."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import write_certificate

ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def secured(serve: Callable[..., Any], tmp_path: Path) -> tuple[int, ssl.SSLContext]:
    """The port of a server that speaks TLS, and what a client needs for it."""
    certificate, key = write_certificate(tmp_path)
    served = serve(tls={"certificate": certificate, "key": key})
    return served.server.port, ssl.create_default_context(cafile=str(certificate))


def is_served(secured: tuple[int, ssl.SSLContext], address: str) -> bool:
    port, client = secured
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0)) as plain,
        client.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(ASK)
        return connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_who_connects_and_does_not_speak_tls_is_cut_off(
    secured: tuple[int, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.server.REQUEST_S", 0.5)
    with socket.create_connection(("127.0.0.1", secured[0]), timeout=10) as silent:
        silent.sendall(first)
        assert hung_up(silent)


def test_the_limit_for_an_address_counts_who_does_not_speak_tls(
    secured: tuple[int, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.server.CONNECTIONS_PER_ADDRESS", 3)
    held = [socket.create_connection(("127.0.0.1", secured[0]), timeout=5) for _ in range(3)]
    assert is_served(secured, "127.0.0.2")
    with socket.create_connection(("127.0.0.1", secured[0]), timeout=5) as one_too_many:
        assert hung_up(one_too_many)
    for connection in held:  # and then there is room again
        connection.close()
    assert is_served(secured, "127.0.0.1")


def test_a_handshake_that_failed_is_counted_no_longer(
    secured: tuple[int, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.server.CONNECTIONS_PER_ADDRESS", 1)
    for first in (ASK, b"\x16\x03\x01\x02\x00\x01"):
        with socket.create_connection(("127.0.0.1", secured[0]), timeout=30) as wrong:
            wrong.sendall(first)
            wrong.shutdown(socket.SHUT_WR)
            while not hung_up(wrong):  # an alert comes before the end
                pass
    assert is_served(secured, "127.0.0.1")


def test_a_request_right_behind_the_handshake_is_answered(secured: tuple[int, ssl.SSLContext]) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = secured[1].wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", secured[0]), timeout=30) as connection:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        client.write(ASK)  # in one piece with the end of the handshake
        connection.sendall(outgoing.read())
        answer = b""
        while not answer:
            incoming.write(connection.recv(65536))
            try:
                answer = client.read(4096)
            except ssl.SSLWantReadError:  # the tickets of a session
                continue
    assert answer.startswith(b"HTTP/1.1 200")


def test_who_connects_and_asks_nothing_is_cut_off(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.server.REQUEST_S", 0.2)
    served = serve()
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert silent.recv(100) == b""
    assert served.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "second",
    [
        b"GET / HTTP/1.1\r\nHost: loc",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
    ],
)
def test_who_asks_well_once_may_not_drip_afterwards(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, second: bytes
) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.server.REQUEST_S", 0.2)
    served = serve()
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as dripping:
        dripping.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert dripping.recv(4096).startswith(b"HTTP/1.1 200")
        dripping.sendall(second)
        while dripping.recv(4096):
            pass


def test_one_address_does_not_take_all_connections(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.server.CONNECTIONS_PER_ADDRESS", 3)
    served = serve()
    place = ("127.0.0.1", served.server.port)
    held = [socket.create_connection(place, timeout=30) for _ in range(3)]
    for number in (2, 3):  # another address of this machine is served all the same
        with socket.create_connection(place, timeout=30, source_address=(f"127.0.0.{number}", 0)) as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert other.recv(4096).startswith(b"HTTP/1.1 200")
    with socket.create_connection(place, timeout=30) as one_too_many:
        assert hung_up(one_too_many)
    for connection in held:
        connection.close()


def hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_stop_twice_and_a_port_in_use(serve: Callable[..., Any]) -> None:
    from edgecxr.errors import ConfigError

    first = serve()
    with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1 port \d+: Address already in use"):
        serve(port=first.server.port)
    first.server.stop()
    first.server.stop()

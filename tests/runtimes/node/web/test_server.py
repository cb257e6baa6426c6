"""Connections: how long, how many, and the end of the server."""

import socket
from collections.abc import Callable
from typing import Any

import pytest


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

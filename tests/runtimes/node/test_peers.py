"""The allow-list, and who makes room for whom."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecxr.errors import ConfigError
from edgecxr.runtimes.node import peers
from edgecxr.runtimes.node.association import Closed, Wire
from edgecxr.runtimes.node.config import DicomSection, PeerSection, TlsSection
from edgecxr.runtimes.node.peers import AllowList, Connection, Table, tls_context


@pytest.mark.parametrize(
    ("host", "address", "may"),
    [
        (None, "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.0/24", "10.1.2.4", True),
        ("10.1.2.7/24", "10.1.3.4", False),
        ("10.1.2.0/24", "::ffff:10.1.2.4", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("10.0.0.0/8", "fe80::1", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "10.0.0.1", False),
        ("no such host.invalid", "127.0.0.1", False),
    ],
)
def test_addresses_and_networks(host: str | None, address: str, may: bool) -> None:
    found = AllowList([PeerSection(ae="CR1", host=host)]).find("CR1", address)
    assert (found is not None) is may


def test_titles_are_compared_exactly_and_the_first_that_fits_is_taken() -> None:
    listed = [PeerSection(ae="CR1", host="10.0.0.1", priority=1), PeerSection(ae="CR1", host="10.0.0.2", priority=2)]
    allowed = AllowList(listed)
    assert allowed.find("CR1", "10.0.0.2") is listed[1]
    assert allowed.find("cr1", "10.0.0.1") is None
    assert allowed.find("", "10.0.0.1") is None


def test_without_a_list_anyone_may() -> None:
    for calling in ("X", "", "A\\B", "?" * 16):
        assert AllowList([]).find(calling, "10.0.0.1") is not None


@pytest.fixture
def connect() -> Iterator[Callable[[str], Connection]]:
    sockets: list[socket.socket] = []

    def make(address: str) -> Connection:
        pair = socket.socketpair()
        sockets.extend(pair)
        return Connection(Wire(pair[0]), address)

    yield make
    for sock in sockets:
        sock.close()


def a_table(connections: int = 4, associations: int = 3, per_peer: int = 2) -> Table:
    return Table(
        DicomSection(max_connections=connections, max_associations=associations, max_associations_per_peer=per_peer)
    )


def ending(connections: list[Connection]) -> list[int]:
    return [number for number, connection in enumerate(connections) if connection.ending]


def test_the_oldest_of_the_most_numerous_strangers_makes_room(connect: Callable[[str], Connection]) -> None:
    table = a_table(connections=4)
    crowd = [connect(address) for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.4")]
    assert all(table.open(connection) for connection in crowd)
    assert ending(crowd) == [1, 2]
    assert table.evicted == 2


def test_nobody_makes_room_while_all_are_busy(connect: Callable[[str], Connection]) -> None:
    table = a_table(connections=4, associations=3, per_peer=3)
    busy = [connect("10.0.0.1") for _ in range(3)]
    for connection in busy:
        assert table.open(connection)
        assert table.associate(connection, ("CR", "10.0.0.1"))
    late = connect("10.0.0.2")
    assert table.open(late)
    assert not table.associate(late, ("DX", "10.0.0.2"))
    assert ending([*busy, late]) == []
    assert table.open_now() == (4, 3)


def test_an_association_that_rests_makes_room(
    connect: Callable[[str], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SPARED_S", 0.0)
    table = a_table(connections=9, associations=3, per_peer=3)
    crowd = [connect("10.0.0.1") for _ in range(3)]
    for connection in crowd:
        assert table.open(connection)
        assert table.associate(connection, ("CR", "10.0.0.1"))
        connection.rest(True)
    crowd[0].rest(False)
    crowd[0].rest(True)
    crowd[1].rest(False)
    late = connect("10.0.0.2")
    assert table.open(late)
    assert table.associate(late, ("DX", "10.0.0.2"))
    assert ending(crowd) == [2]  # 0 was of use once, 1 is at work


def test_one_peer_takes_its_own_room_only(
    connect: Callable[[str], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SPARED_S", 0.0)
    table = a_table(connections=9, associations=8, per_peer=2)
    other, *its = [connect("10.0.0.1") for _ in range(4)]
    for connection, ae in zip([other, *its], ("OTHER", "CR", "CR", "CR"), strict=True):
        assert table.open(connection)
        assert table.associate(connection, (ae, "10.0.0.1"))
        connection.rest(True)
    assert ending([other, *its]) == [1]


def test_an_address_with_many_titles_leaves_places_for_others(connect: Callable[[str], Connection]) -> None:
    """All of them in the middle of a message, so that none can make room."""
    table = a_table(connections=30, associations=8, per_peer=2)
    for number in range(8):
        busy = connect("10.0.0.1")
        assert table.open(busy)
        assert table.associate(busy, (f"AE{number}", "10.0.0.1")) is (number < 4)
    for number in range(4):
        other = connect("10.0.0.2")
        assert table.open(other)
        assert table.associate(other, (f"AE{number}", "10.0.0.2"))


def test_what_has_just_come_to_rest_is_spared(connect: Callable[[str], Connection]) -> None:
    table = a_table(connections=9, associations=5, per_peer=1)
    first, second = connect("10.0.0.1"), connect("10.0.0.1")
    for connection in (first, second):
        assert table.open(connection)
    assert table.associate(first, ("CR", "10.0.0.1"))
    first.rest(True)
    assert not table.associate(second, ("CR", "10.0.0.1"))


def test_an_end_comes_at_the_next_rest_of_who_is_busy(connect: Callable[[str], Connection]) -> None:
    table, connection = a_table(), connect("10.0.0.1")
    assert table.open(connection)
    assert table.associate(connection, ("CR", "10.0.0.1"))
    connection.end("enough")
    with pytest.raises(Closed, match="enough"):
        connection.rest(True)


def test_a_stranger_that_ends_stops_reading(connect: Callable[[str], Connection]) -> None:
    connection = connect("10.0.0.1")
    connection.end("enough")
    with pytest.raises(Closed, match="closed"):
        connection.wire.read(1)


def test_an_ipv4_caller_of_an_ipv6_socket_has_its_ipv4_address() -> None:
    assert peers.unmapped("::ffff:10.1.2.3") == "10.1.2.3"
    assert peers.unmapped("fe80::1%eth0") == "fe80::1%eth0"
    assert peers.unmapped("10.1.2.3") == "10.1.2.3"


def test_associations_leave_room_for_who_is_about_to_associate() -> None:
    with pytest.raises(ValueError, match="max_connections 8 leaves no room beside max_associations 8"):
        DicomSection(max_connections=8, max_associations=8)


def test_what_is_no_certificate_is_said(tmp_path: Path) -> None:
    nothing = tmp_path / "node.pem"
    with pytest.raises(ConfigError, match=r"dicom\.tls.*node.pem.*PEM files are wanted"):
        tls_context(TlsSection(certificate=nothing, key=nothing), "dicom.tls")
    nothing.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"http\.tls.*PEM files are wanted"):
        tls_context(TlsSection(certificate=nothing, key=nothing), "http.tls")

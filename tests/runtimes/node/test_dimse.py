"""Command sets against pydicom, which is the oracle, and messages in every legal and illegal order."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pynetdicom.dsutils import encode

from edgecxr.runtimes.node.dimse import Command, Reply, Status, Tag
from edgecxr.runtimes.node.pdu import PduError

EXPLICIT, DX = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.1.1"
numbers = st.integers(0, 0xFFFF)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, st.integers(1, 99999))
def test_a_command_is_read_as_pydicom_wrote_it(message: int, priority: int, last: int) -> None:
    written = Dataset()
    written.AffectedSOPClassUID, written.AffectedSOPInstanceUID = UID(DX), UID(f"1.2.3.{last}")
    written.CommandField, written.MessageID, written.Priority = 1, message, priority
    written.CommandDataSetType = 0
    data = encode(written, True, True)
    assert data is not None
    command = Command.decode(data)
    assert (command.number(Tag.MESSAGE), command.number(Tag.PRIORITY)) == (message, priority)
    assert (command.text(Tag.AFFECTED_CLASS), command.text(Tag.AFFECTED_INSTANCE)) == (DX, f"1.2.3.{last}")
    assert command.has_data_set
    assert command.number(Tag.ACTION) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(Status)), numbers, st.text("abc 12.é…", max_size=100))
def test_pydicom_reads_a_reply_as_it_was_meant(status: Status, message: int, comment: str) -> None:
    asked = Command({Tag.FIELD: b"\1\0", Tag.MESSAGE: message.to_bytes(2, "little"), Tag.AFFECTED_CLASS: DX.encode()})
    data = Reply(status, comment).encode(asked)
    read = read_dataset(io.BytesIO(data), is_implicit_VR=True, is_little_endian=True)
    assert read.CommandGroupLength == len(data) - 12
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.Status) == (0x8001, message, status)
    assert read.AffectedSOPClassUID == DX
    assert read.CommandDataSetType == 0x0101
    assert len(read.get("ErrorComment", "")) <= 64


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read_and_nothing_else(data: bytes) -> None:
    try:
        Command.decode(data)
    except PduError:
        return


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\0\0", "ends inside an element"),
        (b"\0\0\0\1\xff\xff\xff\xff", "of 4,294,967,295 bytes"),
        (b"\x08\0\0\1\0\0\0\0", "0008,0100"),
        (b"\0\0\0\1\0\0\0\0" * 2, "in a wrong place"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(data: bytes, match: str) -> None:
    with pytest.raises(PduError, match=match):
        Command.decode(data)


def test_a_number_of_another_size_is_no_number() -> None:
    with pytest.raises(PduError, match="has 3 bytes; it has 2"):
        Command({Tag.FIELD: b"\0\0\0"}).required(Tag.FIELD)
    with pytest.raises(PduError, match="without \\(0000,0110\\)"):
        Command({}).required(Tag.MESSAGE)


@pytest.fixture
def storing(listening: Callable[..., Any]) -> Any:
    """A raw peer with a DX context, and the node."""
    node = listening()
    peer = node.peer()
    peer.associate(contexts={DX: (EXPLICIT,)})
    yield peer, node
    peer.sock.close()


def pdata(values: bytes) -> bytes:
    return b"\4\0" + len(values).to_bytes(4, "big") + values


def element(number: int, text: str) -> bytes:
    raw = text.encode() + b"\0" * (len(text) % 2)
    return b"\x08\0" + number.to_bytes(2, "little") + b"UI" + len(raw).to_bytes(2, "little") + raw


DATA_SET = element(0x16, DX) + element(0x18, "1.2.3")


def stored_bytes(node: Any, instance: str = "1.2.3") -> bytes:
    return bytes(node.spool.path(node.spool.find(instance)[0]).read_bytes())


def test_a_data_set_in_many_small_pdus(storing: Any) -> None:
    peer, node = storing
    peer.send(peer.store(DX, "1.2.3"))
    for start in range(len(DATA_SET)):
        peer.send(pdata(peer.value(DATA_SET[start : start + 1], control=2 * (start + 1 == len(DATA_SET)))))
    assert peer.status() == 0
    assert stored_bytes(node).endswith(DATA_SET)


def test_command_and_data_in_one_pdu_and_several_values_in_it(storing: Any) -> None:
    peer, node = storing
    command = peer.store(DX, "1.2.3")[6:]  # its one data value
    halves = peer.value(DATA_SET[:9]) + peer.value(DATA_SET[9:], control=2)
    peer.send(pdata(command + halves))
    assert peer.status() == 0
    assert stored_bytes(node).endswith(DATA_SET)


def test_a_command_in_pieces_and_an_empty_last_value(storing: Any) -> None:
    peer, node = storing
    command = peer.store(DX, "1.2.3")[12:]
    for start in range(0, len(command), 7):
        peer.send(pdata(peer.value(command[start : start + 7], control=1)))
    peer.send(pdata(peer.value(b"", control=3)))
    peer.send(pdata(peer.value(DATA_SET)) + pdata(peer.value(b"", control=2)))
    assert peer.status() == 0
    assert stored_bytes(node).endswith(DATA_SET)


def test_a_cancel_is_passed_over(storing: Any) -> None:
    peer, _ = storing
    peer.send(peer.message({0x0100: b"\xff\x0f", 0x0120: b"\1\0", 0x0800: b"\1\1"}))
    assert peer.echo() == 0


@pytest.mark.parametrize("field", [0x0020, 0x0100, 0x0140, 0x0130])
def test_an_operation_of_another_service_is_refused_and_its_data_drained(storing: Any, field: int) -> None:
    peer, _ = storing
    peer.send(peer.store(DX, "1.2.3", x0100=field.to_bytes(2, "little")) + pdata(peer.value(bytes(5000), control=2)))
    assert peer.status() in (Status.UNRECOGNIZED, Status.NO_SUCH_CLASS)
    assert peer.echo() == 0


def test_what_breaks_the_order_is_aborted(listening: Callable[..., Any]) -> None:
    node = listening()
    contexts = {DX: (EXPLICIT,), "1.2.840.10008.1.1": (EXPLICIT,)}
    with node.peer() as peer:
        wrong = {
            "data without a command": pdata(peer.value(b"x" * 8, control=2)),
            "a command inside a data set": peer.store(DX, "1.2") * 2,
            "another context in between": peer.store(DX, "1.2") + pdata(peer.value(b"x", 3, 2)),
            "an answer": peer.message({0x0100: b"\1\x80", 0x0110: b"\1\0", 0x0800: b"\1\1"}),
            "no message number": peer.message({0x0100: b"\x30\0", 0x0800: b"\1\1"}),
            "no field": peer.message({0x0110: b"\1\0", 0x0800: b"\1\1"}),
            "a context that was not accepted": pdata(peer.value(b"x", 99, 1)),
            "a value longer than its PDU": b"\4\0\0\0\0\x08\0\0\0\xff\1\3ab",
            "a value of one byte": b"\4\0\0\0\0\x06\0\0\0\1\1\3",
            "three bytes left over": b"\4\0\0\0\0\x0d\0\0\0\6\1\1abcd\0\0\0",
            "an empty P-DATA-TF": b"\4\0\0\0\0\0",
        }
    for what, data in wrong.items():
        with node.peer() as peer:
            peer.associate(contexts=contexts)
            peer.send(data)
            assert peer.answer()[0] == 7, what
    assert node.receiver.statistics()["protocol_errors"] == len(wrong)
    assert not node.spool.find("1.2")

"""N-ACTION of the storage commitment push model, from pynetdicom and by hand."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from edgecxr.errors import Refusal
from edgecxr.runtimes.node.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, read_request
from edgecxr.runtimes.node.storage import Caller

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
WHOLE = b"\x08\0\x95\x11UI\6\x001.2.9\0\x08\0\x99\x11SQ\0\0\x1c\0\0\0\xfe\xff\0\xe0\x14\0\0\0"
WHOLE += b"\x08\0\x50\x11UI\2\x001\0\x08\0\x55\x11UI\2\x002\0"
PEERS = [{"ae": "MODALITY", "port": 104}, {"ae": "SILENT"}]


def a_request(*instances: str, transaction: str | None = "1.2.9") -> Dataset:
    request, request_items = Dataset(), []
    if transaction:
        request.TransactionUID = transaction
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = DX, instance
        request_items.append(item)
    request.ReferencedSOPSequence = request_items
    return request


def ask(
    node: Any, request: Dataset, *, ae: str = "MODALITY", syntax: str = EXPLICIT, action: int = 1
) -> tuple[Any, Any]:
    caller = AE(ae_title=ae)
    caller.add_requested_context(StorageCommitmentPushModel, syntax)
    association = caller.associate("127.0.0.1", node.port)
    assert association.is_established
    answer = association.send_n_action(request, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    association.release()
    return answer


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_an_accepted_request_is_in_the_spool(listening: Callable[..., Any], syntax: str) -> None:
    node = listening(peers=PEERS)
    status, _ = ask(node, a_request("1.2.3", "1.2.4"), syntax=syntax)
    assert status.Status == 0
    (commitment,) = node.spool.asked_due(time.time() + 1)
    assert commitment.request.transaction == "1.2.9"
    assert (commitment.request.calling_ae, commitment.request.address) == ("MODALITY", "127.0.0.1")
    assert commitment.request.references == ((DX, "1.2.3"), (DX, "1.2.4"))
    assert node.receiver.statistics()["commitments"] == 1


def test_a_thousand_references_in_one_request(listening: Callable[..., Any]) -> None:
    node = listening(peers=PEERS)
    assert ask(node, a_request(*(f"1.2.{number}" for number in range(1000))))[0].Status == 0
    assert len(node.spool.asked_due(time.time() + 1)[0].request.references) == 1000


@pytest.mark.parametrize(
    ("request_", "how", "status"),
    [
        (a_request(), {}, 0x0115),
        (a_request("1.2.3", transaction=None), {}, 0x0115),
        (a_request(""), {}, 0x0115),
        (a_request("1.2.3"), {"action": 2}, 0x0123),
        (a_request("1.2.3"), {"ae": "SILENT"}, 0x0110),
    ],
)
def test_what_cannot_be_promised_is_not_accepted(
    listening: Callable[..., Any], request_: Dataset, how: dict[str, Any], status: int
) -> None:
    node = listening(peers=PEERS)
    assert ask(node, request_, **how)[0].Status == status
    assert node.spool.asked_due(time.time() + 1) == []


def test_broken_and_endless_requests_are_refused_and_the_association_goes_on(listening: Callable[..., Any]) -> None:
    node = listening(peers=[{"ae": "RAW", "port": 104}])
    with node.peer() as peer:
        peer.associate(contexts={PUSH_MODEL: (EXPLICIT,)})
        elements = {0x0003: PUSH_MODEL.encode(), 0x0100: b"\x30\1", 0x0110: b"\1\0", 0x0800: b"\0\0"}
        elements |= {0x1001: PUSH_MODEL_INSTANCE.encode(), 0x1008: b"\1\0"}
        deep = b"\x08\0\x99\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 3000
        for data, status in ((b"\x08\0", 0x0115), (deep, 0x0115), (bytes(5 << 20), 0x0213)):
            peer.send(peer.message(elements))
            for start in range(0, len(data), 100_000):
                value = peer.value(data[start : start + 100_000], control=2 * (start + 100_000 >= len(data)))
                peer.send(b"\4\0" + len(value).to_bytes(4, "big") + value)
            assert peer.status() == status
        peer.send(peer.message(elements) + b"\4\0" + (len(WHOLE) + 6).to_bytes(4, "big") + peer.value(WHOLE, control=2))
        reply = peer.reply()
        assert (reply[0x0002], reply[0x1000]) == (PUSH_MODEL.encode(), PUSH_MODEL_INSTANCE.encode())
        assert (reply[0x0100], reply[0x0900], reply[0x1008]) == (b"\x30\x81", b"\0\0", b"\1\0")
        for changed, status in (
            ({0x0003: b"1.2.3\0"}, 0x0118),
            ({0x1001: b"1.2.3\0"}, 0x0112),
            ({0x0800: b"\1\1"}, 0x0115),
        ):
            peer.send(peer.message(elements | changed))
            if 0x0800 not in changed:
                peer.send(b"\4\0\0\0\0\x08" + peer.value(b"ab", control=2))
            assert peer.status() == status
        assert peer.echo() == 0


def test_a_request_that_cannot_be_read_is_a_refusal() -> None:
    with pytest.raises(Refusal, match="truncated"):
        read_request(b"\x08\0\x95\x11UI\xff\0", EXPLICIT, Caller("A", "127.0.0.1"))


def test_requests_do_not_fill_the_disk(listening: Callable[..., Any]) -> None:
    node = listening(limits={"refuse_below_mb": 1 << 40}, peers=PEERS)
    assert ask(node, a_request("1.2.3"))[0].Status == 0x0213
    assert node.spool.asked_due(time.time() + 1) == []

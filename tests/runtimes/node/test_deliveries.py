"""The outbox: nothing is forgotten before it has arrived."""

import time

import pytest

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.spool import Arrival, NewDelivery, Outcome, Spool, State

THREE = [
    NewDelivery("pacs", "sr", "2.25.1"),
    NewDelivery("pacs", "capture", "2.25.2"),
    NewDelivery("ris", "sr", "2.25.3"),
]


@pytest.fixture
def spool(spool: Spool) -> Spool:
    """A spool in which image 1 is decided and has three deliveries."""
    with spool.part() as part:
        part.write(b"film")
        spool.commit(part, Arrival("1.2", "1.2.3", "", "dicom"))
    spool.claim()
    spool.finish(1, Outcome("ok", {}), THREE)
    return spool


def test_deliveries_are_due_at_once_in_their_order(spool: Spool) -> None:
    due = spool.due(time.time())
    assert [(one.destination, one.kind, one.sop_instance) for one in due] == [
        ("pacs", "sr", "2.25.1"),
        ("pacs", "capture", "2.25.2"),
        ("ris", "sr", "2.25.3"),
    ]
    assert {(one.image, one.attempts, one.error) for one in due} == {(1, 0, "")}
    assert spool.due(time.time(), limit=2) == due[:2]
    assert spool.due(due[0].created - 1) == []
    assert spool.outstanding() == 3


def test_with_the_last_one_the_image_is_delivered(spool: Spool) -> None:
    first, second, third = spool.due(time.time())
    spool.sent(first.id, first.sop_instance)
    spool.sent(third.id, third.sop_instance)
    assert spool.get(1).state is State.DECIDED
    spool.sent(second.id, second.sop_instance)
    assert (spool.get(1).state, spool.outstanding(), spool.due(time.time())) == (State.DELIVERED, 0, [])


def test_what_is_given_up_is_never_sent_and_says_so(spool: Spool) -> None:
    assert spool.waiting() == {"pacs": 2, "ris": 1}
    sr, _, ris = spool.due(time.time())
    spool.sent(sr.id, sr.sop_instance)
    assert spool.give_up("pacs") == [(1, 1)]
    assert (spool.get(1).state, spool.waiting()) == (State.DECIDED, {"ris": 1})
    assert spool.due(time.time()) == [ris]
    arrived = [sent for _, sent in spool.deliveries(1)]
    assert (bool(arrived[0]), arrived[1:]) == (True, [0.0, None])
    assert spool.give_up("ris") == [(1, 1)]
    assert (spool.get(1).state, spool.waiting(), spool.outstanding()) == (State.DELIVERED, {}, 0)
    assert spool.give_up("ris") == []
    assert not spool.stands(ris)
    with pytest.raises(SpoolError, match="it was sent or given up"):
        spool.sent(ris.id, ris.sop_instance)


def test_a_postponed_delivery_is_tried_again_with_the_same_uid(spool: Spool) -> None:
    first = spool.due(time.time())[0]
    now = time.time()
    spool.postpone(first.id, "connection refused", now + 60)
    assert first.id not in [one.id for one in spool.due(now + 59)]
    again = spool.due(now + 60)[-1]
    assert (again.id, again.sop_instance, again.attempts) == (first.id, "2.25.1", 1)
    assert again.error == "connection refused"
    assert spool.outstanding() == 3


def test_what_has_arrived_cannot_arrive_again(spool: Spool) -> None:
    first = spool.due(time.time())[0]
    spool.sent(first.id, first.sop_instance)
    with pytest.raises(SpoolError, match=f"delivery {first.id} is not outstanding"):
        spool.sent(first.id, first.sop_instance)
    with pytest.raises(SpoolError, match=f"delivery {first.id} is not outstanding"):
        spool.postpone(first.id, "late", 0)


def test_what_has_arrived_as_another_object_is_still_to_be_sent(spool: Spool) -> None:
    first, second, third = spool.due(time.time())
    for other in (second, third):
        spool.sent(other.id, other.sop_instance)
    assert spool.stands(first)
    assert not spool.stands(second)
    spool.doubts.mark("", "another output", lambda *record: "2.25.9")
    assert not spool.stands(first)
    with pytest.raises(SpoolError, match=f"delivery {first.id} is another object by now, which is still to be sent"):
        spool.sent(first.id, "2.25.1")
    assert [(one.id, one.sop_instance) for one in spool.due(time.time())] == [(first.id, "2.25.9")]
    assert spool.get(1).state is State.DECIDED
    spool.sent(first.id, "2.25.9")
    assert spool.get(1).state is State.DELIVERED


def test_the_outbox_survives_a_restart(spool: Spool) -> None:
    due = spool.due(time.time())
    spool.close()
    again = Spool(spool.folder, spool.limits)
    again.recover()
    assert again.due(time.time()) == due
    again.close()

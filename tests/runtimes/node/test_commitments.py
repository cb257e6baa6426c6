"""Storage commitment: requests are kept until answered, and only what is safe is promised."""

import time

import pytest

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.spool import Arrival, CommitmentRequest, Spool

REQUEST = CommitmentRequest("2.25.7", "UNIT", "10.0.0.9", (("1.2", "1.2.3"), ("1.2", "1.2.4")))


def test_a_request_is_due_until_it_is_answered(spool: Spool) -> None:
    number = spool.ask(REQUEST)
    due = spool.asked_due(time.time())
    assert [(one.id, one.request, one.attempts) for one in due] == [(number, REQUEST, 0)]
    spool.postpone_answer(number, "no route", time.time() + 60)
    assert spool.asked_due(time.time()) == []
    later = spool.asked_due(time.time() + 61)[0]
    assert (later.attempts, later.error) == (1, "no route")
    spool.answered(number)
    assert spool.asked_due(time.time() + 61) == []
    with pytest.raises(SpoolError, match=f"storage commitment {number} is not outstanding"):
        spool.answered(number)
    with pytest.raises(SpoolError, match="is not outstanding"):
        spool.postpone_answer(number, "", 0)


def test_a_request_that_is_asked_again_is_one_request_and_answered_again(spool: Spool) -> None:
    number = spool.ask(REQUEST)
    assert spool.ask(REQUEST) == number
    spool.answered(number)
    assert spool.ask(REQUEST) == number
    assert len(spool.asked_due(time.time())) == 1
    other = CommitmentRequest("2.25.7", "OTHER", "10.0.0.8", ())
    assert spool.ask(other) != number


def test_requests_survive_a_restart(spool: Spool) -> None:
    spool.ask(REQUEST)
    again = Spool(spool.folder, spool.limits)
    assert again.asked_due(time.time())[0].request == REQUEST
    again.close()


def test_only_an_indexed_image_of_that_class_with_its_bytes_is_durable(spool: Spool) -> None:
    with spool.part() as part:
        part.write(b"film")
        assert not spool.is_durable("1.2", "1.2.3")
        image = spool.get(spool.commit(part, Arrival("1.2", "1.2.3", "", "dicom")).image)
    assert spool.is_durable("1.2", "1.2.3")
    assert not spool.is_durable("1.3", "1.2.3")
    assert not spool.is_durable("1.2", "1.2.4")
    spool.path(image).unlink()
    assert not spool.is_durable("1.2", "1.2.3")

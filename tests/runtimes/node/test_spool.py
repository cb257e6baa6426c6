"""The spool: states, receipts, recovery, listings, and what happens when there is no room."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spools import CR, OK, REFUSED, claimed, files, put

from edgecxr.errors import SpoolError, SpoolFull
from edgecxr.runtimes.node.images import TURN
from edgecxr.runtimes.node.spool import (
    NewDelivery,
    Outcome,
    Receipt,
    Spool,
    SpoolLimits,
    State,
)


def test_an_image_goes_from_received_to_delivered(spool: Spool) -> None:
    receipt = put(spool, "1.2.3", b"bytes as received")
    image = spool.get(receipt.image)
    assert (receipt.copy, image.copy, image.state, image.attempts) == ("new", "new", State.RECEIVED, 0)
    assert (image.sop_instance, image.peer, image.calling_ae, image.size) == ("1.2.3", "10.0.0.9", "UNIT", 17)
    assert image.patient_name == ""
    assert spool.path(image).read_bytes() == b"bytes as received"
    assert spool.path(image).suffix == ".dcm"
    assert spool.result(image.id) is None

    image = claimed(spool)
    assert (image.state, image.attempts) == (State.SCREENING, 1)
    assert spool.claim() is None
    cam = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    record = {"findings": [{"name": "tb", "decision": "positive", "probability": 0.9}]}
    before = time.time()
    outcome = Outcome("ok", record, cam, {"patient_name": "Öz^Ada", "study_date": "20260101"}, 0.75)
    spool.finish(image.id, outcome, [NewDelivery("pacs", "sr", "2.25.1")])
    image, result = spool.get(image.id), spool.result(image.id)
    assert (image.state, image.patient_name, image.study_date) == (State.DECIDED, "Öz^Ada", "20260101")
    assert result is not None
    assert (result.status, result.record, result.urgency) == ("ok", record, 0.75)
    assert before <= result.decided <= time.time()
    np.testing.assert_array_equal(result.cam, cam)

    spool.sent(spool.due(time.time())[0].id, "2.25.1")
    assert spool.get(image.id).state is State.DELIVERED
    assert spool.result(image.id) == result


@pytest.mark.parametrize(("outcome", "state"), [(OK, State.DECIDED), (REFUSED, State.REFUSED)])
def test_without_deliveries_an_image_is_delivered_at_once(spool: Spool, outcome: Outcome, state: State) -> None:
    for uid in ("1.1", "1.2"):
        put(spool, uid)
    first, second = claimed(spool), claimed(spool)
    spool.finish(first.id, outcome)
    spool.finish(second.id, outcome, [NewDelivery("pacs", "sr", "2.25.1")])
    assert spool.get(first.id).state is State.DELIVERED
    assert spool.get(second.id).state is state
    result = spool.result(first.id)
    assert result is not None
    assert result.status == outcome.status


def test_an_object_without_uid_gets_one(spool: Spool) -> None:
    image = spool.get(put(spool, "").image)
    assert image.sop_instance.startswith("2.25.")
    assert len(image.sop_instance) <= 64
    assert spool.path(image).suffix == ".bin"


def test_what_brings_no_uid_is_known_again_by_its_bytes(spool: Spool, folder: Path) -> None:
    """A watched file that a crash left there after its commit is taken a second time, and is one image."""
    first = put(spool, "", b"a picture")
    assert put(spool, "", b"a picture") == Receipt(first.image, "same")
    assert put(spool, "", b"a Picture").copy == "new"
    assert len(files(folder)) == 2


def test_a_second_copy_is_neither_kept_nor_screened_again(spool: Spool, folder: Path) -> None:
    first = put(spool, "1.2.3", b"a" * 3000)
    spool.finish(claimed(spool).id, OK)
    assert put(spool, "1.2.3", b"a" * 3000) == Receipt(first.image, "same")
    assert spool.claim() is None
    assert len(files(folder)) == 1


@pytest.mark.parametrize("data", [b"b" * 3000, b"a" * 2999 + b"b", b"a" * 2999])
def test_other_bytes_under_the_same_uid_are_kept_and_flagged(spool: Spool, folder: Path, data: bytes) -> None:
    first = put(spool, "1.2.3", b"a" * 3000)
    second = put(spool, "1.2.3", data)
    assert second.copy == "other"
    assert put(spool, "1.2.3", data) == Receipt(second.image, "same")
    assert [image.copy for image in spool.find("1.2.3")] == ["new", "other"]
    assert {claimed(spool).id, claimed(spool).id} == {first.image, second.image}
    assert len(files(folder)) == 2


def test_a_copy_of_an_image_whose_file_is_gone_is_kept(spool: Spool) -> None:
    first = put(spool, "1.2.3")
    spool.path(spool.get(first.image)).unlink()
    second = put(spool, "1.2.3")
    assert second.image != first.image
    assert spool.is_durable(CR, "1.2.3")


def test_a_copy_of_an_image_that_is_forgotten_while_they_are_compared_is_kept(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(spool, "1.2.3", b"film")
    spool.finish(claimed(spool).id, OK)
    compare = spool._same

    def slow(*told: Any) -> bool:
        same = compare(*told)
        assert spool.expire(time.time() + 1e9) == 1
        return same

    monkeypatch.setattr(spool, "_same", slow)
    second = put(spool, "1.2.3", b"film")
    assert (second.copy, second.image != first.image) == ("new", True)
    assert spool.path(spool.get(second.image)).read_bytes() == b"film"


def test_the_same_uid_from_many_threads_at_once_is_one_image(spool: Spool, folder: Path) -> None:
    receipts: list[Receipt] = []
    start = threading.Barrier(8)

    def send() -> None:
        start.wait()
        receipts.append(put(spool, "1.2.3", b"x" * 100_000))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.copy for receipt in receipts) == ["new"] + ["same"] * 7
    assert len({receipt.image for receipt in receipts}) == 1
    assert len(files(folder)) == 1


def test_many_threads_claim_each_image_once(spool: Spool) -> None:
    images = {put(spool, f"1.{index}").image for index in range(40)}
    taken: list[int] = []

    def work() -> None:
        while (image := spool.claim()) is not None:
            taken.append(image.id)
            spool.finish(image.id, OK)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(images)


def test_the_next_image_is_the_most_urgent_then_the_oldest(spool: Spool) -> None:
    order = [put(spool, f"1.{index}", priority=priority).image for index, priority in enumerate((0, 1, -1, 1))]
    assert [claimed(spool).id for _ in range(4)] == [order[1], order[3], order[0], order[2]]


def test_a_stream_of_urgent_images_starves_nobody(spool: Spool) -> None:
    low = put(spool, "1.1", priority=-1).image
    for index in range(20):
        put(spool, f"2.{index}", priority=1)
    assert low in [claimed(spool).id for _ in range(TURN)]


def test_a_film_that_fails_twice_is_quarantined_and_can_be_retried_by_hand(spool: Spool, folder: Path) -> None:
    image = put(spool, "1.2.3").image
    assert spool.fail(claimed(spool).id, "the decoder crashed") is State.RECEIVED
    assert spool.get(image).error == "the decoder crashed"
    assert spool.fail(claimed(spool).id, "the decoder crashed again") is State.QUARANTINED
    kept = spool.get(image)
    assert (kept.error, kept.attempts, spool.claim()) == ("the decoder crashed again", 2, None)
    assert spool.path(kept).parent == folder / "quarantine"
    assert spool.path(kept).read_bytes() == b"film"
    spool.retry(image)
    fresh = spool.get(image)
    assert (fresh.state, fresh.attempts, fresh.error) == (State.RECEIVED, 0, "")
    assert spool.path(fresh).parent.parent == folder / "films"
    spool.finish(claimed(spool).id, OK)


def test_a_released_image_has_not_been_tried(spool: Spool) -> None:
    put(spool, "1.2.3")
    for _ in range(5):
        spool.release(claimed(spool).id)
    assert claimed(spool).attempts == 1


def test_a_refused_image_can_be_screened_again(spool: Spool) -> None:
    put(spool, "1.2.3")
    image = claimed(spool).id
    spool.finish(image, REFUSED, [NewDelivery("pacs", "sr", "2.25.1")])
    spool.retry(image)
    assert spool.result(image) is None
    assert spool.outstanding() == 0
    spool.finish(claimed(spool).id, REFUSED)
    spool.retry(image)
    assert spool.get(image).state is State.RECEIVED


def test_what_may_not_happen_raises_and_changes_nothing(spool: Spool) -> None:
    image = put(spool, "1.2.3").image
    with pytest.raises(SpoolError, match=r"image 1 is received and cannot become delivered; .* screening"):
        spool.finish(image, OK)
    with pytest.raises(SpoolError, match="is received and cannot become received"):
        spool.release(image)
    with pytest.raises(SpoolError, match="is received"):
        spool.fail(image, "error")
    with pytest.raises(SpoolError, match="would have to be quarantined or refused"):
        spool.retry(image)
    spool.finish(claimed(spool).id, OK)
    with pytest.raises(SpoolError, match="is delivered and cannot become"):
        spool.finish(image, REFUSED)
    with pytest.raises(SpoolError, match="is delivered and cannot become received"):
        spool.retry(image)
    assert spool.result(image).status == "ok"  # type: ignore[union-attr]
    with pytest.raises(SpoolError, match="there is no image 99 in the spool"):
        spool.get(99)
    with pytest.raises(SpoolError, match="there is no image 99"):
        spool.release(99)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"status": "failed", "record": {}}, "status 'failed'"),
        ({"status": "ok", "record": {}, "worst": float("nan")}, "urgency nan"),
        ({"status": "ok", "record": {}, "worst": 1.5}, "urgency 1.5"),
        ({"status": "refused", "record": {}, "worst": 0.5}, "a refused image has no map"),
        ({"status": "ok", "record": {}, "identity": {"address": "x"}}, "identity has address"),
    ],
)
def test_a_fault_is_no_outcome(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Outcome(**wrong)  # type: ignore[arg-type]


def test_a_result_that_cannot_be_written_leaves_the_image_in_screening(spool: Spool) -> None:
    put(spool, "1.2.3")
    image = claimed(spool).id
    with pytest.raises(ValueError, match="not JSON compliant"):
        spool.finish(image, Outcome("ok", {"probability": float("nan")}))
    twice = [NewDelivery("pacs", "sr", "2.25.1"), NewDelivery("pacs", "sr", "2.25.2")]
    with pytest.raises(SpoolError, match="UNIQUE constraint"):
        spool.finish(image, OK, twice)
    assert spool.get(image).state is State.SCREENING
    assert spool.result(image) is None
    assert spool.outstanding() == 0


def test_counts_and_waiting(spool: Spool) -> None:
    assert spool.waiting_s() is None
    assert set(spool.counts()) == set(State)
    put(spool, "1.1")
    assert spool.counts()[State.RECEIVED] == 1
    waited = spool.waiting_s()
    assert waited is not None
    assert 0 <= waited < 60
    assert spool.free_bytes() > 0


def test_who_waits_is_woken_by_a_change_and_by_nothing_else(spool: Spool) -> None:
    before = spool.change()
    assert spool.claim() is None
    assert spool.wait(before, 0.05) == before
    threading.Timer(0.05, put, (spool, "1.1")).start()
    assert spool.wait(before, 30) > before


def test_as_many_wait_as_are_allowed(folder: Path) -> None:
    spool = Spool(folder, SpoolLimits(max_object_mb=1, refuse_below_mb=0, max_waiting=2))
    put(spool, "1.1")
    with spool.part(), pytest.raises(SpoolFull, match=r"2 images wait for screening, as many as spool\.max_waiting"):
        spool.part()
    put(spool, "1.2")
    with pytest.raises(SpoolFull, match="2 images wait"):
        spool.part()
    claimed(spool)
    put(spool, "1.3")
    spool.close()

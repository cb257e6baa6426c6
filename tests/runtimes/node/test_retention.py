"""What is forgotten: delivered images that are old, or in the way; nothing else."""

import time
from pathlib import Path

import pytest

from edgecxr.errors import SpoolError, SpoolFull
from edgecxr.runtimes.node.parts import MEGABYTE, free_bytes
from edgecxr.runtimes.node.spool import Arrival, CommitmentRequest, NewDelivery, Outcome, Spool, SpoolLimits, State

DAY_S = 86400


def spool_of_five(folder: Path, **limits: float) -> Spool:
    """Images 1 and 2 delivered, 3 decided, 4 received, 5 quarantined; 100 KB each."""
    spool = Spool(folder, SpoolLimits(max_object_mb=1, refuse_below_mb=0, **limits))  # type: ignore[arg-type]
    for index in range(5):
        with spool.part() as part:
            part.write(bytes([index]) * 100_000)
            spool.commit(part, Arrival("1.2", f"1.{index}", "", "dicom", priority=-1 if index == 3 else 0))
    for index in (1, 2, 3):
        spool.claim()
        spool.finish(index, Outcome("ok", {}), [NewDelivery("pacs", "sr", "2.25.1")] if index == 3 else [])
    spool.fetched([1, 2])
    for _ in range(2):
        spool.claim()
        spool.fail(5, "crash")
    assert [spool.get(index).state.value for index in range(1, 6)] == [
        "delivered",
        "delivered",
        "decided",
        "received",
        "quarantined",
    ]
    return spool


def numbers(spool: Spool) -> list[int]:
    return sorted(image.id for image, _ in spool.listing())


def test_old_delivered_images_are_forgotten_and_nothing_else(tmp_path: Path) -> None:
    spool = spool_of_five(tmp_path / "spool", tidy_below_mb=0, keep_days=30)
    path = spool.path(spool.get(1))
    assert spool.expire(time.time() + 29 * DAY_S) == 0
    assert spool.expire(time.time() + 31 * DAY_S) == 2
    assert numbers(spool) == [3, 4, 5]
    assert not path.exists()
    assert spool.result(1) is None
    with pytest.raises(SpoolError, match="no image 1"):
        spool.get(1)
    for delivery in spool.due(time.time()):
        spool.sent(delivery.id, delivery.sop_instance)
    assert spool.expire(time.time() + 31 * DAY_S) == 1
    assert numbers(spool) == [4, 5]
    assert spool.expire(time.time() + 10_000 * DAY_S) == 0
    spool.close()


def test_quarantine_fills_the_disk_and_is_kept(tmp_path: Path) -> None:
    """What lies there counts as any other file: at the watermark nothing more is taken, and nothing of it goes."""
    folder = tmp_path / "spool"
    spool = spool_of_five(folder, tidy_below_mb=0, keep_days=30)
    assert spool.quarantined() == (1, 100_000)
    spool.close()
    full = Spool(folder, SpoolLimits(refuse_below_mb=free_bytes(folder) // MEGABYTE + 1000, tidy_below_mb=10**9))
    with pytest.raises(SpoolFull, match=r"stay free \(spool\.refuse_below_mb\)"):
        full.part()
    assert full.expire(time.time() + 10_000 * DAY_S) == 2
    assert full.quarantined() == (1, 100_000)
    assert full.path(full.get(5)).read_bytes() == bytes([4]) * 100_000
    full.close()


def test_a_full_disk_costs_the_oldest_delivered_images_first(tmp_path: Path) -> None:
    spool = spool_of_five(tmp_path / "spool", keep_days=30, tidy_below_mb=0)
    wanted = free_bytes(tmp_path) + 1000 * MEGABYTE  # a gigabyte that the small images cannot give
    spool.limits = spool.limits.model_copy(update={"tidy_below_mb": wanted // MEGABYTE})
    assert spool.expire(time.time()) == 2
    assert numbers(spool) == [3, 4, 5]
    spool.close()


def test_no_room_is_won_from_what_nobody_was_given(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", SpoolLimits(max_object_mb=1, refuse_below_mb=0, tidy_below_mb=10**8))
    for index in (1, 2, 3):
        with spool.part() as part:
            part.write(bytes([index]))
            spool.commit(part, Arrival("1.2", f"1.{index}", "", "dicom"))
        spool.claim()
        spool.finish(index, Outcome("ok", {}), [NewDelivery("pacs", "sr", "2.25.1")] if index == 2 else [])
    spool.sent(1, "2.25.1")
    assert spool.counts()[State.DELIVERED] == 3
    assert spool.expire(time.time()) == 1
    assert numbers(spool) == [1, 3]
    spool.fetched([1])
    change = spool.change()
    spool.fetched([1, 2, 7])
    assert spool.change() == change
    assert spool.expire(time.time()) == 1
    assert numbers(spool) == [3]
    assert spool.expire(time.time() + 31 * DAY_S) == 1
    spool.close()


def test_no_more_is_forgotten_than_the_room_that_is_wanted(tmp_path: Path) -> None:
    from edgecxr.runtimes.node.retention import forget_delivered

    spool = spool_of_five(tmp_path / "spool")
    first, second = spool.get(1).file, spool.get(2).file
    assert forget_delivered(spool._database, before=0, room=0) == []
    assert forget_delivered(spool._database, before=0, room=50_000) == [first]
    assert forget_delivered(spool._database, before=0, room=150_000) == [second]
    spool.close()


def test_a_forgotten_file_that_was_not_removed_in_time_is_removed_at_the_next_start(tmp_path: Path) -> None:
    spool = spool_of_five(tmp_path / "spool", tidy_below_mb=0)
    path = spool.path(spool.get(1))
    kept = tmp_path / "kept"
    kept.hardlink_to(path)
    spool.expire(time.time() + 31 * DAY_S)
    path.hardlink_to(kept)
    assert spool.recover().orphans == 1
    assert not path.exists()
    spool.close()


def test_ids_are_never_given_twice(tmp_path: Path) -> None:
    """A peer's acknowledgement, a link on the page and a log line mean one image for ever."""
    spool = Spool(tmp_path / "spool", SpoolLimits(max_object_mb=1, refuse_below_mb=0, tidy_below_mb=0))
    for expected in (1, 2):
        with spool.part() as part:
            part.write(b"film")
            assert spool.commit(part, Arrival("1.2", "1.2.3", "", "dicom")).image == expected
        spool.claim()
        spool.finish(expected, Outcome("ok", {}))
        assert spool.counts()[State.DELIVERED] == 1
        assert spool.expire(time.time() + 31 * DAY_S) == 1
    spool.close()


def spool_of_one_delivered(folder: Path) -> Spool:
    spool = Spool(folder, SpoolLimits(max_object_mb=1, refuse_below_mb=0, tidy_below_mb=0, keep_days=30))
    with spool.part() as part:
        part.write(b"film")
        spool.commit(part, Arrival("1.2", "1.2.3", "", "dicom"))
    spool.claim()
    spool.finish(1, Outcome("ok", {}))
    return spool


def dated(spool: Spool, received: float) -> None:
    with spool._database.write() as connection:
        connection.execute("UPDATE images SET received = ?", (received,))


@pytest.mark.parametrize("restarted", [False, True])
def test_what_came_by_a_clock_that_was_never_set_is_not_old(tmp_path: Path, restarted: bool) -> None:
    """A unit without a battery starts in 1970, screens, and then is told the time."""
    spool = spool_of_one_delivered(tmp_path / "spool")
    dated(spool, 4711.0)
    if restarted:
        spool.close()
        spool = Spool(tmp_path / "spool", spool.limits)
    now = time.time()
    assert spool.expire(now) == 0
    assert spool.get(1).received == pytest.approx(now, abs=60)
    assert spool.expire(now + 31 * DAY_S) == 1
    spool.close()


@pytest.mark.parametrize("days", [400, -400])
def test_a_clock_that_is_set_while_the_node_runs_ages_nothing(tmp_path: Path, days: int) -> None:
    spool = spool_of_one_delivered(tmp_path / "spool")
    now = time.time()
    dated(spool, now - days * DAY_S)
    spool._clock._ahead -= days * DAY_S  # as if it had been that much behind (or ahead) when the node started
    assert spool.expire(now) == 0
    assert spool.get(1).received == pytest.approx(now, abs=60)
    assert spool.expire(now) == 0
    spool.close()


def test_a_clock_that_is_set_leaves_what_came_since_and_in_earlier_runs(tmp_path: Path) -> None:
    spool = spool_of_one_delivered(tmp_path / "spool")
    now = time.time()
    dated(spool, now - 10 * DAY_S)
    limits = spool.limits
    spool.close()
    spool = Spool(tmp_path / "spool", limits)
    with spool.part() as part:
        part.write(b"another")
        spool.commit(part, Arrival("1.2", "1.2.4", "", "dicom"))
    spool._clock._ahead -= 400 * DAY_S
    assert spool.expire(now) == 0
    assert spool.get(1).received == pytest.approx(now - 10 * DAY_S)
    assert spool.get(2).received == pytest.approx(now, abs=60)
    spool.close()


def test_answered_commitments_are_forgotten_and_others_never(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", SpoolLimits(refuse_below_mb=0, tidy_below_mb=0, keep_days=30))
    first, second = (spool.ask(CommitmentRequest(uid, "CR", "10.0.0.1", (("1.2", "1.2.3"),))) for uid in "12")
    spool.answered(first)
    assert spool.expire(time.time() + 31 * DAY_S) == 0
    with pytest.raises(SpoolError, match="was answered, or never asked"):
        spool.postpone_answer(first, "", 0)
    with spool._database.read() as connection:
        assert [row["id"] for row in connection.execute("SELECT id FROM commitments")] == [second]
    spool.close()

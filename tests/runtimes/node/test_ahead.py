"""Films begun while they are being made durable: used, discarded, poisonous, in the way of others, at the end."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import followers
import pytest
from waiting import LONG_S, until

from edgecxr.errors import SpoolFull
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import ScreeningSection
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import Setup
from edgecxr.runtimes.node.spool import Arrival, Spool, State
from edgecxr.runtimes.node.worker import Worker
from edgecxr.runtimes.node.worker_state import Shared
from edgecxr.runtimes.node.workers import Workers


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    return write_dicom(chest(1, "covid", size=128), tmp_path / "film.dcm").read_bytes()


@pytest.fixture
def workers(spool: Spool, tiny_bundle: Path) -> Iterator[Workers]:
    workers = Workers(spool, ScreeningSection(threads=1, timeout_s=3.0), tiny_bundle, Metrics())
    workers.start()
    until(lambda: workers.states()[0].activity == "idle")
    yield workers
    workers.stop(0)


@contextmanager
def begun(spool: Spool, data: bytes, stopped: int = 0) -> Iterator[tuple[Callable[[], int], Callable[[], None]]]:
    """A film that an idle worker has begun, on a disk that takes its time; what lets its commit end, well or badly.

    The process of the worker is `stopped` first, where given: it has begun, and does not come to an end.
    """
    if stopped:
        os.kill(stopped, signal.SIGSTOP)
    disk: Future[None] = Future()
    with spool.part() as part, ThreadPoolExecutor(1) as receiver:
        part.write(data)
        seal = part.seal

        def slowly() -> None:
            try:
                disk.result(LONG_S)
            except SpoolFull:
                part.discard()
                raise
            seal()

        part.seal = slowly  # type: ignore[method-assign]
        receipt = receiver.submit(spool.commit, part, Arrival("", "2.25.1", "", "dicom"))

        def commit() -> int:
            disk.set_result(None)
            return receipt.result(LONG_S).image

        def fail() -> None:
            disk.set_exception(SpoolFull("no room"))
            with pytest.raises(SpoolFull, match="no room"):
                receipt.result(LONG_S)

        try:
            until(lambda: spool.coming.kept_from(None) == [f"{part.path.stem}.dcm"])
            yield commit, fail
        finally:
            if not disk.done():
                disk.set_exception(SpoolFull("the test is over"))


def heard(worker: Worker) -> bool:
    """Whether the process has answered."""
    return worker._child is not None and worker._child._pipe.poll()


def paid(caplog: pytest.LogCaptureFixture) -> list[tuple[object, object]]:
    """Images that went without a result, and why."""
    records = [record for record in caplog.records if record.getMessage() == "no result"]
    return [(getattr(record, "image", None), getattr(record, "error", None)) for record in records]


def put(spool: Spool, number: int, data: bytes, priority: int = 0) -> int:
    with spool.part() as part:
        part.write(data)
        return spool.commit(part, Arrival("", f"2.25.{number}", "", "dicom", priority=priority)).image


def test_what_was_said_ahead_decides_the_film(spool: Spool, workers: Workers, film: bytes) -> None:
    with begun(spool, film) as (commit, _):
        until(lambda: heard(workers._workers[0]))
        os.kill(workers.states()[0].pid, signal.SIGSTOP)  # it cannot be asked again
        assert spool.counts() == dict.fromkeys(State, 0)
        image = commit()
        until(lambda: spool.result(image))
    result = spool.result(image)
    assert result is not None
    assert result.status == "ok"
    assert result.record["file"] == spool.get(image).file
    assert spool.get(image).patient_name == "Phantom^EdgeCXR"
    assert spool.get(image).attempts == 1
    assert workers.states()[0].restarts == 0
    assert spool.coming.kept_from(None) == []


def test_a_film_that_is_claimed_while_it_is_being_read_is_waited_for(
    spool: Spool, workers: Workers, film: bytes
) -> None:
    pid = workers.states()[0].pid
    with begun(spool, film, pid) as (commit, _):
        image = commit()
        until(lambda: workers.states()[0].activity == "screening")
        assert spool.get(image).state is State.SCREENING
        os.kill(pid, signal.SIGCONT)
        until(lambda: spool.result(image))
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (1, 0)


def test_a_film_that_never_became_an_image_leaves_no_trace(spool: Spool, workers: Workers, film: bytes) -> None:
    with begun(spool, film) as (_, fail):
        fail()
    until(lambda: spool.coming.kept_from(None) == [])
    assert spool.counts() == dict.fromkeys(State, 0)
    image = put(spool, 2, film)
    until(lambda: spool.result(image))
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (1, 0)


def test_a_film_that_ended_the_process_and_never_became_an_image_costs_no_other(
    spool: Spool, workers: Workers, film: bytes
) -> None:
    pid = workers.states()[0].pid
    with begun(spool, film, pid) as (_, fail):
        os.kill(pid, signal.SIGKILL)
        fail()
    image = put(spool, 2, film)
    until(lambda: spool.result(image))
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (1, 1)


@pytest.mark.parametrize(("number", "told"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSTOP, "no answer within 3 s")])
def test_an_end_of_the_process_ahead_is_an_attempt(
    spool: Spool,
    workers: Workers,
    film: bytes,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
    told: str,
) -> None:
    pid = workers.states()[0].pid
    with begun(spool, film, pid) as (commit, _):
        os.kill(pid, number)
        image = commit()
    until(lambda: spool.result(image))
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (2, 1)
    assert [(failed, told in str(error)) for failed, error in paid(caplog)] == [(image, True)]


def test_poison_ahead_is_tried_twice_in_all(spool: Spool, workers: Workers, tmp_path: Path) -> None:
    slow = write_dicom(chest(1, size=2500), tmp_path / "slow.dcm", syntax="jpeg2000").read_bytes()
    pid = workers.states()[0].pid
    with begun(spool, slow, pid) as (commit, _):
        os.kill(pid, signal.SIGKILL)
        image = commit()
    until(lambda: workers.states()[0].activity == "screening" and workers.states()[0].pid not in (0, pid))
    os.kill(workers.states()[0].pid, signal.SIGKILL)
    until(lambda: spool.get(image).state is State.QUARANTINED)
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (2, 2)
    assert spool.result(image) is None


def test_a_film_that_is_ready_does_not_wait_for_a_stuck_one_that_is_not(
    spool: Spool, workers: Workers, film: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with begun(spool, film, workers.states()[0].pid) as (commit, _):
        other = put(spool, 2, film)
        until(lambda: spool.result(other))
        assert (spool.get(other).attempts, workers.states()[0].restarts) == (1, 1)
        image = commit()
    until(lambda: spool.result(image))
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (2, 1)
    assert paid(caplog) == [(image, "no answer within 3 s; the screening process was killed")]


def test_stopping_leaves_what_was_begun_to_the_next_start(spool: Spool, workers: Workers, film: bytes) -> None:
    with begun(spool, film, workers.states()[0].pid) as (commit, _):
        workers.stop(0.2)
        assert workers.states()[0].activity == "stopped"
        assert spool.coming.kept_from(None) == []
        image = commit()
    assert (spool.get(image).state, spool.get(image).attempts) == (State.RECEIVED, 0)


def test_a_film_that_comes_of_age_while_its_process_is_replaced_pays_once(
    spool: Spool, workers: Workers, film: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with begun(spool, film, workers.states()[0].pid) as (commit, _):
        put(spool, 2, film)
        until(lambda: workers.states()[0].activity == "opening")
        image = commit()
    until(lambda: spool.result(image))
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (2, 1)
    assert paid(caplog) == [(image, "no answer within 3 s; the screening process was killed")]


def test_what_an_engine_said_goes_with_it(
    spool: Spool, workers: Workers, film: bytes, tiny_bundle: Path, tmp_path: Path
) -> None:
    old = workers.states()[0].pid
    shutil.copy(tiny_bundle, tmp_path / "new.cxr")
    with begun(spool, film) as (commit, _):
        until(lambda: heard(workers._workers[0]))
        workers.swap(tmp_path / "new.cxr")
        until(lambda: workers.states()[0].pid not in (0, old))
        assert spool.coming.kept_from(None) == []
        new = workers.states()[0].pid
        os.kill(new, signal.SIGSTOP)
        image = commit()
        until(lambda: workers.states()[0].activity == "screening")  # by the new one
        assert spool.result(image) is None
        os.kill(new, signal.SIGCONT)
        until(lambda: spool.result(image))
    assert (spool.get(image).attempts, workers.states()[0].restarts) == (1, 0)


def test_a_proof_waits_for_what_was_begun(spool: Spool, workers: Workers, film: bytes) -> None:
    """So what a result rests on is the proof before it, and that is in doubt when the next one fails."""
    with begun(spool, film) as (commit, _):
        until(lambda: heard(workers._workers[0]))
        os.kill(workers.states()[0].pid, signal.SIGSTOP)
        proof = workers._workers[0].ask_proof()
        image = commit()
        assert proof.result(LONG_S) == "no answer within 3 s; the screening process was killed"
    result = spool.result(image)
    assert result is not None
    assert result.doubt.startswith("the engine that gave it failed its next proof")


def test_a_result_names_the_engine_that_gave_it_though_another_took_over_before_it_was_committed(
    spool: Spool, film: bytes, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECXR_TEST_FOLLOW", str(tmp_path / "follow"))
    setup = Setup(tiny_bundle, threads=1, successors=followers.called)
    shared = Shared(spool, ScreeningSection(threads=1), setup, Metrics())
    worker = Worker("worker-1", shared)
    worker.start()
    try:
        with begun(spool, film) as (commit, _):
            until(lambda: heard(worker))
            (tmp_path / "follow").touch()
            until(lambda: (origin := worker.current().origin) and origin.engine == "onnxruntime-cpu")
            images = [commit(), put(spool, 2, film)]
        until(lambda: all(spool.result(image) for image in images))
    finally:
        shared.stopping.set()
        worker.finish_by(0)
    given = [result.record for image in images if (result := spool.result(image))]
    assert [(record["engine"], record["precision"]) for record in given] == [
        ("openvino-cpu", "int8"),
        ("onnxruntime-cpu", "fp16"),
    ]


def test_other_workers_leave_it_and_go_on(spool: Spool, tiny_bundle: Path, film: bytes) -> None:
    workers = Workers(spool, ScreeningSection(threads=1, workers=2, timeout_s=LONG_S), tiny_bundle, Metrics())
    workers.start()
    until(lambda: all(state.activity == "idle" for state in workers.states()))
    for state in workers.states():
        os.kill(state.pid, signal.SIGSTOP)
    with begun(spool, film) as (commit, _):
        keeper = next(worker for worker in workers._workers if worker._ahead.name)
        other = next(worker for worker in workers._workers if worker is not keeper)
        image = commit()
        os.kill(other.current().pid, signal.SIGCONT)
        second = put(spool, 2, film)
        until(lambda: spool.result(second))
        assert spool.get(image).state is State.SCREENING
        os.kill(keeper.current().pid, signal.SIGCONT)
        until(lambda: spool.result(image))
    workers.stop(LONG_S)
    assert [spool.get(number).attempts for number in (image, second)] == [1, 1]
    assert sum(state.restarts for state in workers.states()) == 0


def test_what_is_ready_is_decided_while_the_disk_is_slow_with_another(
    spool: Spool, workers: Workers, film: bytes
) -> None:
    with begun(spool, film) as (commit, _):
        until(lambda: heard(workers._workers[0]))
        urgent = put(spool, 2, film, priority=1)
        until(lambda: spool.result(urgent))
        os.kill(workers.states()[0].pid, signal.SIGSTOP)  # what it said of the first one is kept
        image = commit()
        until(lambda: spool.result(image))
    assert [spool.get(number).attempts for number in (image, urgent)] == [1, 1]
    assert workers.states()[0].restarts == 0

"""A better engine takes over in a screening process: the node tells of it, its results name it, its faults are its."""

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import followers
import pytest
from waiting import until

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.compiler import Attempt, Successors
from edgecxr.runtimes.node.config import ScreeningSection
from edgecxr.runtimes.node.following import Following, Teller, problems
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import Setup
from edgecxr.runtimes.node.spool import Arrival, Spool, State
from edgecxr.runtimes.node.worker import Worker
from edgecxr.runtimes.node.worker_state import Shared

Put = Callable[[int], int]
Start = Callable[[Successors], Worker]


@pytest.fixture
def put(spool: Spool, tmp_path: Path) -> Put:
    def put(number: int) -> int:
        with spool.part() as part:
            part.write(write_dicom(chest(number, "covid", size=128), tmp_path / f"{number}.dcm").read_bytes())
            return spool.commit(part, Arrival("", f"2.25.{number}", "", "dicom")).image

    return put


@pytest.fixture
def start(spool: Spool, tiny_bundle: Path) -> Iterator[Start]:
    started: list[tuple[Worker, Shared]] = []

    def start(successors: Successors) -> Worker:
        setup = Setup(tiny_bundle, threads=1, successors=successors)
        shared = Shared(spool, ScreeningSection(threads=1, timeout_s=10.0), setup, Metrics())
        worker = Worker("worker-1", shared)
        worker.start()
        started.append((worker, shared))
        return worker

    yield start
    for worker, shared in started:
        shared.stopping.set()
        worker.hurry()
        worker.finish_by(0)


def states(worker: Worker) -> list[str]:
    origin = worker.current().origin
    return [] if origin is None else [attempt.state for attempt in origin.attempts]


def engine(spool: Spool, image: int) -> tuple[str, str]:
    until(lambda: spool.result(image) is not None)
    result = spool.result(image)
    assert result is not None
    assert result.status == "ok"
    return result.record["engine"], result.record["precision"]


def test_it_takes_over_and_health_log_and_results_say_so(
    spool: Spool, put: Put, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="edgecxr")
    worker = start(followers.onnxruntime)
    assert engine(spool, put(1)) == ("openvino-cpu", "int8")
    until(lambda: states(worker) == ["serving"])
    assert engine(spool, put(2)) == ("onnxruntime-cpu", "fp16")
    state = worker.current()
    assert state.origin is not None
    assert (state.origin.engine, state.origin.precision) == ("onnxruntime-cpu", "fp16")
    assert (state.restarts, problems([state.origin])) == (0, [])
    told = [getattr(record, "told", "") for record in caplog.records]
    assert "onnxruntime fp16: compiling" in told
    assert "onnxruntime fp16: serving" in told


def test_one_that_was_dropped_is_a_problem_with_its_reason_and_screening_goes_on(
    spool: Spool, put: Put, start: Start
) -> None:
    worker = start(followers.refusing)
    until(lambda: states(worker) == ["dropped"])
    assert problems([worker.current().origin, None, worker.current().origin]) == [
        "onnxruntime fp16: dropped (tensorrt 10.3.0 refuses the model: no kernel image)"
    ]
    assert engine(spool, put(1)) == ("openvino-cpu", "int8")


def test_one_that_ends_the_process_is_blamed_and_not_the_film(spool: Spool, put: Put, start: Start) -> None:
    worker = start(followers.deadly)
    until(lambda: states(worker) == ["serving"])
    image = put(1)
    assert engine(spool, image) == ("openvino-cpu", "int8")
    assert spool.get(image).attempts == 1  # the one that was decided
    assert spool.get(image).state is State.DELIVERED
    assert worker.current().restarts == 1
    assert engine(spool, put(2)) == ("openvino-cpu", "int8")
    assert states(worker) == []
    assert worker.current().restarts == 1
    assert worker._shared.switched_off == (
        "the screening process died (SIGSEGV); onnxruntime fp16 was open in it, and is not used any more"
    )


def test_one_that_ends_the_process_while_it_is_opened_is_blamed_and_not_tried_again(
    spool: Spool, put: Put, start: Start
) -> None:
    """Whether the process dies before or after it has said what serves at first."""
    worker = start(followers.stillborn)
    images = [put(number) for number in (1, 2)]
    for image in images:
        assert engine(spool, image) == ("openvino-cpu", "int8")
        assert (spool.get(image).state, spool.get(image).attempts) == (State.DELIVERED, 1)
    assert "onnxruntime fp16 was open in it" in worker._shared.switched_off
    assert states(worker) == []


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGSTOP])
def test_so_is_one_that_ends_or_stalls_it_while_a_film_is_in_hand(
    spool: Spool,
    start: Start,
    slow_film: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    monkeypatch.setenv("EDGECXR_TEST_FOLLOW", str(tmp_path / "go"))
    worker = start(followers.late)
    until(lambda: states(worker) == ["proving"])
    with spool.part() as part:
        part.write(slow_film)
        image = spool.commit(part, Arrival("", "2.25.9", "", "dicom")).image
    until(lambda: worker.current().activity == "screening")
    (tmp_path / "told").write_text(str(int(number)))
    (tmp_path / "told").rename(tmp_path / "go")
    assert engine(spool, image) == ("openvino-cpu", "int8")
    assert (spool.get(image).state, spool.get(image).attempts) == (State.DELIVERED, 1)
    assert worker.current().restarts == 1
    assert "onnxruntime fp16 was open in it" in worker._shared.switched_off


def test_what_is_heard_by_who_asks_for_something_else_is_told_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="edgecxr")
    near, far = multiprocessing.Pipe(duplex=False)
    following, tell = Following(near), Teller(far)
    tell(Attempt("onnxruntime fp16", "serving"))
    assert following.fallen() == ""
    assert following.at_work() == "onnxruntime fp16"
    assert following.tell("worker-1")
    assert [record.told for record in caplog.records] == ["onnxruntime fp16: serving"]  # type: ignore[attr-defined]
    assert not following.tell("worker-1")
    following.close()
    far.close()


def test_what_several_threads_tell_at_once_arrives_whole() -> None:
    """Each is too long for one write to a pipe."""
    near, far = multiprocessing.Pipe(duplex=False)
    following, tell, heard = Following(near), Teller(far), list[Attempt]()

    def say(thread: int) -> None:
        for number in range(20):
            tell(Attempt(f"{thread} {number}", "dropped", reason="x" * 100_000))

    threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(heard) < 80:
        heard += following.hear()
    for thread in threads:
        thread.join()
    assert {attempt.name for attempt in heard} == {f"{i} {n}" for i in range(4) for n in range(20)}
    assert {attempt.reason for attempt in heard} == {"x" * 100_000}
    assert following.fallen() == ""
    following.close()
    far.close()


def doubt(spool: Spool, image: int) -> str:
    result = spool.result(image)
    assert result is not None
    return result.doubt


def test_what_it_decided_is_in_doubt_when_it_fails_the_next_proof_and_the_first_engine_goes_on(
    spool: Spool, put: Put, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECXR_TEST_FOLLOW", str(tmp_path / "go"))
    worker = start(followers.worn)
    until(lambda: states(worker) == ["serving"])
    images = [put(1)]
    assert engine(spool, images[0]) == ("onnxruntime-cpu", "fp16")
    assert worker.ask_proof().result(60) == ""
    images.append(put(2))
    assert engine(spool, images[1]) == ("onnxruntime-cpu", "fp16")
    (tmp_path / "go").touch()
    assert worker.ask_proof().result(60) == ""
    images.append(put(3))
    assert engine(spool, images[2]) == ("openvino-cpu", "int8")
    doubts = [doubt(spool, image) for image in images]
    assert "onnxruntime fp16: dropped (onnxruntime-cpu fp16 does not reproduce the golden set" in doubts[1]
    assert (doubts[0], doubts[2]) == ("", "")
    assert (states(worker), worker.current().restarts) == (["dropped"], 0)


def test_so_is_what_it_decided_before_the_film_on_which_it_failed(
    spool: Spool, put: Put, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECXR_TEST_FOLLOW", str(tmp_path / "go"))
    worker = start(followers.poisoned)
    until(lambda: states(worker) == ["serving"])
    before = put(1)
    assert engine(spool, before) == ("onnxruntime-cpu", "fp16")
    (tmp_path / "go").touch()
    after = put(2)
    assert engine(spool, after) == ("openvino-cpu", "int8")
    assert doubt(spool, before) == (
        "the engine that gave it failed its next proof: "
        "onnxruntime fp16: dropped (12 of 12 values of 'logits' were not written)"
    )
    assert doubt(spool, after) == ""
    assert (states(worker), worker.current().restarts) == (["dropped"], 0)

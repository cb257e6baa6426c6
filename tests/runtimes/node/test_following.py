"""A better engine takes over in a screening process: the node tells of it, its results name it, its faults are its."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import followers
import pytest
from waiting import until

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.compiler import Successors
from edgecxr.runtimes.node.config import ScreeningSection, SpoolLimits
from edgecxr.runtimes.node.following import problems
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import Setup
from edgecxr.runtimes.node.spool import Arrival, Spool, State
from edgecxr.runtimes.node.worker import Worker
from edgecxr.runtimes.node.worker_state import Shared

Put = Callable[[int], int]
Start = Callable[[Successors], Worker]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", SpoolLimits(refuse_below_mb=0))
    opened.recover()
    yield opened
    opened.close()


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
        shared = Shared(spool, ScreeningSection(threads=1), setup, Metrics())
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

"""The workers on a real spool with real screening processes: each image is settled once, whatever dies meanwhile."""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import LONG_S, until

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import DestinationSection, ScreeningSection
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import Setup
from edgecxr.runtimes.node.spool import Arrival, Spool, State
from edgecxr.runtimes.node.worker_state import Shared
from edgecxr.runtimes.node.workers import Workers

PACS = DestinationSection(name="pacs", ae="PACS", host="127.0.0.1", port=104)
PAPER = DestinationSection(name="paper", ae="PAPER", host="127.0.0.1", port=105, send=("sr",))
ONE = ScreeningSection(threads=1)


@pytest.fixture
def put(spool: Spool, tmp_path: Path) -> Callable[..., int]:
    def put(number: int, *, priority: int = 0, data: bytes | None = None) -> int:
        if data is None:
            data = write_dicom(chest(number, "covid", size=128), tmp_path / f"{number}.dcm").read_bytes()
        with spool.part() as part:
            part.write(data)
            uid = f"2.25.{number}" if data[128:132] == b"DICM" else ""
            return spool.commit(part, Arrival("", uid, "", "dicom", priority=priority)).image

    return put


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def pool(spool: Spool, metrics: Metrics, tiny_bundle: Path) -> Iterator[Callable[..., Workers]]:
    opened: list[Workers] = []

    def pool(settings: ScreeningSection = ONE, bundle: Path = tiny_bundle) -> Workers:
        workers = Workers(spool, settings, bundle, metrics, (PACS, PAPER))
        workers.start()
        opened.append(workers)
        return workers

    yield pool
    for workers in opened:
        workers.stop(0)


def settled(spool: Spool, count: int) -> bool:
    counts = spool.counts()
    return count == sum(counts[state] for state in (State.DECIDED, State.REFUSED, State.DELIVERED, State.QUARANTINED))


def test_a_film_is_decided_with_its_deliveries(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers], metrics: Metrics, tiny_bundle: Path
) -> None:
    pool()
    image = put(1)
    until(lambda: settled(spool, 1))
    result = spool.result(image)
    assert result is not None
    assert result.status == "ok"
    assert result.cam is not None
    assert result.record["image"] == image
    assert result.record["bundle"] == Bundle.open(tiny_bundle).digest
    assert spool.get(image).state is State.DECIDED
    assert spool.get(image).patient_name == "Phantom^EdgeCXR"
    due = spool.due(time.time() + 60)
    assert sorted((item.destination, item.kind) for item in due) == [
        ("pacs", "capture"),
        ("pacs", "sr"),
        ("paper", "sr"),
    ]
    assert len({item.sop_instance for item in due if item.kind == "sr"}) == 1
    assert b'edgecxr_decided_total{decision="' in metrics.page(True)


def test_a_refused_film_is_reported_as_such_everywhere(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers], tmp_path: Path
) -> None:
    pool()
    data = write_dicom(chest(1, size=128), tmp_path / "ct.dcm", modality="CT").read_bytes()
    image = put(1, data=data)
    until(lambda: settled(spool, 1))
    result = spool.result(image)
    assert result is not None
    assert (result.status, result.record["reason"], result.urgency) == ("refused", "not_a_radiograph", 0)
    due = spool.due(time.time() + 60)
    assert sorted((item.destination, item.kind) for item in due) == [
        ("pacs", "capture"),
        ("pacs", "sr"),
        ("paper", "sr"),
    ]


def test_what_is_no_dicom_is_delivered_nowhere(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers]
) -> None:
    pool()
    image = put(1, data=b"no film at all")
    until(lambda: settled(spool, 1))
    assert spool.get(image).state is State.DELIVERED
    assert spool.due(time.time() + 60) == []


def test_urgent_films_come_first_and_two_workers_share(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers]
) -> None:
    images = [put(number, priority=number % 3) for number in range(9)]
    pool(ScreeningSection(threads=1, workers=2))
    until(lambda: settled(spool, 9))
    results = [spool.result(image) for image in images]
    assert all(result is not None and result.status == "ok" for result in results)
    decided = {image: result.decided for image, result in zip(images, results, strict=True) if result}
    assert max(decided[image] for image in images[2::3]) < max(decided[image] for image in images[0::3])


@pytest.mark.parametrize(("number", "told"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSTOP, "no answer within 10 s")])
def test_a_poison_image_is_tried_twice_and_the_rest_go_on(
    spool: Spool,
    put: Callable[..., int],
    pool: Callable[..., Workers],
    metrics: Metrics,
    slow_film: bytes,
    number: signal.Signals,
    told: str,
) -> None:
    """The process is killed, or stops, each time that it works on one image, which takes seconds to decode."""
    workers = pool(ScreeningSection(threads=1, timeout_s=10.0 if number is signal.SIGSTOP else LONG_S))
    until(lambda: workers.states()[0].activity == "idle")
    poison = put(1, data=slow_film, priority=5)
    others = [put(other) for other in range(2, 5)]
    hit: set[int] = set()
    while len(hit) < 2:
        until(lambda: workers.states()[0].activity == "screening" and workers.states()[0].pid not in hit)
        assert spool.get(poison).state is State.SCREENING
        hit.add(workers.states()[0].pid)
        os.kill(workers.states()[0].pid, number)
    until(lambda: settled(spool, 4))
    assert spool.get(poison).state is State.QUARANTINED
    assert told in spool.get(poison).error
    assert spool.result(poison) is None
    assert all(spool.result(other) is not None for other in others)
    assert workers.states()[0].restarts == 2
    assert workers.states()[0].stuck == (2 if number is signal.SIGSTOP else 0)
    assert b"edgecxr_quarantined_total 1.0" in metrics.page(True)


def test_without_an_engine_images_wait_and_nothing_is_decided(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers], tmp_path: Path
) -> None:
    (tmp_path / "bad.cxr").write_bytes(b"no bundle")
    workers = pool(bundle=tmp_path / "bad.cxr")
    image = put(1)
    until(lambda: workers.states()[0].problem)
    state = workers.states()[0]
    assert (state.activity, state.origin) == ("waiting", None)
    assert "bad.cxr" in state.problem
    assert spool.get(image).state is State.RECEIVED
    assert spool.result(image) is None


def test_a_bundle_that_does_not_open_is_not_swapped_in(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers], tmp_path: Path, tiny_bundle: Path
) -> None:
    workers = pool()
    (tmp_path / "bad.cxr").write_bytes(b"no bundle")
    with pytest.raises(EngineError, match=r"bad\.cxr"):
        workers.swap(tmp_path / "bad.cxr")
    image = put(1)
    until(lambda: settled(spool, 1))
    assert spool.result(image) is not None
    assert workers.bundle == tiny_bundle


def test_a_new_bundle_takes_over_while_running(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers], tmp_path: Path, tiny_bundle: Path
) -> None:
    workers = pool()
    until(lambda: workers.states()[0].activity == "idle")
    old = workers.states()[0].pid
    shutil.copy(tiny_bundle, tmp_path / "new.cxr")
    origin = workers.swap(tmp_path / "new.cxr")
    until(lambda: workers.states()[0].pid not in (0, old))
    put(1)
    until(lambda: settled(spool, 1))
    assert workers.states()[0].origin == origin
    assert workers.bundle == tmp_path / "new.cxr"
    assert not Path(f"/proc/{old}").exists()


def test_live_engines_are_proven_and_a_stuck_one_is_replaced(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers], caplog: pytest.LogCaptureFixture
) -> None:
    """What it decided before a good proof is well; what it decided between that and the failed one is in doubt."""
    workers = pool(ScreeningSection(threads=1, timeout_s=10.0))
    well = put(1)
    until(lambda: settled(spool, 1))
    assert workers.prove(LONG_S) == []
    doubtful = put(2)
    until(lambda: settled(spool, 2))
    until(lambda: workers.states()[0].activity == "idle")
    os.kill(workers.states()[0].pid, signal.SIGSTOP)
    assert workers.prove(LONG_S) == ["worker-1: no answer within 10 s; the screening process was killed"]
    assert workers.prove(LONG_S) == []
    assert workers.states()[0].restarts == 1
    results = {image: spool.result(image) for image in (well, doubtful)}
    assert {image: result.doubt for image, result in results.items() if result} == {
        well: "",
        doubtful: "the engine that gave it failed its next proof: no answer within 10 s; "
        "the screening process was killed",
    }
    assert [record.getMessage() for record in caplog.records if "golden set was not" in record.getMessage()] == [
        "the golden set was not reproduced"
    ]


def test_what_is_in_flight_when_it_stops_is_finished_or_put_back(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers]
) -> None:
    workers = pool()
    until(lambda: workers.states()[0].activity == "idle")
    put(1)
    until(lambda: settled(spool, 1))
    os.kill(workers.states()[0].pid, signal.SIGSTOP)
    image = put(2)
    until(lambda: workers.states()[0].activity == "screening")
    workers.stop(0.2)
    assert (spool.get(image).state, spool.get(image).attempts) == (State.RECEIVED, 0)
    assert workers.states()[0].activity == "stopped"


def test_a_stop_in_a_proof_speaks_against_no_result(
    spool: Spool, put: Callable[..., int], pool: Callable[..., Workers], caplog: pytest.LogCaptureFixture
) -> None:
    workers = pool()
    image = put(1)
    until(lambda: settled(spool, 1))
    until(lambda: workers.states()[0].activity == "idle")
    os.kill(workers.states()[0].pid, signal.SIGSTOP)
    worker = workers._workers[0]
    asked = worker.ask_proof()
    until(lambda: "_prove" in [frame.name for frame in traceback.extract_stack(sys._current_frames()[worker.ident])])
    workers.stop(1.0)
    assert asked.result(LONG_S) == "the node is stopping"
    result = spool.result(image)
    assert result is not None
    assert (result.doubt, spool.doubts.count()) == ("", 0)
    assert not [record for record in caplog.records if "golden set was not" in record.getMessage()]


def test_stopping_does_not_wait_for_an_engine_that_opens(pool: Callable[..., Workers], tiny_bundle: Path) -> None:
    workers = pool()
    workers.stop(LONG_S)
    assert workers.states()[0].activity == "stopped"


def test_an_engine_that_fails_twice_on_one_image_blames_the_image(
    spool: Spool, metrics: Metrics, tiny_bundle: Path
) -> None:
    shared = Shared(spool, ONE, Setup(tiny_bundle), metrics)
    assert [shared.engine_failed_on(7), shared.engine_failed_on(7)] == [1, 2]
    shared.forget(7)
    assert shared.engine_failed_on(7) == 1

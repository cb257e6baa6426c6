"""Health: sensors, the work that comes round, and what is told of workers that cannot screen."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from edgecxr.runtimes.node import clock
from edgecxr.runtimes.node.config import ScreeningSection, SpoolLimits
from edgecxr.runtimes.node.following import nobody
from edgecxr.runtimes.node.health import HealthMonitor, Rounds, temperature_c
from edgecxr.runtimes.node.metrics import Metrics
from edgecxr.runtimes.node.screening_process import Fault
from edgecxr.runtimes.node.spool import Spool
from edgecxr.runtimes.node.workers import Workers


@pytest.fixture
def workers(tmp_path: Path, tiny_bundle: Path) -> Iterator[Workers]:
    spool = Spool(tmp_path / "spool", SpoolLimits(refuse_below_mb=0))
    spool.recover()
    workers = Workers(spool, ScreeningSection(threads=1, timeout_s=10.0), tiny_bundle, Metrics())
    yield workers
    workers.stop(0)
    spool.close()


def test_a_node_is_able_once_its_engine_is_proven(workers: Workers) -> None:
    monitor = HealthMonitor(workers, lambda: ["the archive is away"])
    assert not monitor.able()
    assert monitor.state().engine == ""
    workers.start()
    until(monitor.able)
    health = monitor.state()
    assert (health.engine, health.precision) == ("openvino-cpu", "int8")
    assert health.model.startswith("tiny")
    assert health.proved is not None
    assert health.problems == ("the archive is away",)
    assert health.clock_synchronised is clock.synchronised()
    assert monitor.obstacles() == []


def test_a_stuck_engine_is_found_by_its_proof_and_replaced(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    monitor = HealthMonitor(workers, list)
    workers.start()
    until(monitor.able)
    first = workers.states()[0]
    monitor.prove()
    assert monitor.able()
    proved = workers.states()[0].proved
    assert proved is not None
    assert first.proved is not None
    assert proved > first.proved
    os.kill(first.pid, signal.SIGSTOP)
    monitor.prove()
    until(lambda: monitor.able() and workers.states()[0].pid != first.pid)
    assert workers.states()[0].stuck == 1
    assert len([record for record in caplog.records if "no answer within" in str(vars(record))]) == 1  # said once


def test_an_engine_that_ended_a_process_is_a_problem_until_the_next_start(workers: Workers) -> None:
    monitor = HealthMonitor(workers, list)
    workers._shared.follow_no_more(Fault("crashed", "the screening process died (SIGKILL)"))
    assert monitor.state().problems[1:] == ()
    workers._shared.follow_no_more(Fault("machine", "died; tensorrt fp16 was open in it", "tensorrt fp16"))
    assert monitor.state().problems[1:] == (
        "engines of the CPU alone until the node starts anew: died; tensorrt fp16 was open in it",
    )
    assert workers._shared.setup.successors is nobody


def test_what_is_told_while_nothing_can_screen(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", SpoolLimits(refuse_below_mb=0))
    (tmp_path / "bad.cxr").write_bytes(b"no bundle")
    workers = Workers(spool, ScreeningSection(), tmp_path / "bad.cxr", Metrics())
    monitor = HealthMonitor(workers, list)
    assert monitor.obstacles() == ["worker-1: the engine is being opened and proven"]
    workers.start()
    until(lambda: "bad.cxr" in monitor.obstacles()[0])
    assert not monitor.able()
    assert monitor.state().proved is None
    workers.stop(0)
    spool.close()


def test_a_task_that_fails_is_told_and_called_again() -> None:
    calls: list[float] = []

    def task() -> None:
        calls.append(time.monotonic())
        if len(calls) < 2:
            raise ValueError("Waldvogel^Ottilie")

    rounds = Rounds((("counting", 0.01, task),))
    rounds.start()
    until(lambda: rounds.problems == {"counting": "counting failed: ValueError"})
    until(lambda: rounds.problems == {})
    rounds.stop()
    assert not rounds.is_alive()
    assert len(calls) >= 2


def test_temperature(tmp_path: Path) -> None:
    assert temperature_c(tmp_path) is None
    for number, text in enumerate(("48200\n", "61500\n", "nonsense", "255000\n")):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(text)
    (tmp_path / "thermal_zone9").mkdir()
    assert temperature_c(tmp_path) == 61.5

"""The screening child: what it answers, and what its parent learns when it is stopped, killed or cannot open."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import LONG_S, until

from edgecxr.bundle import Bundle
from edgecxr.errors import EngineError, RefusalReason
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.screening_process import Fault, Origin, Reply, ScreeningProcess, Setup, answer
from edgecxr.runtimes.screener import Screener


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_dicom(chest(3, "covid", size=128), tmp_path / "film.dcm")


@pytest.fixture(scope="module")
def shared_child(tiny_bundle: Path) -> Iterator[ScreeningProcess]:
    child = ScreeningProcess(Setup(tiny_bundle, threads=1))
    child.open(LONG_S)
    yield child
    child.close()


@pytest.fixture
def child(tiny_bundle: Path) -> Iterator[ScreeningProcess]:
    """One that a test may kill."""
    child = ScreeningProcess(Setup(tiny_bundle, threads=1))
    child.open(LONG_S)
    yield child
    child.kill()


def gone(pid: int) -> bool:
    """Whether the process has ended (or only waits to be collected)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_it_screens_as_a_screener_does(shared_child: ScreeningProcess, tiny_bundle: Path, film: Path) -> None:
    reply = shared_child.screen(film, LONG_S)
    assert isinstance(reply, Reply)
    with Screener(tiny_bundle, threads=1) as screener:
        wanted = screener.screen(film)
    assert reply.screening.findings == wanted.findings
    assert reply.screening.cam is not None
    assert wanted.cam is not None
    assert (reply.screening.cam == wanted.cam).all()
    assert reply.identity["patient_name"] == "Phantom^EdgeCXR"


def test_it_says_what_it_opened(shared_child: ScreeningProcess, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert shared_child.origin.bundle == bundle.digest
    assert shared_child.origin.engine == "openvino-cpu"
    assert shared_child.origin.point == bundle.spec.operating_points[0].name
    assert isinstance(shared_child.origin, Origin)


def test_a_refusal_is_a_reply(shared_child: ScreeningProcess, tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("no film")
    reply = shared_child.screen(tmp_path / "text.dcm", LONG_S)
    assert isinstance(reply, Reply)
    assert reply.screening.reason is RefusalReason.UNREADABLE
    assert set(reply.identity.values()) == {""}


def test_a_film_is_begun_in_one_place_and_told_of_in_another(
    shared_child: ScreeningProcess, film: Path, tmp_path: Path
) -> None:
    wanted = shared_child.screen(film, LONG_S)
    place = tmp_path / "place.dcm"
    os.kill(shared_child.pid, signal.SIGSTOP)
    shared_child.begin(film, place)
    os.kill(shared_child.pid, signal.SIGCONT)
    reply = shared_child.hear(LONG_S)
    assert isinstance(reply, Reply)
    assert isinstance(wanted, Reply)
    assert reply.screening.file == str(place)
    assert (reply.screening.findings, reply.identity) == (wanted.screening.findings, wanted.identity)


def test_what_moves_before_it_is_begun_is_not_begun(shared_child: ScreeningProcess, film: Path) -> None:
    os.kill(shared_child.pid, signal.SIGSTOP)
    place = film.with_name("place.dcm")
    shared_child.begin(film, place)
    film.rename(place)
    os.kill(shared_child.pid, signal.SIGCONT)
    assert shared_child.hear(LONG_S) is None
    assert isinstance(shared_child.screen(place, LONG_S), Reply)


def test_what_cannot_be_read_is_refused_in_its_place_only(shared_child: ScreeningProcess, tmp_path: Path) -> None:
    (tmp_path / "text.part").write_text("no film")
    shared_child.begin(tmp_path / "text.part", tmp_path / "text.dcm")
    assert shared_child.hear(LONG_S) is None


def test_a_film_that_was_begun_may_end_the_child(child: ScreeningProcess, film: Path) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    child.begin(film, film)
    os.kill(child.pid, signal.SIGKILL)
    assert child.hear(LONG_S) == Fault("crashed", "the screening process died (SIGKILL)")
    child.begin(film, film)
    assert isinstance(child.hear(LONG_S), Fault)


def test_a_live_engine_is_proven_again(shared_child: ScreeningProcess) -> None:
    assert shared_child.prove(LONG_S) is None


def test_an_engine_at_fault_gives_no_result(tiny_bundle: Path, film: Path) -> None:
    screener = Screener(tiny_bundle, threads=1)
    screener.close()
    for request in (("screen", str(film)), ("prove", None)):
        fault = answer(screener, request)
        assert isinstance(fault, Fault)
        assert fault.kind == "machine"
        assert "closed" in fault.detail


def test_an_error_of_ours_on_a_film_names_the_place_and_not_the_patient(tiny_bundle: Path, film: Path) -> None:
    with Screener(tiny_bundle, threads=1) as screener:
        screener.point = "no such point"
        fault = answer(screener, ("screen", str(film)))
    assert isinstance(fault, Fault)
    assert fault.kind in ("film", "machine")
    assert "Phantom" not in fault.detail


def test_a_bundle_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "bad.cxr").write_bytes(b"no bundle")
    with pytest.raises(EngineError, match=r"bad\.cxr"):
        ScreeningProcess(Setup(tmp_path / "bad.cxr")).open(LONG_S)


def test_an_engine_that_is_not_there(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="unknown engine 'abacus'"):
        ScreeningProcess(Setup(tiny_bundle, engine="abacus")).open(LONG_S)


def test_a_stopped_child_is_stuck_and_killed(child: ScreeningProcess, film: Path) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    fault = child.screen(film, 0.5)
    assert isinstance(fault, Fault)
    assert fault.kind == "stuck"
    until(lambda: gone(child.pid))


def test_a_killed_child_has_crashed(child: ScreeningProcess, film: Path) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (child.pid, signal.SIGKILL)).start()
    fault = child.screen(film, LONG_S)
    assert fault == Fault("crashed", "the screening process died (SIGKILL)")
    assert isinstance(child.screen(film, LONG_S), Fault)


def test_interrupts_are_the_parents_business(child: ScreeningProcess, film: Path) -> None:
    os.kill(child.pid, signal.SIGINT)
    assert isinstance(child.screen(film, LONG_S), Reply)


def test_one_that_a_shutdown_ended_was_not_ended_by_its_film(child: ScreeningProcess, film: Path) -> None:
    os.kill(child.pid, signal.SIGTERM)
    fault = child.screen(film, LONG_S)
    assert fault == Fault("machine", "the screening process died (SIGTERM)")


def test_opening_can_be_interrupted_from_another_thread(tiny_bundle: Path) -> None:
    child = ScreeningProcess(Setup(tiny_bundle, threads=1))
    os.kill(child.pid, signal.SIGSTOP)
    threading.Timer(0.2, child.interrupt).start()
    with pytest.raises(EngineError, match="SIGKILL"):
        child.open(LONG_S)
    with pytest.raises(EngineError, match="has not been opened"):
        child.origin  # noqa: B018


def test_it_ends_when_its_parent_is_killed(tiny_bundle: Path, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\n"
        "from edgecxr.runtimes.node.screening_process import ScreeningProcess, Setup\n"
        "if __name__ == '__main__':\n"
        "    child = ScreeningProcess(Setup(Path(sys.argv[1]), threads=1))\n    child.open()\n"
        "    print(child.pid, flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, str(script), str(tiny_bundle)], stdout=subprocess.PIPE, text=True) as parent:
        if parent.stdout is None:
            raise OSError("no pipe")
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: gone(pid))


def test_the_child_never_loads_torch(shared_child: ScreeningProcess) -> None:
    assert "torch" not in Path(f"/proc/{shared_child.pid}/maps").read_text()

"""Deliveries to archives that work, refuse, hang, are down, or come up late; the spool is the real one."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from waiting import LONG_S, until

from edgecxr.errors import ResultError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node import outbox as outbox_module
from edgecxr.runtimes.node import sender
from edgecxr.runtimes.node.config import DestinationSection, SpoolLimits
from edgecxr.runtimes.node.deliveries import Delivery, NewDelivery
from edgecxr.runtimes.node.images import Arrival, Outcome, State
from edgecxr.runtimes.node.outbox import FIRST_S, JITTER, LONGEST_S, Outbox, delay_s
from edgecxr.runtimes.node.spool import Spool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Archive:
    """A PACS that answers each object by `answer(event)`."""

    def __init__(self, answer: Callable[[Any], int] = lambda event: 0, port: int = 0) -> None:
        self.got: list[str] = []
        self.associations: set[int] = set()
        self.answer = answer
        application = AE("PACS")
        application.supported_contexts = AllStoragePresentationContexts
        handlers = [(evt.EVT_C_STORE, self._store)]
        self.server = application.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        self.port = self.server.socket.getsockname()[1]

    def _store(self, event: Any) -> int:
        self.associations.add(id(event.assoc))
        status = self.answer(event)
        if status == 0:
            self.got.append(str(event.request.AffectedSOPInstanceUID))
        return status


class Site:
    """A spool with decided images, and what an outbox needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool", SpoolLimits(refuse_below_mb=0))
        self.film = write_dicom(chest(1, size=64), folder / "film.dcm")
        self.made: list[Path] = []

    def decide(self, *destinations: str) -> list[str]:
        """One more decided image with a report for each destination; the reports' UIDs."""
        with self.spool.part() as part:
            part.write(f"{time.time_ns()}".encode())
            image = self.spool.commit(part, Arrival("1.2", str(generate_uid()), "1.2.840.10008.1.2", "dicom")).image
        assert self.spool.claim() is not None
        uids = [str(generate_uid()) for _ in destinations]
        new = [NewDelivery(name, "sr", uid) for name, uid in zip(destinations, uids, strict=True)]
        self.spool.finish(image, Outcome("ok", {}), new)
        return uids

    def build(self, delivery: Delivery) -> Path:
        import pydicom

        dataset = pydicom.dcmread(self.film)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = delivery.sop_instance
        path = self.folder / f"{delivery.id}-{len(self.made)}.dcm"
        dataset.save_as(path)
        self.made.append(path)
        return path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.spool.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_S", 0.2)
    monkeypatch.setattr(outbox_module, "POLL_S", 0.05)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def archive(stack: ExitStack, *arguments: Any, **more: Any) -> Archive:
    made = Archive(*arguments, **more)
    stack.callback(made.server.shutdown)
    return made


def run(stack: ExitStack, site: Site, **ports: int) -> Outbox:
    sections = [DestinationSection(name=name, ae="PACS", host="127.0.0.1", port=port) for name, port in ports.items()]
    made = Outbox(site.spool, sections, site.build, timeout_s=2)
    stack.callback(made.stop)
    made.start()
    return made


def test_delay_doubles_to_an_hour_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_S", FIRST_S)
    for failures, base in ((1, 5), (2, 10), (3, 20), (10, 2560), (11, LONGEST_S), (1000, LONGEST_S)):
        delays = [delay_s(failures) for _ in range(50)]
        assert base * (1 - JITTER) <= min(delays) < max(delays) <= base * (1 + JITTER)


def test_what_is_due_goes_over_one_association_and_images_become_delivered(site: Site, stack: ExitStack) -> None:
    pacs = archive(stack)
    uids = [uid for _ in range(3) for uid in site.decide("pacs")]
    box = run(stack, site, pacs=pacs.port)
    until(lambda: site.spool.outstanding() == 0)
    assert pacs.got == uids
    assert len(pacs.associations) == 1
    assert site.spool.counts()[State.DELIVERED] == 3
    until(lambda: not any(path.exists() for path in site.made))
    assert box.states()[0].sent == 3


def test_an_archive_that_is_down_gets_everything_when_it_comes_up(site: Site, stack: ExitStack) -> None:
    port = free_port()
    uids = site.decide("pacs") + site.decide("pacs")
    box = run(stack, site, pacs=port)
    until(lambda: box.states()[0].failures >= 2)
    assert "Connection refused" in box.states()[0].error
    assert site.spool.outstanding() == 2
    uids += site.decide("pacs")
    pacs = archive(stack, port=port)
    until(lambda: site.spool.outstanding() == 0)
    assert sorted(pacs.got) == sorted(uids)
    until(lambda: box.states()[0].failures == 0)


def test_a_dead_archive_holds_up_no_other(site: Site, stack: ExitStack) -> None:
    silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    pacs = archive(stack)
    uids = [site.decide("dead", "pacs")[1] for _ in range(40)]
    run(stack, site, dead=silent.getsockname()[1], pacs=pacs.port)
    until(lambda: site.spool.outstanding() == 40)
    assert sorted(pacs.got) == sorted(uids)
    assert site.spool.counts()[State.DECIDED] == 40


def test_an_object_that_is_refused_first_is_sent_again_and_the_others_go_on(site: Site, stack: ExitStack) -> None:
    uids = [uid for _ in range(3) for uid in site.decide("pacs")]
    tries: list[str] = []

    def answer(event: Any) -> int:
        tries.append(str(event.request.AffectedSOPInstanceUID))
        return 0xA700 if tries.count(uids[0]) <= 2 and tries[-1] == uids[0] else 0

    pacs = archive(stack, answer)
    run(stack, site, pacs=pacs.port)
    until(lambda: site.spool.outstanding() == 0)
    assert pacs.got == [uids[1], uids[2], uids[0]]
    assert tries.count(uids[0]) == 3


def test_the_archives_words_stand_in_the_spool(site: Site, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_S", 1000.0)
    pacs = archive(stack, lambda event: 0xC123)
    site.decide("pacs")
    run(stack, site, pacs=pacs.port)
    until(lambda: not site.spool.due(time.time(), 8))
    (delivery,) = site.spool.due(time.time() + 1e6, 8)
    assert (delivery.error, delivery.attempts) == ("0xC123 cannot understand", 1)


def test_words_that_may_name_a_patient_are_in_the_spool_alone(
    site: Site, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_S", 1000.0)
    answer = Dataset()
    answer.Status, answer.ErrorComment = 0xC123, "no order for Doe^Jane"
    pacs = archive(stack, lambda event: answer)
    site.decide("pacs")
    box = run(stack, site, pacs=pacs.port)
    until(lambda: not site.spool.due(time.time(), 8))
    (delivery,) = site.spool.due(time.time() + 1e6, 8)
    assert delivery.error == "0xC123 cannot understand: 'no order for Doe^Jane'"
    assert box.states()[0].error == "the sr of image 1 was not delivered; edgecxr queue show 1 says why"
    assert "Doe" not in caplog.text


def test_a_fault_of_ours_over_one_object_holds_up_no_other(
    site: Site, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_S", 1000.0)
    store, pacs = sender._store, archive(stack)
    uids = [uid for _ in range(3) for uid in site.decide("pacs")]

    def broken(established: Any, item: Any, *rest: Any) -> Any:
        if item.file.name.startswith("2-"):
            raise KeyError("Doe^Jane")
        return store(established, item, *rest)

    monkeypatch.setattr(sender, "_store", broken)
    run(stack, site, pacs=pacs.port)
    until(lambda: site.spool.outstanding() == 1)
    (delivery,) = site.spool.due(time.time() + 1e6, 8)
    assert pacs.got == [uids[0], uids[2]]
    assert (delivery.image, delivery.attempts) == (2, 1)
    assert delivery.error.startswith("internal error: KeyError at test_outbox.py:")


@pytest.mark.parametrize("fault", [ResultError("no study"), KeyError("Doe^Jane")])
def test_what_cannot_be_built_waits_alone(
    site: Site, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_S", 1000.0)
    build = site.build

    def broken(delivery: Delivery) -> Path:
        if delivery.image == 1:
            raise fault
        return build(delivery)

    monkeypatch.setattr(site, "build", broken)
    pacs = archive(stack)
    _, second = site.decide("pacs"), site.decide("pacs")
    run(stack, site, pacs=pacs.port)
    until(lambda: site.spool.outstanding() == 1)
    (delivery,) = site.spool.due(time.time() + 1e6, 8)
    assert pacs.got == second
    assert delivery.error == "no study" or delivery.error.startswith("internal error: KeyError at test_outbox.py:")
    assert "Doe" not in caplog.text


def test_an_archive_that_hangs_is_left_and_tried_again(site: Site, stack: ExitStack) -> None:
    release = threading.Event()
    stack.callback(release.set)
    first = [True]

    def answer(event: Any) -> int:
        if first.pop() if first else False:
            release.wait(LONG_S)
        return 0

    pacs = archive(stack, answer)
    uids = site.decide("pacs") + site.decide("pacs")
    run(stack, site, pacs=pacs.port)
    until(lambda: site.spool.outstanding() == 0)
    assert set(uids) <= set(pacs.got)


def test_stop_cuts_a_call_that_hangs_and_keeps_the_delivery(site: Site, stack: ExitStack) -> None:
    reached, release = threading.Event(), threading.Event()
    stack.callback(release.set)

    def answer(event: Any) -> int:
        reached.set()
        release.wait(LONG_S)
        return 0

    pacs = archive(stack, answer)
    site.decide("pacs")
    box = run(stack, site, pacs=pacs.port)
    assert reached.wait(LONG_S)
    box.stop()
    (delivery,) = site.spool.due(time.time(), 8)
    assert (delivery.attempts, delivery.error) == (0, "")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("outbox")]
    assert not any(path.exists() for path in site.made)


def test_a_fault_of_the_spool_does_not_end_it(site: Site, stack: ExitStack) -> None:
    pacs = archive(stack)
    hidden = site.folder / "hidden"
    site.decide("pacs")
    build = site.build

    def broken(delivery: Delivery) -> Path:
        if not hidden.exists():
            hidden.mkdir()
            return hidden  # cannot be read as a file, nor removed as one
        return build(delivery)

    site.build = broken  # type: ignore[method-assign]
    run(stack, site, pacs=pacs.port)
    until(lambda: site.spool.outstanding() == 0)
    shutil.rmtree(hidden)
    assert len(pacs.got) == 1


def test_a_delivery_whose_image_was_sent_back_is_let_go(site: Site, stack: ExitStack) -> None:
    image = 1
    with site.spool.part() as part:
        part.write(b"film")
        site.spool.commit(part, Arrival("1.2", "1.2.3", "1.2.840.10008.1.2", "dicom"))
    site.spool.claim()
    site.spool.finish(image, Outcome("refused", {}), [NewDelivery("pacs", "sr", str(generate_uid()))])

    def answer(event: Any) -> int:
        site.spool.retry(image)
        return 0

    pacs = archive(stack, answer)
    box = run(stack, site, pacs=pacs.port)
    until(lambda: pacs.got)
    until(lambda: box.states()[0].sent == 1)
    assert site.spool.get(image).state is State.RECEIVED


@pytest.mark.parametrize("moment", ["building", "sending"])
def test_a_result_that_is_doubted_on_its_way_is_told_in_an_object_of_its_own(
    site: Site, stack: ExitStack, moment: str
) -> None:
    """Never under the UID of what it says no more, and not noted as if that had arrived."""
    before = site.decide("pacs")
    after = str(generate_uid())
    build = site.build

    def doubt() -> None:
        site.spool.doubts.mark("", "another output", lambda *record: after)

    def answer(event: Any) -> int:
        if moment == "sending":
            doubt()
        return 0

    def built(delivery: Delivery) -> Path:
        if moment == "building":
            doubt()
        return build(delivery)

    site.build = built  # type: ignore[method-assign]
    pacs = archive(stack, answer)
    run(stack, site, pacs=pacs.port)
    until(lambda: site.spool.get(1).state is State.DELIVERED)
    assert pacs.got == ([after] if moment == "building" else [*before, after])
    assert [one.sop_instance for one, sent in site.spool.deliveries(1) if sent] == [after]
    until(lambda: not any(path.exists() for path in site.made))


def test_a_clock_that_is_set_back_delays_nothing(site: Site, stack: ExitStack) -> None:
    pacs = archive(stack)
    site.decide("pacs")
    (delivery,) = site.spool.due(time.time())
    site.spool.postpone(delivery.id, "the archive was down", time.time() + 3600)
    assert site.spool.due(time.time()) == []
    site.spool.postpone(delivery.id, "the archive was down, in 2031", time.time() + 1e8)
    run(stack, site, pacs=pacs.port)
    until(lambda: pacs.got)

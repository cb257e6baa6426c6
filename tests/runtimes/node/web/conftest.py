"""A node's page over a real spool with real phantoms, screened by the real screener."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from edgecxr.errors import ResultError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import HttpSection, NodeConfig, SpoolLimits
from edgecxr.runtimes.node.drawing_process import LARGEST, Picture
from edgecxr.runtimes.node.drawings import Drawings
from edgecxr.runtimes.node.identity import read_identity
from edgecxr.runtimes.node.results.record import to_record
from edgecxr.runtimes.node.spool import Image, Outcome, Spool
from edgecxr.runtimes.node.web.app import WebServer, create_app
from edgecxr.runtimes.screener import Screener

PATIENT = "<script>alert(1)</script>^Zoë"


@dataclass(frozen=True)
class Condition:
    """What a health monitor would say."""

    engine: str = "openvino-cpu"
    precision: str = "int8"
    model: str = "covid3 1.0.0"
    bundle: str = ""
    proved: float | None = 1_700_000_000.0
    temperature_c: float | None = 51.5
    problems: tuple[str, ...] = ()
    clock_synchronised: bool | None = False


class Clinic:
    """A node without a network of its own: a spool, a screener that is asked by hand or by a thread, and the page."""

    def __init__(self, folder: Path, screener: Screener, **http: Any) -> None:
        self.config = NodeConfig(
            folder=folder,
            http=HttpSection(**{"port": 0, "wait_s": 120.0, **http}),
            spool=SpoolLimits(max_object_mb=4, refuse_below_mb=0, max_waiting=50),
        )
        self.spool = Spool(folder / "spool", self.config.spool)
        self.screener = screener
        self.problems: tuple[str, ...] = ()
        self.drawings = Drawings(self.spool, 60.0)
        self._stop = threading.Event()

    def health(self) -> Condition:
        return Condition(bundle=self.screener.bundle.digest, problems=self.problems)

    def ready(self) -> tuple[bool, list[str]]:
        return not self.problems, list(self.problems)

    def metrics(self) -> bytes:
        return b"edgecxr_images_total 1\n"

    def picture(self, image: Image) -> Picture:
        return self.drawings.draw(image, LARGEST, 0)

    def result_object(self, kind: str, image: int) -> bytes:
        if not self.spool.get(image).study_instance:
            raise ResultError("the image has no study, so it cannot have a DICOM result; send a DICOM file")
        return b"\0" * 128 + b"DICM" + kind.encode()

    def screen_next(self) -> int | None:
        """What a worker does, for one image."""
        image = self.spool.claim()
        if image is None:
            return None
        path = self.spool.path(image)
        result = self.screener.screen(path)
        record = to_record(result, image, self.screener.bundle.spec, self.screener.point, time.time())
        outcome = Outcome(result.status, record, result.cam, read_identity(path), record["urgency"], "proof")
        self.spool.finish(image.id, outcome)
        return image.id

    @contextmanager
    def working(self) -> Iterator[None]:
        """Screen whatever comes."""

        def work() -> None:
            while not self._stop.is_set():
                seen = self.spool.change()
                while self.screen_next() is not None:
                    pass
                self.spool.wait(seen, 0.2)

        thread = threading.Thread(target=work)
        self._stop.clear()
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


@dataclass
class Served:
    """A clinic that is served, and a client for it."""

    clinic: Clinic
    server: WebServer
    url: str
    client: httpx.Client

    def post(self, path: Path, **query: Any) -> httpx.Response:
        """Post a film."""
        return self.client.post("/v1/screen", content=path.read_bytes(), params=query)


@pytest.fixture(scope="session")
def screener() -> Iterator[Screener]:
    with Screener(threads=1) as opened:
        yield opened


@pytest.fixture
def serve(tmp_path: Path, screener: Screener) -> Iterator[Callable[..., Served]]:
    """Start a clinic's server; arguments are settings of the http section."""
    started: list[Served] = []

    def start(**http: Any) -> Served:
        clinic = Clinic(tmp_path / f"node{len(started)}", screener, **http)
        section = clinic.config.http
        if section is None:
            raise ValueError("no http section")
        server = WebServer(create_app(clinic), section)
        server.start()
        url = f"http://127.0.0.1:{server.port}"
        transport = httpx.HTTPTransport(uds=str(section.socket)) if section.socket else None
        served = Served(clinic, server, url, httpx.Client(base_url=url, timeout=180, transport=transport))
        started.append(served)
        return served

    yield start
    for served in started:
        served.client.close()
        served.server.stop()
        served.clinic.drawings.close()
        served.clinic.spool.close()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    """A clinic on loopback without a password."""
    return serve()


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four files: a film with a hostile patient name, a plain one, one that is no chest, one that is cut short."""
    folder = tmp_path_factory.mktemp("films")
    found = {
        "hostile": write_dicom(chest(3, "covid", 300), folder / "hostile.dcm", monochrome1=True),
        "plain": write_dicom(chest(4, "normal", 300), folder / "plain.dcm"),
        "hand": write_dicom(chest(5, "normal", 300), folder / "hand.dcm", body_part="HAND"),
    }
    dataset = pydicom.dcmread(found["hostile"])
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = PATIENT, '"><img src=x>', "A-77"
    dataset.save_as(found["hostile"])
    found["cut"] = folder / "cut.dcm"
    found["cut"].write_bytes(found["plain"].read_bytes()[:60_000])
    return found

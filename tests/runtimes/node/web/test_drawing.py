"""The page while the process that draws films stands still: everything else is answered, and it recovers."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import LONG_S, until

from edgecxr.runtimes.node.caller import Peer
from edgecxr.runtimes.node.config import DicomSection
from edgecxr.runtimes.node.drawings import Drawings
from edgecxr.runtimes.node.receiver import Receiver
from edgecxr.runtimes.node.sender import send

ASKING = 45  # more than the server has threads


def test_a_film_that_stalls_holds_nothing_else_up(
    served: Any, films: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.api.TURN_S", 1.0)
    drawings = served.clinic.drawings = Drawings(served.clinic.spool, 10 * LONG_S)
    good, poison = (served.post(films[name], wait=0).json()["links"]["film"] for name in ("plain", "hostile"))
    assert served.client.get(good).status_code == 200
    stopped = drawings.pid
    os.kill(stopped, signal.SIGSTOP)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=LONG_S) as client:
            answers.append(client.get(poison))

    threads = [threading.Thread(target=ask) for _ in range(ASKING)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) == ASKING - 2)  # one waits for the process, and one for that one
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
    assert served.client.get("/healthz").text == "ok\n"
    assert served.client.get("/").status_code == 200
    assert served.post(films["hand"], wait=0).status_code == 202
    receiver = Receiver(served.clinic.spool, DicomSection(host="127.0.0.1", port=0))
    receiver.start()
    try:
        sent = send([films["cut"]], Peer("EDGECXR", "127.0.0.1", receiver.port), "UNIT")
    finally:
        receiver.stop(0)
    assert [result.status for result in sent] == [0]
    os.kill(stopped, signal.SIGKILL)
    for thread in threads:
        thread.join(LONG_S)
    assert sorted(answer.status_code for answer in answers[-2:]) == [200, 500]
    (told,) = (answer.json()["error"] for answer in answers if answer.status_code == 500)
    assert told == "the film cannot be shown: its drawing failed: the drawing process died (SIGKILL)"
    assert served.client.get(poison).status_code == 200
    assert served.client.get("/healthz").status_code == 200

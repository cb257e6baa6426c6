"""The API over a real server, spool and screener."""

import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import imagecodecs
import numpy as np
import pytest
from waiting import until

from edgecxr.runtimes.node.spool import Arrival, Outcome
from edgecxr.runtimes.node.web.intake import PIECE

Films = dict[str, Path]


def test_post_waits_for_the_decision(served: Any, films: Films) -> None:
    with served.clinic.working():
        answer = served.post(films["plain"])
    assert answer.status_code == 200
    record = answer.json()
    assert record["status"] == "ok"
    assert [item["name"] for item in record["findings"]] == ["covid", "pneumonia"]
    assert record["bundle"] == served.clinic.screener.bundle.digest
    assert answer.headers["location"] == record["links"]["self"]
    again = served.client.get(record["links"]["self"])
    assert again.status_code == 200
    assert again.json() == record


def test_what_is_answered_is_what_the_screener_says(served: Any, films: Films) -> None:
    with served.clinic.working():
        record = served.post(films["hostile"]).json()
    told = served.clinic.screener.screen(films["hostile"]).to_json()
    assert record["findings"] == told["findings"]
    assert {key: record[key] for key in ("status", "reason", "engine", "precision", "kernel")} == {
        key: told[key] for key in ("status", "reason", "engine", "precision", "kernel")
    }


def test_posted_bytes_are_kept_as_they_came(served: Any, films: Films) -> None:
    image = served.post(films["plain"], wait=0).json()["id"]
    kept = served.clinic.spool.get(image)
    assert served.clinic.spool.path(kept).read_bytes() == films["plain"].read_bytes()
    assert kept.sop_instance
    assert kept.syntax == "1.2.840.10008.1.2.1"
    assert kept.source == "http"


def test_without_a_decision_it_says_where_to_ask(served: Any, films: Films) -> None:
    answer = served.post(films["plain"], wait=0.05)
    assert answer.status_code == 202
    assert answer.json()["status"] == "waiting"
    assert answer.json()["findings"] == []
    assert served.client.get(answer.headers["location"]).status_code == 202
    served.clinic.screen_next()
    assert served.client.get(answer.headers["location"]).json()["status"] == "ok"


def test_a_refused_film_is_no_error_and_no_finding(served: Any, films: Films) -> None:
    with served.clinic.working():
        answer = served.post(films["hand"])
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["reason"]) == ("refused", "not_a_chest")
    assert answer.json()["findings"] == []
    image = answer.json()["id"]
    assert set(answer.json()["links"]) == {"self", "sr", "capture"}
    assert served.client.get(f"/v1/results/{image}/heatmap.png").status_code == 404
    assert "not_a_chest" in served.client.get(f"/v1/results/{image}/film.png").json()["error"]


def test_a_quarantined_image_is_an_error_and_never_a_finding(served: Any, films: Films) -> None:
    image = served.post(films["plain"], wait=0).json()["id"]
    for _ in range(2):
        served.clinic.spool.claim()
        served.clinic.spool.fail(image, "the worker crashed")
    for answer in (served.client.get(f"/v1/results/{image}"), served.post(films["plain"])):
        assert answer.status_code == 500
        assert (answer.json()["status"], answer.json()["error"]) == ("error", "the worker crashed")
        assert answer.json()["findings"] == []


def test_a_decided_image_that_went_into_quarantine_shows_no_finding(served: Any, films: Films) -> None:
    served.post(films["plain"], wait=0)
    served.clinic.screen_next()
    served.clinic.spool.path(served.clinic.spool.get(1)).unlink()
    served.clinic.spool.recover()
    answer = served.client.get("/v1/results/1")
    assert answer.status_code == 500
    assert answer.json()["findings"] == []
    for name in ("heatmap.png", "cam.npy", "sr.dcm", "capture.dcm"):
        assert served.client.get(f"/v1/results/1/{name}").status_code == 404
    page = served.client.get("/results/1").text
    assert "There is no result" in page
    for word in ("negative", "positive", "Heatmap", "sr.dcm"):
        assert word not in page


def test_a_body_that_drips_is_given_up(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.web.intake.SILENCE_S", 0.3)
    monkeypatch.setattr("edgecxr.runtimes.node.web.intake.SLOWEST", 1_000_000)

    def drips() -> Iterator[bytes]:
        for _ in range(300):
            yield b"x"
            time.sleep(0.1)

    answer = served.client.post("/v1/screen", content=drips())
    assert answer.status_code == 408
    assert "send it again" in answer.json()["error"]
    assert sum(served.clinic.spool.counts().values()) == 0


def test_the_address_of_the_next_page_is_one(served: Any, films: Films) -> None:
    served.post(films["plain"], wait=0)
    image = served.clinic.spool.claim()
    findings = [{"name": "Pleural effusion & more", "probability": 0.9, "threshold": 0.5, "decision": "positive"}]
    record = {"status": "ok", "findings": findings, "urgency": 0.9}
    served.clinic.spool.finish(image.id, Outcome("ok", record, None, {}, 0.9))
    answer = served.client.get("/v1/results", params={"finding": "Pleural effusion & more", "limit": 1}).json()
    assert [found["id"] for found in answer["results"]] == [1]
    assert answer["next"] == "/v1/results?finding=Pleural+effusion+%26+more&limit=1&before=1"
    assert served.client.get(answer["next"]).json()["results"] == []


def test_the_same_file_is_not_screened_twice(served: Any, films: Films) -> None:
    with served.clinic.working():
        first, second, other = (served.post(films[name]) for name in ("plain", "plain", "cut"))
    assert first.json()["id"] == second.json()["id"]
    assert [answer.headers["x-edgecxr-copy"] for answer in (first, second, other)] == ["new", "same", "other"]
    assert other.json()["reason"] == "truncated"
    both = served.client.get("/v1/results", params={"sop_instance": first.json()["sop_instance"]}).json()["results"]
    assert [item["id"] for item in both] == [first.json()["id"], other.json()["id"]]


def test_a_png_is_screened_and_has_no_dicom_result(served: Any) -> None:
    from edgecxr.phantom import chest

    film = chest(8, "normal", 256)
    png = imagecodecs.png_encode(film.pixels << np.uint16(4))
    with served.clinic.working():
        record = served.client.post("/v1/screen", content=png).json()
    assert record["status"] == "ok"
    assert record["sop_instance"].startswith("2.25.")
    assert served.client.get(f"/v1/results/{record['id']}/sr.dcm").status_code == 409


def test_pictures_and_maps(served: Any, films: Films) -> None:
    with served.clinic.working():
        record = served.post(films["hostile"]).json()
    links = record["links"]
    gray = imagecodecs.png_decode(served.client.get(links["film"]).content)
    overlay = imagecodecs.png_decode(served.client.get(links["heatmap"], params={"finding": "pneumonia"}).content)
    blended = imagecodecs.png_decode(served.client.get(links["heatmap"], params={"film": True}).content)
    assert (gray.shape, overlay.shape, blended.shape) == ((300, 300), (300, 300, 4), (300, 300, 3))
    assert gray[20:280, 20:280].std() > 10
    answer = served.client.get(links["cam"])
    stored = served.clinic.spool.result(record["id"])
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), stored.cam)
    assert answer.headers["x-classes"] == "normal,covid,pneumonia"
    assert "covid, pneumonia" in served.client.get(links["heatmap"], params={"finding": "gout"}).json()["error"]
    assert served.client.get(links["sr"]).headers["content-type"] == "application/dicom"
    assert served.client.get("/v1/results").json()["results"] == [record]


def test_too_large_is_refused_with_and_without_a_promise(served: Any) -> None:
    large = b"\x89PNG" + b"x" * 5_000_000
    for content in (large, (large[start : start + 65536] for start in range(0, len(large), 65536))):
        answer = served.client.post("/v1/screen", content=content)
        assert answer.status_code == 413
        assert "spool.max_object_mb" in answer.json()["error"]
    assert sum(served.clinic.spool.counts().values()) == 0


def test_a_full_spool_takes_nothing(serve: Callable[..., Any], films: Films) -> None:
    served = serve()
    served.clinic.spool.limits = served.clinic.spool.limits.model_copy(update={"max_waiting": 1})
    assert served.post(films["plain"], wait=0).status_code == 202
    answer = served.post(films["hand"], wait=0)
    assert answer.status_code == 507
    assert "max_waiting" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "told"),
    [
        (b"", {}, 400, "the body is empty"),
        (b"x", {"content-type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
    ],
)
def test_misuse_is_told(served: Any, content: bytes, headers: dict[str, str], status: int, told: str) -> None:
    answer = served.client.post("/v1/screen", content=content, headers=headers)
    assert answer.status_code == status
    assert told in answer.json()["error"]


def test_a_body_cut_off_leaves_nothing(served: Any) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
        connection.sendall(b"POST /v1/screen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
    assert served.client.get("/healthz").status_code == 200
    assert sum(served.clinic.spool.counts().values()) == 0


def test_listing_by_state_and_page(served: Any, films: Films) -> None:
    for name in ("plain", "hostile", "hand"):
        served.post(films[name], wait=0)
    first = served.client.get("/v1/results", params={"limit": 2}).json()
    assert [item["id"] for item in first["results"]] == [3, 2]
    assert [item["id"] for item in served.client.get(first["next"]).json()["results"]] == [1]
    served.clinic.screen_next()
    waiting = served.client.get("/v1/results", params={"state": ["received", "screening"]}).json()
    assert {item["status"] for item in waiting["results"]} == {"waiting"}
    assert "state" in served.client.get("/v1/results", params={"state": "lost"}).json()["error"]


def test_absent_images(served: Any) -> None:
    for path in ("", "/film.png", "/heatmap.png", "/cam.npy", "/sr.dcm"):
        answer = served.client.get(f"/v1/results/7{path}")
        assert answer.status_code == 404
        assert "no image 7" in answer.json()["error"]


def test_openapi_describes_every_answer(served: Any) -> None:
    document = served.client.get("/openapi.json").json()
    posted = document["paths"]["/v1/screen"]["post"]
    assert {"200", "202", "400", "413", "500", "507"} <= set(posted["responses"])
    assert "application/dicom" in posted["requestBody"]["content"]
    assert "Research use only" in document["info"]["description"]
    assert served.client.get("/docs").status_code == 404
    assert json.dumps(document)


def test_probes(served: Any) -> None:
    assert served.client.get("/healthz").text == "ok\n"
    assert served.client.get("/readyz").status_code == 200
    assert served.client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    status = served.client.get("/v1/status").json()
    assert status["images"]["received"] == 0
    assert status["temperature_c"] == 51.5
    served.clinic.problems = ("no engine",)
    ready = served.client.get("/readyz")
    assert (ready.status_code, ready.json()["problems"]) == (503, ["no engine"])


def test_a_unix_socket_for_programs_of_this_machine(serve: Callable[..., Any], tmp_path: Path, films: Films) -> None:
    path = tmp_path / "node.sock"
    served = serve(socket=path)
    assert path.stat().st_mode & 0o777 == 0o660
    with served.clinic.working():
        assert served.post(films["plain"]).json()["status"] == "ok"
    served.server.stop()
    assert not path.exists()


def test_many_wait_at_once_and_stop_does_not_wait_for_them(served: Any, films: Films) -> None:
    import threading

    answers: list[httpx.Response] = []

    def post(name: str) -> None:
        with httpx.Client(base_url=served.url, timeout=60) as client:
            answers.append(client.post("/v1/screen", content=films[name].read_bytes()))

    threads = [threading.Thread(target=post, args=(name,)) for name in ("plain", "hostile", "hand")]
    for thread in threads:
        thread.start()
    seen = served.clinic.spool.change()
    while served.clinic.spool.counts()["received"] < 3:
        seen = served.clinic.spool.wait(seen, 1)
    served.server.stop(20)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [202, 202, 202]


def test_slow_bodies_hold_little_of_the_disk(served: Any) -> None:
    spool = served.clinic.spool
    with ExitStack() as stack:
        for _ in range(8):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", served.server.port), timeout=30))
            slow.sendall(b"POST /v1/screen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nDICM")
        until(lambda: len(spool._parts) == 8)
        assert sum(part.reserved for part in spool._parts._open) == 8 * PIECE


def test_who_was_given_a_result_is_noted(served: Any, films: Films) -> None:
    spool = served.clinic.spool

    def is_fetched() -> bool:
        with spool._database.read() as connection:
            return connection.execute("SELECT fetched FROM results WHERE image = 1").fetchone()[0] is not None

    assert served.post(films["plain"], wait=0).status_code == 202
    served.clinic.screen_next()
    for address in ("/v1/results/1/film.png", "/"):
        assert served.client.get(address).status_code == 200
    assert not is_fetched()
    for address in (
        "/v1/results/1",
        "/v1/results",
        f"/v1/results?sop_instance={spool.get(1).sop_instance}",
        "/results/1",
    ):
        assert served.client.get(address).status_code == 200
        until(is_fetched, address)
        with spool._database.write() as connection:
            connection.execute("UPDATE results SET fetched = NULL")
    assert served.post(films["plain"]).status_code == 200
    until(is_fetched)


def test_films_that_are_turned_away_are_in_the_status(served: Any, films: Films) -> None:
    for _ in range(2):
        assert served.client.post("/v1/screen", content=bytes(5_000_000)).status_code == 413
    for number in range(50):
        with served.clinic.spool.part() as part:
            part.write(str(number).encode())
            served.clinic.spool.commit(part, Arrival("", "", "", "folder"))
    assert served.post(films["plain"], wait=0).status_code == 507
    until(lambda: served.client.get("/v1/status").json()["turned_away_hour"] == 3)
    until(lambda: len(served.client.get("/v1/status").json()["turned_away"]) == 2)
    newest, before = served.client.get("/v1/status").json()["turned_away"]
    assert (newest["answer"], newest["reason"], newest["number"]) == ("HTTP 507", "no room for another image", 1)
    assert (before["answer"], before["reason"], before["number"]) == (
        "HTTP 413",
        "the object is larger than is taken",
        2,
    )
    assert (newest["calling_ae"], newest["address"], newest["first"]) == ("", "127.0.0.1", newest["last"])

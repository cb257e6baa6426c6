"""The pages as the server renders them: what a browser without scripts shows."""

import re
import threading
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgecxr.runtimes.node.images import State

Films = dict[str, Path]
VOID = {"meta", "link", "img", "input", "rect", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        if self._open:
            raise ValueError(f"not closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._open.pop() != tag:
            raise ValueError(f"</{tag}> closes another element")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def full(served: Any, films: Films) -> Any:
    """A clinic with a decided, a refused, a truncated, a quarantined and a waiting image: ids 1 to 5."""
    for name in ("hostile", "hand", "cut"):
        served.post(films[name], wait=0)
        served.clinic.screen_next()
    served.client.post("/v1/screen", content=b"one", params={"wait": 0})
    for _ in range(2):
        served.clinic.spool.claim()
        served.clinic.spool.fail(4, "the process <crashed>")
    served.post(films["plain"], wait=0)
    return served


def shown(served: Any, query: str = "") -> list[int]:
    """Ids of the rows, in order."""
    return [int(found) for found in re.findall(r'data-image="(\d+)"', served.client.get(f"/{query}").text)]


def test_every_image_is_there_whatever_became_of_it(full: Any) -> None:
    page = Page(full.client.get("/").text)
    assert shown(full) == [5, 4, 3, 2, 1]
    for word in ("waiting", "quarantined", "the process <crashed>", "refused", "'HAND'", "decided", "Zoë", "A-77"):
        assert word in page.text
    assert "Research use only" in page.text


@pytest.mark.parametrize("path", ["/", "/rows", "/results/1", "/health"])
def test_what_a_file_says_is_never_markup(full: Any, path: str) -> None:
    page = Page(full.client.get(path).text)
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag in ("img", "script")]
    assert all(source.startswith(("/static/", "/v1/")) for source in sources)
    assert [tag for tag, _ in page.tags].count("script") <= 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", ["/", "/results/1", "/results/2", "/health", "/login", "/static/style.css"])
def test_nothing_comes_from_elsewhere(full: Any, path: str) -> None:
    text = full.client.get(path).text.replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"https?://|url\(|@import|//[a-z]+\.", text)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("?state=waiting", [5]),
        ("?state=quarantined", [4]),
        ("?state=refused", [3, 2]),
        ("?state=decided", [1]),
        ("?finding=positive", [1]),
        ("?finding=gout", []),
        ("?text=zo%C3%AB", [1]),
        ("?text=a-77", [1]),
        ("?text=%25", []),
        ("?order=urgent", [1, 3, 2, 5, 4]),
        ("?period=day", [5, 4, 3, 2, 1]),
        ("?before=3", [2, 1]),
        ("?state=nonsense&before=x&order=y&period=z", [5, 4, 3, 2, 1]),
    ],
)
def test_filters(full: Any, query: str, ids: list[int]) -> None:
    assert shown(full, query) == ids


def test_long_lists_have_pages(served: Any) -> None:
    for number in range(51):
        with served.clinic.spool.part() as part:
            from edgecxr.runtimes.node.spool import Arrival

            part.write(f"{number}".encode())
            served.clinic.spool.commit(part, Arrival("", "", "", "folder"))
            served.clinic.spool.claim()
    first = served.client.get("/").text
    assert shown(served) == list(range(51, 1, -1))
    following = re.search(r'href="(/\?[^"]+)" rel="next"', first)
    assert following is not None
    assert shown(served, following[1].lstrip("/")) == [1]


def test_a_film_of_a_watched_folder_is_called_by_its_file(served: Any) -> None:
    from edgecxr.runtimes.node.spool import Arrival

    for source in ("folder", "http"):
        with served.clinic.spool.part() as part:
            part.write(source.encode() * 7000)
            served.clinic.spool.commit(part, Arrival("", "", "", source, "ward/<b>\u202efilm.png"))
    for path in ("/", "/results/1"):
        page = Page(served.client.get(path).text)
        assert "ward/<b>film.png" in page.text
        assert "b" not in [tag for tag, _ in page.tags]
    assert "42 kB" in page.text
    rows = served.client.get("/").text
    assert ("Image 1" in rows, "Image 2" in rows) == (False, True)


@pytest.mark.parametrize("offset", ["+0545", "-0330"])
def test_times_are_in_the_zone_of_the_node(served: Any, films: Films, offset: str) -> None:
    section = served.clinic.config.results.model_copy(update={"timezone": offset})
    served.clinic.config = served.clinic.config.model_copy(update={"results": section})
    served.post(films["plain"], wait=0)
    told = re.search(r"[\d-]{10} [\d:]{8} [+-]\d{4}", served.client.get("/results/1").text)
    assert told is not None
    when = datetime.strptime(told[0], "%Y-%m-%d %H:%M:%S %z")
    assert told[0].endswith(offset)
    assert when.timestamp() == int(served.clinic.spool.get(1).received)
    assert when.strftime("%H:%M") in served.client.get("/").text


def test_one_result(full: Any) -> None:
    page = Page(full.client.get("/results/1").text)
    record = full.client.get("/v1/results/1").json()
    for word in (f"{record['findings'][1]['probability']:.3f}", f"threshold {record['findings'][0]['threshold']:.3f}"):
        assert word in page.text
    for word in (record["bundle"], record["engine"], "covid3", "screening", record["sop_instance"]):
        assert word in page.text
    assert "heatmap.png?finding=covid" in full.client.get("/results/1?finding=covid").text


def test_what_was_not_screened_has_no_score(full: Any) -> None:
    for image, words in ((2, "A refusal is not a negative"), (4, "There is no result"), (5, "Waiting for screening")):
        text = full.client.get(f"/results/{image}").text
        assert words in text
        assert 'class="score' not in text
        assert "small>threshold" not in text


def test_a_film_that_was_not_read_has_its_reason_instead_of_a_picture(full: Any) -> None:
    for image, drawn in ((1, True), (2, False), (3, False), (5, True)):
        page = full.client.get(f"/results/{image}").text
        assert ('<img id="film"' in page) is drawn
        assert ("No picture, because the film was refused: " in page) is not drawn
    detail = full.client.get("/v1/results/2").json()["detail"]
    assert f"refused: {detail}. Nothing is drawn" in Page(full.client.get("/results/2").text).text


def test_a_result_in_doubt_is_marked_and_can_be_had_again(full: Any) -> None:
    told = "the engine that gave it failed its next proof: logits differ"
    assert shown(full, "?state=doubt") == []
    assert full.clinic.spool.doubts.mark("proof", told, lambda *record: "2.25.1") >= 2
    worklist = full.client.get("/").text
    assert worklist.count(">in doubt</span>") >= 2
    number = full.client.get("/v1/status").json()["doubtful"]
    assert f'<a class="alarm" href="/?state=doubt">{number} in doubt</a>' in worklist
    ids = shown(full, "?state=doubt")
    assert len(ids) == number
    assert 1 in ids
    assert not {4, 5} & set(ids)
    page = full.client.get("/results/1").text
    assert f"This result is in doubt: {told}" in page
    assert "Screen it again" in page
    answer = full.client.get("/v1/results/1").json()
    assert (answer["status"], answer["doubt"]) == ("ok", told)
    assert full.client.get("/v1/status").json()["doubtful"] >= 2
    assert full.client.post("/results/1/retry").status_code == 303
    assert full.client.get("/v1/results/1").status_code == 202


def test_quarantine_and_clock_are_on_the_page_of_health(full: Any) -> None:
    status = full.client.get("/v1/status").json()
    aside = [image for image, _ in full.clinic.spool.listing(states=[State.QUARANTINED])]
    assert status["quarantined_bytes"] == sum(image.size for image in aside) > 0
    page = full.client.get("/health").text
    assert "kept until a person decides" in page
    assert "not synchronised: dates and times may be wrong" in page


def test_by_hand_again(full: Any) -> None:
    answer = full.client.post("/results/4/retry", headers={"origin": full.url})
    assert (answer.status_code, answer.headers["location"]) == (303, "/results/4")
    assert full.client.get("/v1/results/4").json()["state"] == "received"
    assert full.client.post("/results/1/retry").status_code == 409


def test_a_page_that_is_not_there(served: Any) -> None:
    answer = served.client.get("/results/77", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "no image 77" in Page(answer.text).text


@pytest.mark.parametrize("address", ["/results/abc", "/results/0"])
def test_a_mistyped_address_is_told_as_a_page(served: Any, address: str) -> None:
    answer = served.client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == 400
    assert "the address has a mistake" in Page(answer.text).text


def test_problems_are_on_every_page(full: Any) -> None:
    full.clinic.problems = ("the disk is nearly full",)
    for path in ("/", "/health", "/results/1"):
        assert "the disk is nearly full" in full.client.get(path).text


def test_events_tell_of_changes_and_do_not_hold_up_the_end(served: Any, films: Films) -> None:
    heard: list[str] = []
    listening = threading.Barrier(11)

    def listen() -> None:
        with httpx.Client(timeout=60) as client, client.stream("GET", f"{served.url}/events") as answer:
            lines = answer.iter_lines()
            while not next(lines).startswith("data:"):
                pass
            listening.wait(30)
            heard.extend(line for line in lines if line.startswith("event:"))

    threads = [threading.Thread(target=listen) for _ in range(10)]
    for thread in threads:
        thread.start()
    listening.wait(30)
    before = threading.active_count()
    served.post(films["plain"], wait=0)
    seen = served.clinic.spool.change()
    served.clinic.screen_next()
    assert served.clinic.spool.wait(seen, 10) > seen
    assert threading.active_count() <= before + 5
    while len(heard) < 10:
        served.clinic.spool.wait(served.clinic.spool.change(), 0.1)
        if not any(thread.is_alive() for thread in threads):
            break
    served.server.stop(20)
    for thread in threads:
        thread.join(20)
    assert len(heard) >= 10


def test_each_delivery_is_told(served: Any, films: Films) -> None:
    from edgecxr.runtimes.node.spool import NewDelivery, Outcome

    spool = served.clinic.spool
    served.post(films["hostile"], wait=0)
    served.clinic.screen_next()
    result = spool.result(1)
    served.post(films["plain"], wait=0)
    image = spool.claim()
    new = [NewDelivery("pacs", "sr", "2.25.1"), NewDelivery("pacs", "capture", "2.25.2")]
    spool.finish(image.id, Outcome("ok", {**result.record, "image": 2}, result.cam, {}, 0.5), new)
    spool.sent(spool.deliveries(2)[0][0].id, "2.25.1")
    spool.postpone(spool.deliveries(2)[1][0].id, "connection <refused>", 0.0)
    text = Page(served.client.get("/results/2").text).text
    assert re.search(r"Report to pacs\s+delivered \d", text)
    assert re.search(r"Picture to pacs\s+not yet, 1 attempt: connection <refused>", text)
    assert shown(served, "?state=undelivered") == [2]


def test_people_are_named_as_people_write_them() -> None:
    from edgecxr.runtimes.node.web.worklist import person

    assert person("Doe^Jane^Mary^Dr.^MD") == "Doe, Dr. Jane Mary MD"
    assert person("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce") == "Yamada, Tarou (\u5c71\u7530, \u592a\u90ce)"
    assert person("") == ""
    assert person("a\u202eb\x00^") == "ab"


def test_what_was_turned_away_is_on_the_page_and_never_markup(served: Any) -> None:
    assert "turned away at the door" not in served.client.get("/").text
    assert "Nothing was." in served.client.get("/health").text
    served.clinic.spool.door.note("<b>UNIT</b>", "10.0.0.9", "C-STORE 0xA900", "another instance")
    served.clinic.spool.door.write()
    assert "1 turned away at the door in the last hour" in Page(served.client.get("/").text).text
    page = Page(served.client.get("/health").text)
    for word in ("<b>UNIT</b>", "10.0.0.9", "C-STORE 0xA900", "another instance"):
        assert word in page.text

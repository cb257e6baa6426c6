"""Films drawn in a process that is stopped or killed meanwhile: they are given up, and the rest are drawn."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import LONG_S, until

from edgecxr.errors import DrawingError, Refusal
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.drawing_process import draw_film
from edgecxr.runtimes.node.drawings import Drawings
from edgecxr.runtimes.node.spool import Arrival, Image, Spool, State


@pytest.fixture
def put(spool: Spool, tmp_path: Path) -> Callable[..., Image]:
    def put(number: int, data: bytes = b"") -> Image:
        data = data or write_dicom(chest(number, size=128), tmp_path / f"{number}.dcm").read_bytes()
        with spool.part() as part:
            part.write(data)
            return spool.get(spool.commit(part, Arrival("", f"2.25.{number}", "", "dicom")).image)

    return put


@pytest.fixture
def opened(spool: Spool) -> Iterator[Callable[..., Drawings]]:
    made: list[Drawings] = []

    def opened(timeout_s: float = LONG_S) -> Drawings:
        made.append(Drawings(spool, timeout_s))
        return made[-1]

    yield opened
    for drawings in made:
        drawings.close()


def test_a_film_is_drawn_as_it_would_be_here(
    spool: Spool, put: Callable[..., Image], opened: Callable[..., Drawings]
) -> None:
    image, drawings = put(1), opened()
    assert drawings.pid == 0
    for tallest, longest, shape in ((1024, 0, (128, 128)), (64, 0, (64, 64)), (1024, 300, (300, 300))):
        picture, wanted = drawings.draw(image, tallest, longest), draw_film(spool.path(image), tallest, longest)
        assert (picture.gray == wanted.gray).all()
        assert (picture.gray.shape, picture.rows, picture.columns) == (shape, 128, 128)
    pid = drawings.pid
    assert drawings.draw(image, 64, 0) is drawings.draw(image, 64, 0)
    with pytest.raises(Refusal, match="unreadable"):
        drawings.draw(put(2, b"no film"), 64, 0)
    gone = put(3)
    spool.path(gone).unlink()
    with pytest.raises((OSError, Refusal)):
        drawings.draw(gone, 64, 0)
    assert drawings.pid == pid
    drawings.close()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("number", "told"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSTOP, "no answer within 10 s")])
def test_one_that_fails_twice_is_given_up_and_the_rest_are_drawn(
    spool: Spool, put: Callable[..., Image], opened: Callable[..., Drawings], number: signal.Signals, told: str
) -> None:
    drawings = opened(10.0 if number is signal.SIGSTOP else LONG_S)
    good, poison = put(1), put(2)
    hit: set[int] = set()
    for attempt in range(2):
        drawings.draw(good, 100 + attempt, 0)
        hit.add(drawings.pid)
        os.kill(drawings.pid, signal.SIGSTOP)
        if number is signal.SIGKILL:
            threading.Timer(0.3, os.kill, (drawings.pid, signal.SIGKILL)).start()
        with pytest.raises(DrawingError, match=told) as raised:
            drawings.draw(poison, 64, 0)
        assert not raised.value.given_up
    assert len(hit) == 2
    for again in (drawings, opened()):  # also after a restart
        with pytest.raises(DrawingError, match=f"failed twice: .*{told}") as raised:
            again.draw(poison, 64, 0)
        assert raised.value.given_up
        assert again.draw(good, 64, 0).gray.shape == (64, 64)
    assert spool.claim(only=good.file) is not None
    for _ in range(2):
        assert spool.claim(only=poison.file) is not None
        state = spool.fail(poison.id, "no answer")
    assert state is State.QUARANTINED
    spool.retry(poison.id)
    assert drawings.draw(poison, 64, 0).gray.shape == (64, 64)


def test_an_attempt_that_ended_the_node_counts(
    spool: Spool, put: Callable[..., Image], opened: Callable[..., Drawings]
) -> None:
    image = put(1)
    spool.undrawn.begin(image.id)
    opened().draw(image, 64, 0)  # that went well: it counts no more
    for _ in range(2):
        assert spool.undrawn.given_up(image.id) == ""
        spool.undrawn.begin(image.id)
    with pytest.raises(DrawingError, match="the node ended meanwhile"):
        opened().draw(image, 64, 0)


def test_a_stop_ends_a_drawing_that_stalls_and_does_not_count(
    spool: Spool, put: Callable[..., Image], opened: Callable[..., Drawings]
) -> None:
    drawings, stalled = opened(), put(2)
    drawings.draw(put(1), 64, 0)
    os.kill(drawings.pid, signal.SIGSTOP)
    told: list[str] = []

    def draw() -> None:
        try:
            drawings.draw(stalled, 64, 0)
        except DrawingError as error:
            told.append(str(error))

    spool.undrawn.begin(stalled.id)
    thread = threading.Thread(target=draw)
    thread.start()
    until(lambda: spool.undrawn.given_up(stalled.id))  # the second attempt has begun
    drawings.close()
    thread.join(LONG_S)
    assert told == ["the film cannot be shown: the node is stopping"]
    assert spool.undrawn.given_up(stalled.id) == ""
    assert drawings.pid == 0

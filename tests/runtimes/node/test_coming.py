"""Films are offered for as long as their commit takes, each to one worker."""

from pathlib import Path

import pytest
from spools import put

from edgecxr.runtimes.node.coming import Coming
from edgecxr.runtimes.node.spool import Spool

PART, PLACE = Path("incoming/1.part"), Path("films/1.dcm")


def test_a_film_is_there_while_it_is_committed() -> None:
    told: list[bool] = []
    coming = Coming(lambda: told.append(bool(coming)))
    with coming.film("1.dcm", PART, PLACE):
        assert coming
    assert not coming
    assert coming.take("one") is None
    assert told == [True]


def test_one_worker_takes_it_and_keeps_it_from_the_others_until_it_lets_go() -> None:
    nudges: list[int] = []
    coming = Coming(lambda: nudges.append(1))
    with coming.film("1.dcm", PART, PLACE), coming.film("2.dcm", PART, PLACE):
        first, second, third = (coming.take(name) for name in ("one", "two", "three"))
        assert first is not None
        assert second is not None
        assert third is None
        assert (first.name, second.name, first.over) == ("1.dcm", "2.dcm", False)
        assert coming.kept_from("one") == ["2.dcm"]
        assert coming.kept_from("three") == ["1.dcm", "2.dcm"]
    assert first.over
    assert len(nudges) == 4  # of each its beginning, and its end
    coming.let_go(first)
    assert coming.kept_from("three") == ["2.dcm"]


def test_a_commit_that_fails_is_over_too() -> None:
    coming, taken = Coming(lambda: None), []

    def fail() -> None:
        with coming.film("1.dcm", PART, PLACE):
            taken.append(coming.take("one"))
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fail()
    assert [film is not None and film.over for film in taken] == [True]


def test_the_spool_offers_what_is_new_under_the_name_that_the_index_knows(spool: Spool) -> None:
    seen = []
    film = spool.coming.film
    spool.coming.film = lambda name, part, place: seen.append((name, part.exists(), place)) or film(name, part, place)  # type: ignore[func-returns-value,method-assign]
    image = spool.get(put(spool, "1.2.3").image)
    put(spool, "1.2.3")  # a copy is no film
    assert seen == [(image.file, True, spool.path(image))]
    assert not spool.coming


def test_others_leave_what_one_has_begun(spool: Spool) -> None:
    first, second = (spool.get(put(spool, f"1.2.{number}").image) for number in (3, 4))
    assert spool.claim(only="another.dcm") is None
    assert spool.claim(but=[first.file, second.file]) is None
    claimed = spool.claim(but=[first.file])
    assert claimed is not None
    assert claimed.id == second.id
    claimed = spool.claim(only=first.file)
    assert claimed is not None
    assert (claimed.id, claimed.attempts) == (first.id, 1)
    assert spool.claim() is None

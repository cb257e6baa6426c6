"""The files of the spool: every folder is there before a film comes, and a film that cannot be kept leaves nothing."""

from pathlib import Path

import pytest

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.films import Films


@pytest.fixture
def films(tmp_path: Path) -> Films:
    made = Films(tmp_path)
    made.folder.mkdir()
    return made


def test_every_folder_is_there_at_once_and_twice_is_harmless(films: Films) -> None:
    films.prepare()
    films.prepare()
    assert sorted(path.name for path in films.folder.iterdir()) == [f"{number:02x}" for number in range(256)]


def test_a_folder_that_cannot_be_made_stops_no_film_of_another(films: Films, tmp_path: Path) -> None:
    (films.folder / "00").write_text("no folder")
    films.prepare()
    (tmp_path / "1.part").write_bytes(b"film")
    films.keep(tmp_path / "1.part", films.place("ab12.dcm"))
    assert films.place("ab12.dcm").read_bytes() == b"film"


def test_a_film_is_moved_to_its_place_with_or_without_folders(films: Films, tmp_path: Path) -> None:
    (tmp_path / "1.part").write_bytes(b"film")
    place = films.place("ab12.dcm")
    assert place == tmp_path / "films" / "ab" / "ab12.dcm"
    films.keep(tmp_path / "1.part", place)
    assert place.read_bytes() == b"film"
    assert not (tmp_path / "1.part").exists()


def test_what_cannot_be_kept_is_gone(films: Films, tmp_path: Path) -> None:
    (tmp_path / "1.part").write_bytes(b"film")
    (films.folder / "ab").write_text("no folder")
    with pytest.raises(SpoolError, match="could not be filed in the spool"):
        films.keep(tmp_path / "1.part", films.place("ab12.dcm"))
    assert not (tmp_path / "1.part").exists()

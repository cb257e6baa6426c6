"""The films of a build: how they are read decides what is cached, where it makes a difference and nowhere else."""

from pathlib import Path

import pytest

from edgecxr.export.films import Films, gather_films
from edgecxr.export.recipe import load_recipe
from edgecxr.export.stages import Workshop
from edgecxr.phantom import chest, write_dataset, write_dicom
from edgecxr.spec import IN_FULL, ReadingSpec

pytestmark = pytest.mark.train
REDUCED = ReadingSpec(jpeg2000="reduced")
RECIPE = """
name: tiny
version: "1"
data: {folds: {train: [0, 1, 2], validate: [3], test: [4]}}
heads: [{head: {name: diagnosis, kind: softmax, classes: [normal, covid, pneumonia], reference: normal}}]
teachers: [{name: one, architecture: resnet10t}]
student: {architecture: resnet10t}
card: {intended_use: tests, limits: all, data: drawn}
"""


def gathered(folder: Path, place: Path, reading: str = "") -> tuple[Films, str]:
    """The films of a recipe with this `reading`, and the digest of the stage that all others build on."""
    recipe = place / "tiny.yaml"
    recipe.write_text(RECIPE + reading)
    workshop = Workshop(place / "work")
    films = gather_films(load_recipe(recipe, data=folder), workshop)
    return films, workshop.outcomes["data"].digest


def test_photographs_are_cached_alike_whatever_is_declared_of_jpeg_2000(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "films", 60, size=64)
    plain, digest = gathered(folder, tmp_path)
    told, same = gathered(folder, tmp_path, "reading: {jpeg2000: reduced}")
    assert (plain.reading, told.reading, same) == (IN_FULL, IN_FULL, digest)


def test_one_dicom_film_makes_the_difference(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "films", 60, size=64)
    film = sorted(folder.rglob("*.png"))[7]
    film.write_bytes(write_dicom(chest(1, size=256), tmp_path / "film", syntax="jpeg2000").read_bytes())
    plain, digest = gathered(folder, tmp_path)
    full, same = gathered(folder, tmp_path, "reading: {jpeg2000: full}")
    told, other = gathered(folder, tmp_path, "reading: {jpeg2000: reduced}")
    assert (plain.reading, full.reading, told.reading) == (IN_FULL, IN_FULL, REDUCED)
    assert digest == same != other

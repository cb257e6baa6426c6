"""The films of a build: read or drawn, selected by purpose, preprocessed once per specification."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgecxr.dataset import Dataset, HeadColumns, load_dataset
from edgecxr.export.completeness import check_completeness
from edgecxr.export.recipe import Folds, PhantomFilms, Recipe
from edgecxr.export.stages import Stage, Workshop
from edgecxr.phantom import write_dataset
from edgecxr.read import is_dicom
from edgecxr.spec import IN_FULL, PreprocessSpec, ReadingSpec
from edgecxr.teachers.film_cache import FilmCache, build_film_cache
from edgecxr.teachers.progress import Progress
from edgecxr.teachers.training import Samples

__all__ = ["Films", "Purpose", "cache_films", "gather_films"]

Purpose = Literal["train", "validate", "test"]
PURPOSES: tuple[Purpose, ...] = ("train", "validate", "test")


@dataclass(frozen=True)
class Films:
    """Every film of the recipe's folds with its labels."""

    dataset: Dataset
    folds: Folds
    stage: str = "data"
    reading: ReadingSpec = IN_FULL  # the recipe's where it makes a difference

    def rows(self, purpose: Purpose) -> NDArray[np.intp]:
        """Rows of `dataset.films` that serve the purpose."""
        return self.fold_rows(self.folds.of(purpose))

    def fold_rows(self, folds: tuple[int, ...]) -> NDArray[np.intp]:
        """Rows of `dataset.films` in these folds."""
        return np.array([row for row, film in enumerate(self.dataset.films) if film.fold in folds], dtype=np.intp)

    def labelled_rows(
        self, purpose: Purpose, heads: tuple[HeadColumns, ...], folds: tuple[int, ...] | None = None
    ) -> NDArray[np.intp]:
        """Rows of the purpose (or of `folds`) that have a label in at least one of the heads."""
        rows = self.rows(purpose) if folds is None else self.fold_rows(folds)
        known = np.zeros(len(self.dataset.films), dtype=bool)
        for item in heads:
            values = self.dataset.targets(item)
            known |= values >= 0 if values.ndim == 1 else ~np.isnan(values).all(axis=1)
        return rows[known[rows]]

    def samples(self, cache: FilmCache, rows: NDArray[np.intp], heads: tuple[HeadColumns, ...]) -> Samples:
        """Images and targets of these rows, for training."""
        targets = {item.head.name: self.dataset.targets(item)[rows] for item in heads}
        return Samples(np.asarray(cache.images[rows]), targets)


def gather_films(recipe: Recipe, workshop: Workshop) -> Films:
    """Stage `data`: every film checked, phantoms drawn where there is no folder.

    Raises DatasetError, with every problem: a film or a label that is wrong, folds that lack a class.
    """
    heads = (*recipe.heads, *(recipe.pretrain.heads if recipe.pretrain else ()))
    if recipe.data.folder is None:
        phantom = recipe.data.phantom or PhantomFilms()
        inputs = {"phantom": phantom.model_dump(mode="json")}
        folder = workshop.run(Stage("data", lambda place: _draw(place, phantom), inputs))
        dataset, reading = load_dataset(folder, labels=recipe.data.labels, heads=heads), IN_FULL  # drawn as PNG
    else:
        dataset = load_dataset(Path(recipe.data.folder), labels=recipe.data.labels, heads=heads)
        reading = recipe.reading if _has_dicom(dataset) else IN_FULL
        told: dict[str, object] = {"digest": dataset.digest, "films": len(dataset.films)}
        told |= {} if reading == IN_FULL else {"reading": reading.model_dump(mode="json")}
        workshop.run(Stage("data", lambda place: _record(place, told), told))
    check_completeness(dataset, recipe)
    return Films(dataset, recipe.data.folds, reading=reading)


def _has_dicom(dataset: Dataset) -> bool:
    """Whether a film is in DICOM: how it is to be read is told of no other format."""
    return any(is_dicom(memoryview(_beginning(film.path))) for film in dataset.films)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(132)


def _draw(place: Path, phantom: PhantomFilms) -> None:
    write_dataset(place, phantom.films_per_finding, phantom.seed, phantom.size, columns=phantom.columns)


def _record(place: Path, told: dict[str, object]) -> None:
    (place / "dataset.json").write_text(json.dumps(told, indent=1))


def cache_films(films: Films, spec: PreprocessSpec, workshop: Workshop, progress: Progress) -> FilmCache:
    """Stage `films-<chain digest>`: all films through the deployment kernel, once per specification."""
    name = cache_stage(spec)
    inputs = {"spec": spec.model_dump(mode="json"), "folder": str(films.dataset.folder)}
    run = Stage(name, lambda place: _fill(films, spec, place, progress), inputs, ("data",))
    return build_film_cache(films.dataset, spec, workshop.run(run), reading=films.reading)


def cache_stage(spec: PreprocessSpec) -> str:
    """Name of the stage that holds films under `spec`."""
    return f"films-{spec.size}-{spec.digest[:8]}"


def _fill(films: Films, spec: PreprocessSpec, place: Path, progress: Progress) -> None:
    build_film_cache(films.dataset, spec, place, reading=films.reading, progress=progress)

"""What every stage of a build works with: the recipe, the films, the workshop, a progress display."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecxr.dataset import HeadColumns
from edgecxr.export.films import Films, Purpose, cache_films
from edgecxr.export.recipe import Recipe
from edgecxr.export.stages import Workshop
from edgecxr.spec import Head, PreprocessSpec, class_names
from edgecxr.teachers.film_cache import FilmCache
from edgecxr.teachers.progress import Progress
from edgecxr.teachers.training import Samples, TrainSettings

__all__ = ["Bench"]

Settings = TypeVar("Settings", bound=TrainSettings)


@dataclass(frozen=True)
class Bench:
    """The surroundings of a stage."""

    recipe: Recipe
    workshop: Workshop
    films: Films
    base: Path  # the recipe's folder, from which its paths are taken
    watch: Callable[[str], AbstractContextManager[Progress]]  # a progress display with a title

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of the model."""
        return self.recipe.model_heads

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return class_names(self.heads)

    @property
    def labels(self) -> dict[str, Any]:
        """What every learning stage depends on besides its own settings: heads, folds, seed."""
        return {
            "heads": [item.model_dump(mode="json") for item in self.recipe.heads],
            "folds": self.recipe.data.folds.model_dump(mode="json"),
            "seed": self.recipe.seed,
        }

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """By head, where its labels stand, as models record it."""
        return {item.head.name: item.model_dump(mode="json", exclude={"head"}) for item in self.recipe.heads}

    @property
    def calibration(self) -> dict[str, Any]:
        """What calibration depends on besides the labels."""
        return self.recipe.quantize.model_dump(mode="json", include={"methods", "calibration_films"})

    def cache(self, spec: PreprocessSpec) -> FilmCache:
        """All films under `spec`, preprocessed on first use."""
        with self.watch("films") as progress:
            return cache_films(self.films, spec, self.workshop, progress)

    def images(self, spec: PreprocessSpec) -> NDArray[np.float16]:
        """(N, 1, S, S) of all films under `spec`, in the order of the data set."""
        return self.cache(spec).images

    def labelled(self, purpose: Purpose) -> NDArray[np.intp]:
        """Rows of the purpose with a label for the model."""
        return self.films.labelled_rows(purpose, self.recipe.heads)

    def samples(self) -> tuple[Samples, Samples]:
        """The student's (training, validation) films with their labels.

        Training films without a label for the model are among them: the teachers say something about those, too.
        """
        heads, cache = self.recipe.heads, self.cache(self.recipe.preprocess)
        return (
            self.films.samples(cache, self.films.rows("train"), heads),
            self.films.samples(cache, self.labelled("validate"), heads),
        )

    def lessons(
        self, heads: tuple[HeadColumns, ...], spec: PreprocessSpec, folds: tuple[int, ...] | None = None
    ) -> tuple[Samples, Samples]:
        """(training, validation) films under `spec` with labels for `heads`; of `folds` instead of training ones."""
        films, cache = self.films, self.cache(spec)
        return (
            films.samples(cache, films.labelled_rows("train", heads, folds), heads),
            films.samples(cache, films.labelled_rows("validate", heads), heads),
        )

    def seeded(self, settings: Settings, stage: str) -> Settings:
        """Settings with a seed of the stage's own, so that two networks of one architecture differ."""
        mixed = np.random.SeedSequence([self.recipe.seed, settings.seed, *stage.encode()]).generate_state(1)[0]
        return settings.model_copy(update={"seed": int(mixed)})

    def targets(self, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """Targets of these rows, by head."""
        return {item.head.name: self.films.dataset.targets(item)[rows] for item in self.recipe.heads}

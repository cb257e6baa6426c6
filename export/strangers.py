"""Pictures that the refusal gate learns from, besides the films: what it must refuse, and altered films it must not."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.export import misfits
from edgecxr.export.bench import Bench
from edgecxr.export.stages import Stage, code_of

__all__ = ["STAGE", "strangers"]

STAGE = "misfits"
FILMS = 1000  # training films that are altered, at most


def strangers(bench: Bench) -> dict[str, NDArray[np.float32]]:
    """Stage `misfits`: `misfit` and `variant` pictures (N, 1, S, S), made from the training films."""
    spec = bench.recipe.preprocess

    def run(place: Path) -> None:
        rows = bench.films.rows("train")
        chosen = np.random.default_rng(bench.recipe.seed).permutation(rows)[:FILMS]
        films = np.asarray(bench.images(spec)[np.sort(chosen), 0], np.float32)
        np.save(place / "misfit.npy", misfits.misfits(films, spec, bench.recipe.seed).astype(np.float16))
        np.save(place / "variant.npy", misfits.variants(films, spec, bench.recipe.seed).astype(np.float16))

    inputs = {"code": code_of(misfits), "preprocess": spec.model_dump(mode="json"), "films": FILMS, **bench.labels}
    folder = bench.workshop.run(Stage(STAGE, run, inputs, ("data",)))
    names = ("misfit", "variant")
    return {name: np.load(folder / f"{name}.npy").astype(np.float32)[:, np.newaxis] for name in names}

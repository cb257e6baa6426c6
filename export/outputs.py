"""What one ONNX file of the student says on every engine about the films of the build, as the engine gave it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.export.bench import Bench
from edgecxr.export.films import PURPOSES
from edgecxr.export.libraries import versions
from edgecxr.export.stages import Stage
from edgecxr.export.strangers import STAGE as STRANGERS
from edgecxr.export.strangers import strangers
from edgecxr.runtimes.graph import Answer, Backend, GraphSession
from edgecxr.spec import Precision

__all__ = ["FAMILIES", "Artefact", "Outputs", "collect_outputs"]

FAMILIES: dict[str, Backend] = {"openvino-cpu": "openvino", "onnxruntime-cpu": "onnxruntime"}  # the reference first


@dataclass(frozen=True)
class Artefact:
    """One ONNX file of the student, and the stage that made it."""

    precision: Precision
    model: bytes
    stage: str
    method: str  # how it was reached: "export", "cast", "qat", or the name of a calibration method

    @property
    def name(self) -> str:
        """The precision, and `-qat` where it was trained for."""
        return f"{self.precision}-qat" if self.method == "qat" else self.precision


@dataclass(frozen=True)
class Outputs:
    """Answers on all validation films and on the labelled test films, by engine family; embeddings of the first."""

    validate: Mapping[str, Answer]
    test: Mapping[str, Answer]
    train: NDArray[np.float32]  # (N, D) embeddings of all training films
    misfit: NDArray[np.float32]  # (any, D) of pictures that must be refused
    variant: NDArray[np.float32]  # (any, D) of altered training films that must not be


def collect_outputs(bench: Bench, artefact: Artefact) -> Outputs:
    """Stage `scores-<precision>`: the artefact on every engine."""
    model = hashlib.sha256(artefact.model).hexdigest()
    inputs = {"model": model, "libraries": versions(*FAMILIES.values()), **bench.labels}
    others = strangers(bench)

    def run(place: Path) -> None:
        images = bench.images(bench.recipe.preprocess)
        rows = {"validate": bench.films.rows("validate"), "test": bench.labelled("test")}
        for family, backend in FAMILIES.items():
            with GraphSession(artefact.model, backend) as session:
                for purpose, chosen in rows.items():
                    answer = session.infer(np.asarray(images[chosen], np.float32))
                    np.savez(place / f"{family}.{purpose}.npz", **answer._asdict())
        with GraphSession(artefact.model, FAMILIES[next(iter(FAMILIES))]) as session:
            train = np.asarray(images[bench.films.rows("train")], np.float32)
            for name, films in {"train": train, **others}.items():
                np.save(place / f"{name}.npy", session.infer(films).embedding)

    upstream = ("data", STRANGERS, artefact.stage)
    return _read(bench.workshop.run(Stage(f"scores-{artefact.name}", run, inputs, upstream)))


def _read(folder: Path) -> Outputs:
    validate, test = (
        {family: _answer(folder / f"{family}.{purpose}.npz") for family in FAMILIES} for purpose in PURPOSES[1:]
    )
    return Outputs(validate, test, *(np.load(folder / f"{name}.npy") for name in ("train", "misfit", "variant")))


def _answer(path: Path) -> Answer:
    with np.load(path) as stored:
        return Answer(**{name: stored[name] for name in Answer._fields})

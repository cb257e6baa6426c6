"""The golden set of a bundle: phantom films that are decided with room to spare, and what each artefact says of them.

Engines differ in the last digits; a golden film whose probability lay at a threshold would be decided either way.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgecxr import kernels
from edgecxr.bundle import Golden
from edgecxr.errors import StageError
from edgecxr.phantom import FINDINGS, chest
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.graph import Answer, GraphSession
from edgecxr.scores import probabilities
from edgecxr.spec import ModelSpec, Precision

__all__ = ["make_golden"]

SEED = 20_000_000  # far from the phantoms that a recipe trains on
DRAWN = 8  # films drawn for each one that is kept
LEAST = 1e-3  # of a probability: what engines may differ by when nothing is wrong


def make_golden(spec: ModelSpec, models: Mapping[Precision, bytes], *, count: int, size: int, room: float) -> Golden:
    """`count` films of (size, size), with no probability of a packed precision closer than `room` to a threshold.

    Of the films that are clear of every threshold the first are kept; where too few are, the clearest. `models` must
    have FP32 among them. Raises StageError when even those lie at a threshold.
    """
    films = [chest(SEED + index, FINDINGS[index % len(FINDINGS)], size) for index in range(DRAWN * count)]
    answers = _answers(films, models, spec)
    clearance = np.min([_clearance(spec, name, answer) for name, answer in answers.items()], axis=0)
    chosen = np.sort(np.argsort(-np.minimum(clearance, room), kind="stable")[:count])
    if clearance[chosen].min() < LEAST:
        raise StageError(
            f"of {len(films)} drawn films fewer than {count} are {LEAST:g} or more from every threshold: engines would "
            "decide the others either way; the scores crowd at a threshold, so train longer"
        )
    kept = {name: Answer(*(values[chosen] for values in answer)) for name, answer in answers.items()}
    return Golden(
        tuple(films[index] for index in chosen),
        {name: answer.logits for name, answer in kept.items()},
        {name: answer.cam for name, answer in kept.items()},
        {name: answer.embedding for name, answer in kept.items()},
    )


def _answers(
    films: Sequence[Radiograph], models: Mapping[Precision, bytes], spec: ModelSpec
) -> dict[Precision, Answer]:
    batch = np.asarray(kernels.preprocess(films, spec.preprocess), np.float32)
    answers = {}
    for precision, model in models.items():
        with GraphSession(model, "onnxruntime") as session:
            answers[precision] = session.infer(batch)
    return answers


def _clearance(spec: ModelSpec, precision: Precision, answer: Answer) -> NDArray[np.float64]:
    """(N,) distance of each film's nearest probability from a threshold of that precision."""
    scores = probabilities(answer.logits, spec.heads, spec.temperatures[precision])
    nearest = np.full(len(scores), np.inf)
    for point in spec.operating_points:
        if point.precision == precision:
            nearest = np.minimum(nearest, abs(scores[:, spec.classes.index(point.finding)] - point.threshold))
    return nearest

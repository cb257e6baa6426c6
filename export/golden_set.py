"""The golden set of a bundle: phantom films, and what each artefact says of them."""

from collections.abc import Mapping

import numpy as np

from edgecxr import kernels
from edgecxr.bundle import Golden
from edgecxr.phantom import FINDINGS, chest
from edgecxr.runtimes.graph import Answer, GraphSession
from edgecxr.spec import ModelSpec, Precision

__all__ = ["make_golden"]

SEED = 20_000_000  # far from the phantoms that a recipe trains on


def make_golden(spec: ModelSpec, models: Mapping[Precision, bytes], *, count: int, size: int) -> Golden:
    """`count` films of (size, size) with the outputs of each model in ONNX Runtime; FP32 must be among the models."""
    films = tuple(chest(SEED + index, FINDINGS[index % len(FINDINGS)], size) for index in range(count))
    batch = np.asarray(kernels.preprocess(films, spec.preprocess), np.float32)
    answers: dict[Precision, Answer] = {}
    for precision, model in models.items():
        with GraphSession(model, "onnxruntime") as session:
            answers[precision] = session.infer(batch)
    return Golden(
        films,
        {name: answer.logits for name, answer in answers.items()},
        {name: answer.cam for name, answer in answers.items()},
        {name: answer.embedding for name, answer in answers.items()},
    )

"""The golden set of a bundle: phantom films, and what each artefact says about them in ONNX Runtime."""

from collections.abc import Mapping

import numpy as np

from edgecxr import kernels
from edgecxr.bundle import Golden
from edgecxr.phantom import FINDINGS, chest
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.graph import GraphSession
from edgecxr.spec import Precision, PreprocessSpec

__all__ = ["golden_frames", "make_golden"]

SEED = 20_000_000  # far from the phantoms that a recipe trains on


def golden_frames(count: int, size: int) -> tuple[Radiograph, ...]:
    """`count` phantom films of (size, size), the findings in turn; the same every time."""
    return tuple(chest(SEED + index, FINDINGS[index % len(FINDINGS)], size) for index in range(count))


def make_golden(frames: tuple[Radiograph, ...], models: Mapping[Precision, bytes], spec: PreprocessSpec) -> Golden:
    """The frames with the outputs of every model (FP32 must be among them)."""
    batch = np.asarray(kernels.preprocess(frames, spec), np.float32)
    answers = {}
    for precision, model in models.items():
        with GraphSession(model, "onnxruntime") as session:
            answers[precision] = session.infer(batch)
    return Golden(
        frames,
        {precision: answer.logits for precision, answer in answers.items()},
        {precision: answer.cam for precision, answer in answers.items()},
        {precision: answer.embedding for precision, answer in answers.items()},
    )

"""The golden test: does an engine, on this machine, give what the bundle's model gave when it was built?"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr import kernels
from edgecxr.bundle import Bundle, Golden
from edgecxr.errors import EngineError, Refusal
from edgecxr.runtimes.graph import Answer
from edgecxr.scores import probabilities
from edgecxr.spec import ModelSpec, Precision

__all__ = ["LEAST_AGREEMENT", "cosine", "map_agreement", "prove"]

LEAST_AGREEMENT = 0.98  # of activation maps and of embeddings, film by film
FLAT = 1e-6  # a map or embedding whose deviation is below this has no shape to correlate


def prove(
    family: str,
    bundle: Bundle,
    precision: Precision,
    infer: Callable[[NDArray[Any]], Answer],
    *,
    tolerance: float | None = None,
) -> None:
    """Preprocess and infer the golden films and compare with the stored outputs of the same precision.

    Raises EngineError naming the numbers: a calibrated probability off by more than the manifest's tolerance (or
    `tolerance`, where it is smaller), or a map or embedding that agrees less than 0.98. Decisions follow: none can
    differ but within the tolerance of a threshold.
    """
    golden, spec, name = bundle.golden(), bundle.spec, f"{family} {precision}"
    answer = infer(_preprocess(golden, spec))
    temperatures = spec.temperatures[precision]
    wanted = probabilities(golden.logits[precision], spec.heads, temperatures)
    got = probabilities(answer.logits, spec.heads, temperatures)
    allowed = bundle.manifest.tolerance if tolerance is None else min(tolerance, bundle.manifest.tolerance)
    _check_probabilities(name, spec, wanted, got, allowed)
    _check_agreement(name, "activation maps", map_agreement(golden.cam[precision], answer.cam))
    _check_agreement(name, "embeddings", cosine(golden.embedding[precision], answer.embedding))


def _preprocess(golden: Golden, spec: ModelSpec) -> NDArray[Any]:
    try:
        return kernels.preprocess(golden.frames, spec.preprocess)
    except Refusal as error:
        raise EngineError(f"a golden film was refused ({error}); build the bundle again") from error


def _check_probabilities(
    name: str, spec: ModelSpec, wanted: NDArray[np.float64], got: NDArray[np.float64], tolerance: float
) -> None:
    difference = np.abs(wanted - got)
    worst = tuple(int(index) for index in np.unravel_index(difference.argmax(), difference.shape))
    if not difference[worst] <= tolerance:
        film, label = worst[0], spec.classes[worst[1]]
        raise EngineError(
            f"{name} does not reproduce the golden set: {label} of golden film {film} is {got[worst]:.4f}, wanted "
            f"{wanted[worst]:.4f} within {tolerance:g}; this engine is not used"
        )


def _check_agreement(name: str, what: str, values: NDArray[np.float64]) -> None:
    worst = int(values.argmin())
    if not values[worst] >= LEAST_AGREEMENT:
        raise EngineError(
            f"{name} does not reproduce the golden set: {what} of golden film {worst} agree {values[worst]:.4f}, "
            f"wanted {LEAST_AGREEMENT}; this engine is not used"
        )


def map_agreement(wanted: NDArray[np.float32], got: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pearson correlation of activation maps (N, C, h, w) film by film, (N,) in -1 .. 1, over all classes together.

    Each class's map is centred first, so that the level of a class (which is its logit) earns no credit. Two flat maps
    agree fully, a flat and a shaped one not at all.
    """
    centred = [
        maps.astype(np.float64) - maps.mean(axis=(2, 3), keepdims=True, dtype=np.float64) for maps in (wanted, got)
    ]
    return cosine(centred[0], centred[1])


def cosine(wanted: NDArray[Any], got: NDArray[Any]) -> NDArray[np.float64]:
    """Of arrays (N, ...) film by film, (N,) in -1 .. 1. Two without length agree fully, one and another not at all."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (wanted, got))
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    flat = (norms[0] < FLAT).astype(int) + (norms[1] < FLAT)
    product = np.einsum("nd,nd->n", a, b) / np.maximum(norms[0] * norms[1], FLAT**2)
    return np.select([flat == 2, flat == 1], [1.0, 0.0], product)

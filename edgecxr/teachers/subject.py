"""What is explained: anything that scores films, with its heads, its preprocessing and the digest it goes by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from edgecxr.scores import columns, probabilities
from edgecxr.spec import Head, PreprocessSpec, class_names

if TYPE_CHECKING:
    from edgecxr.teachers.teacher import Teacher

__all__ = ["Subject"]

Images = NDArray[np.floating]  # (N, 1, S, S) in the range of `preprocess`


@dataclass(frozen=True)
class Subject:
    """`logits` maps (N, 1, S, S) to (N, C); `cam` maps (1, 1, S, S) to (C, h, w), None where `teacher` knows how.

    `teacher` has the layers that gradcam and lrp go back through; None for a deployed bundle. `thresholds` are the
    calibrated probabilities from which a class counts as found, where there are any.
    """

    name: str
    digest: str
    heads: tuple[Head, ...]
    preprocess: PreprocessSpec
    temperatures: tuple[float, ...]
    logits: Callable[[Images], NDArray[np.floating]]
    cam: Callable[[Images], NDArray[np.floating]] | None = None
    teacher: "Teacher | None" = None
    thresholds: tuple[tuple[str, float], ...] = ()
    reduced_for: PreprocessSpec | None = None  # what `read_radiograph` may decode JPEG 2000 for
    admit: Callable[[Images], None] = lambda image: None  # raises Refusal for a film that it does not judge

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return class_names(self.heads)

    @property
    def findings(self) -> tuple[str, ...]:
        """All classes but those that mean that nothing was found."""
        return tuple(name for head in self.heads for name in head.findings)

    def probability(self, images: Images, finding: str) -> NDArray[np.float64]:
        """(N,) calibrated probability."""
        found = probabilities(self.logits(images), self.heads, self.temperatures)
        return np.asarray(found[:, self.classes.index(finding)])

    def log_odds(self, images: Images, finding: str) -> NDArray[np.float64]:
        """(N,) log p / (1 - p) of the calibrated probability, without its rounding near 0 and 1."""
        logits = np.asarray(self.logits(images), np.float64)
        place = self.classes.index(finding)
        for head, part, temperature in zip(self.heads, columns(self.heads), self.temperatures, strict=True):
            if finding in head.classes and head.kind == "softmax":
                others = np.delete(logits[:, part], place - part.start, axis=1)
                return np.asarray(logits[:, place] / temperature - logsumexp(others / temperature, axis=1))
            if finding in head.classes:
                return np.asarray(logits[:, place] / temperature)
        raise ValueError(f"no class {finding!r} among {', '.join(self.classes)}")

"""A film and its heatmaps as they stand in a report: small pictures inside the page."""

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import Refusal
from edgecxr.heatmap import colour_overlay, display_gray, evidence, relevance, upsample
from edgecxr.kernels import preprocess
from edgecxr.read import file_stamp, read_radiograph
from edgecxr.spec import ModelSpec

if TYPE_CHECKING:
    from edgecxr.runtimes.screening import Screening

__all__ = ["Overlay", "Picture", "picture"]

QUALITY = 88  # of a JPEG picture; the page says that pictures are not for diagnosis


@dataclass(frozen=True)
class Overlay:
    """The film with the heatmap of one finding."""

    finding: str
    uri: str


@dataclass(frozen=True)
class Picture:
    """The film as the model saw it, and a heatmap for each positive finding, else for the likeliest one."""

    uri: str
    overlays: tuple[Overlay, ...]


def picture(screening: "Screening", spec: ModelSpec) -> Picture | None:
    """Pictures of a decided film, read again from its file; None where that is gone, or not what was screened."""
    try:
        radiograph = read_radiograph(screening.file, reduced_for=spec.reduced_for)
        image = preprocess([radiograph], spec.preprocess)[0, 0]
    except (OSError, Refusal):
        return None
    if screening.stamp not in (None, file_stamp(screening.file)):  # after reading: it may have changed meanwhile
        return None
    box = spec.preprocess.placement(*radiograph.shape)
    gray = display_gray(image, box, spec.preprocess.range_low, spec.preprocess.range_high)
    if screening.cam is None:
        return Picture(_uri(gray), ())
    maps = evidence(screening.cam, spec.heads, _temperatures(spec, screening.precision))
    overlays = []
    for finding in _shown(screening):
        strength = relevance(maps[spec.classes.index(finding.name)], finding.threshold)
        wide = upsample(strength, box, spec.preprocess.size, (box.height, box.width))
        overlays.append(Overlay(finding.name, _uri(colour_overlay(gray, wide))))
    return Picture(_uri(gray), tuple(overlays))


def _temperatures(spec: ModelSpec, precision: str) -> tuple[float, ...]:
    return next(values for name, values in spec.temperatures.items() if name == precision)


def _shown(screening: "Screening") -> list[Any]:
    """The positive findings, else the one nearest to its threshold."""
    positive = [finding for finding in screening.findings if finding.decision == "positive"]
    nearest = sorted(screening.findings, key=lambda finding: finding.threshold - finding.probability)
    return positive or nearest[:1]


def _uri(image: NDArray[np.uint8]) -> str:
    """A data: URI of (H, W) or (H, W, 3) uint8 as JPEG."""
    encoded = imagecodecs.jpeg8_encode(np.ascontiguousarray(image), level=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode("ascii")

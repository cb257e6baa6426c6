"""Where on the film a score came from: class activation maps made readable, and two maps compared.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016: with a pooled linear head the mean of
a class's map is that class's logit, so a map is an exact split of the score over the film, computed forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, softmax

from edgecxr.errors import EngineError
from edgecxr.scores import columns
from edgecxr.spec import Box, Head

__all__ = ["Fidelity", "colour_map", "colour_overlay", "display_gray", "evidence", "fidelity", "relevance"]
__all__ += ["signed_overlay", "upsample"]

FULL = 2.2  # log-odds above the threshold at which a cell has full colour at the least: ninefold odds
OPACITY = 0.6  # of full colour


def evidence(cam: ArrayLike, heads: Sequence[Head], temperatures: Sequence[float]) -> NDArray[np.float64]:
    """(C, h, w) calibrated log-odds that each cell gives for each class; their mean is the film's log-odds.

    `cam` is (C, h, w) as the engine gave it. For a sigmoid head this is ``cam / temperature``. For a softmax head the
    log-odds of a class against the others are not linear in the logits; they are split over the cells by their
    gradient at the film's own logits, which leaves a map alone to which a constant is common to all classes.
    """
    maps = np.asarray(cam, np.float64)
    classes = sum(len(head.classes) for head in heads)
    if maps.ndim != 3 or len(maps) != classes or not np.isfinite(maps).all():
        raise EngineError(f"the class activation map has shape {maps.shape}: want ({classes}, h, w), finite")
    out = np.empty_like(maps)
    for head, part, temperature in zip(heads, columns(heads), temperatures, strict=True):
        scaled = maps[part] / temperature
        out[part] = scaled if head.kind == "sigmoid" else _against_others(scaled)
    return out


def relevance(evidence: NDArray[np.floating], threshold: float) -> NDArray[np.float32]:
    """(h, w) in [0, 1]: how much each cell speaks for a finding, for the colours of an overlay.

    `evidence` is one class of `evidence()`, `threshold` that finding's operating point. Only what lies above the
    threshold's log-odds counts (a positive film has some, because its mean does); the strongest cell, or `FULL` if that
    is more, is 1. The map of a negative film is dimmed by probability / threshold, so that a finding far from positive
    does not light up.
    """
    floor = float(logit(np.clip(threshold, 1e-6, 1 - 1e-6)))
    above = np.maximum(np.asarray(evidence, np.float64) - floor, 0)
    strength = min(1.0, float(expit(evidence.mean())) / max(threshold, 1e-6))
    return np.asarray(strength * above / max(float(above.max()), FULL), np.float32)


def upsample(cells: ArrayLike, box: Box, size: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) bilinear enlargement of the part of a map (h, w) that lies on the film.

    The map covers the whole S×S model input (`size`); the film lies in `box` of it (`PreprocessSpec.placement`).
    `shape` is (H, W) of the result: the film's own, or (box.height, box.width). Cells are areas: their value is at
    their centre, and the outermost half cell is flat.
    """
    values = np.asarray(cells, np.float64)
    rows = _interpolation(shape[0], box.top / size, box.height / size, values.shape[0])
    across = _interpolation(shape[1], box.left / size, box.width / size, values.shape[1])
    return np.asarray(rows @ values @ across.T, np.float32)


def display_gray(image: ArrayLike, box: Box, low: float = 0.0, high: float = 1.0) -> NDArray[np.uint8]:
    """(box.height, box.width) uint8: the film as the model saw it, from its (S, S) input in [`low`, `high`]."""
    film = np.asarray(image, np.float64)[box.top : box.top + box.height, box.left : box.left + box.width]
    return np.asarray(np.clip((film - low) / (high - low) * 255 + 0.5, 0, 255), np.uint8)


def colour_overlay(gray: NDArray[np.uint8], strength: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: film `gray` (H, W) under `strength` (H, W) in [0, 1]; 0 leaves the film as it is."""
    if gray.shape != strength.shape or gray.dtype != np.uint8:
        raise ValueError(f"film {gray.shape} {gray.dtype} and map {strength.shape}: want the same (H, W), film uint8")
    level = np.clip(strength, 0, 1)[..., None]
    colours = colour_map()[(level[..., 0] * 255).astype(np.intp)]
    alpha = OPACITY * level
    return np.asarray((1 - alpha) * gray[..., None] + alpha * colours + 0.5, np.uint8)


def signed_overlay(gray: NDArray[np.uint8], strength: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: film `gray` (H, W) under `strength` in [-1, 1]; red speaks for, blue against, 0 leaves it."""
    if gray.shape != strength.shape or gray.dtype != np.uint8:
        raise ValueError(f"film {gray.shape} {gray.dtype} and map {strength.shape}: want the same (H, W), film uint8")
    level = np.clip(strength, -1, 1)
    colours = colour_map("bwr")[((level + 1) * 127.5).astype(np.intp)]
    alpha = OPACITY * np.abs(level)[..., None]
    return np.asarray((1 - alpha) * gray[..., None] + alpha * colours + 0.5, np.uint8)


def colour_map(name: str = "inferno") -> NDArray[np.float64]:
    """(256, 3) in 0 … 255: matplotlib's inferno, perceptually uniform, readable without colour vision, or another."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.arange(256)))[:, :3] * 255


@dataclass(frozen=True)
class Fidelity:
    """How alike the maps of a candidate are to those of a reference, per film and class.

    A candidate whose map went flat has lost it: correlation 0, another peak. A flat reference has nothing to keep.
    """

    correlation: NDArray[np.float64]  # (N, C) Pearson; NaN where the reference's map is flat
    pointing: NDArray[np.bool_]  # (N, C) highest cells at most `tolerance` cells apart, along rows and along columns

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(N, C) the reference's map has a shape to keep."""
        return ~np.isnan(self.correlation)


def fidelity(reference: ArrayLike, candidate: ArrayLike, tolerance: int = 1) -> Fidelity:
    """Hold a candidate's maps (N, C, h, w) against a reference's of the same films."""
    first, second = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    if first.ndim != 4 or first.shape != second.shape:
        raise ValueError(f"maps of shape {first.shape} and {second.shape}: want the same (N, C, h, w)")
    width = first.shape[3]
    flat_a, flat_b = (maps.reshape(*maps.shape[:2], -1) for maps in (first, second))
    peak_a, peak_b = flat_a.argmax(axis=2), flat_b.argmax(axis=2)
    apart = np.maximum(abs(peak_a // width - peak_b // width), abs(peak_a % width - peak_b % width))
    return Fidelity(_correlation(flat_a, flat_b), (apart <= tolerance) & _shaped(flat_b))


def _against_others(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, h, w) split of log p / (1 - p) of each class of one softmax head."""
    film = maps.mean(axis=(1, 2))
    out = np.empty_like(maps)
    for index in range(len(maps)):
        others = np.delete(np.arange(len(maps)), index)
        linear = maps[index] - np.tensordot(softmax(film[others]), maps[others], axes=1)
        exact = film[index] - np.logaddexp.reduce(film[others])
        out[index] = linear + (exact - linear.mean())
    return out


def _interpolation(out: int, start: float, extent: float, cells: int) -> NDArray[np.float64]:
    """(out, cells) weights of linear interpolation at the centres of `out` pixels that span [start, start + extent)."""
    at = np.clip((start + (np.arange(out) + 0.5) / out * extent) * cells - 0.5, 0, cells - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, C) Pearson correlations over the last axis; NaN where `a` is flat, 0 where only `b` is."""
    out = np.where(_shaped(a), 0.0, np.nan)
    a, b = (x - x.mean(axis=2, keepdims=True) for x in (a, b))
    spread = np.sqrt((a * a).sum(axis=2) * (b * b).sum(axis=2))
    return np.asarray(np.divide((a * b).sum(axis=2), spread, out=out, where=_shaped(a) & _shaped(b)))


def _shaped(maps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, C) maps (N, C, cells) that are not flat."""
    power = ((maps - maps.mean(axis=2, keepdims=True)) ** 2).sum(axis=2)
    return np.asarray(power > 1e-12)  # below, what is left is rounding

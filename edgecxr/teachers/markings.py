"""The words test: does a score come from what is burnt into the film, or lies around it, instead of from the patient?

Bassi and Attux, "A Deep Convolutional Neural Network for COVID-19 Detection Using Chest X-Rays" (2021), found letters
on the films under the relevance of their networks. Here it is measured: the share of the map on words and borders, and
how the score changes when they are painted over.

The rule that finds them is simple on purpose, and can be looked at (the mask is written beside the map):

- *border*: what is outside of the film in the model's input, and the rows and columns from each edge of the film
  inwards that hold one value (within `FLAT`): collimation, frames.
- *words*: thin bright strokes, at least `STROKE` above what is left when the film is opened by a square of 1/`FINEST`
  of its side (white top-hat) and at least `BRIGHT` bright, joined over gaps of that size, of at most `LARGEST` of the
  film, with their centre in the outer `MARGIN` of it. Letters over the lungs themselves, and words in black, are
  missed, and so are strokes narrower than a pixel of the input; a bright edge near the rim (a clip, the tip of a
  shoulder blade) counts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edgecxr.spec import Box

__all__ = ["Markings", "find_markings", "painted_over", "share"]

FLAT = 0.02  # five steps of an 8-bit film
STROKE, BRIGHT = 0.12, 0.6
FINEST = 16
LARGEST = 0.02
MARGIN = 0.25

Mask = NDArray[np.bool_]
Film = NDArray[np.floating]  # (S, S) in [0, 1], bone bright


@dataclass(frozen=True)
class Markings:
    """Where words and borders are in the model's input, (S, S) each; they do not overlap."""

    words: Mask
    border: Mask

    @property
    def either(self) -> Mask:
        """Words and borders together."""
        return self.words | self.border


def find_markings(film: Film, box: Box) -> Markings:
    """Words and borders on the model's input `film` (S, S) in [0, 1], whose picture lies in `box`."""
    border = np.ones(film.shape, bool)
    inside = _inside(np.asarray(film, np.float64), box)
    border[inside.top : inside.top + inside.height, inside.left : inside.left + inside.width] = False
    words = np.zeros(film.shape, bool)
    picture = np.asarray(film, np.float64)[
        inside.top : inside.top + inside.height, inside.left : inside.left + inside.width
    ]
    words[inside.top : inside.top + inside.height, inside.left : inside.left + inside.width] = _words(picture)
    return Markings(words, border)


def share(values: NDArray[np.floating], mask: Mask) -> float:
    """Share of the map's absolute values (S, S) that lies on the mask, 0 to 1; 0 for a map that is 0 everywhere."""
    weight = np.abs(np.asarray(values, np.float64))
    total = float(weight.sum())
    return float(weight[mask].sum()) / total if total else 0.0


def painted_over(film: Film, mask: Mask) -> NDArray[np.float32]:
    """The film (S, S) with each pixel of the mask taking the value of the nearest pixel outside of it.

    Raises ValueError when the mask covers everything.
    """
    if mask.all():
        raise ValueError("words and borders cover the whole film; nothing is left to paint from")
    rows, columns = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    return np.asarray(np.asarray(film, np.float32)[rows, columns])


def _inside(film: NDArray[np.float64], box: Box) -> Box:
    """The box without the flat rows and columns at its edges; the box itself where none other are in it."""
    top, bottom, left, right = box.top, box.top + box.height, box.left, box.left + box.width

    def flat(part: NDArray[np.float64]) -> bool:
        return float(np.ptp(part)) <= FLAT

    if flat(film[top:bottom, left:right]):
        return box
    while top < bottom and flat(film[top, left:right]):
        top += 1
    while top < bottom and flat(film[bottom - 1, left:right]):
        bottom -= 1
    if top == bottom:  # nothing but flat rows that differ
        return box
    while left < right and flat(film[top:bottom, left]):
        left += 1
    while left < right and flat(film[top:bottom, right - 1]):
        right -= 1
    if left == right:
        return box
    return Box(top, left, bottom - top, right - left)


def _words(picture: NDArray[np.float64]) -> Mask:
    """Strokes in the outer part of the picture (H, W)."""
    side = max(3, max(picture.shape) // FINEST)
    thin = ndimage.white_tophat(picture, size=(side, side))
    strokes = (thin >= STROKE) & (picture >= BRIGHT)
    joined = ndimage.binary_closing(np.pad(strokes, side), np.ones((side, side), bool))[side:-side, side:-side]
    labels, count = ndimage.label(joined, np.ones((3, 3), int))
    kept = np.zeros(picture.shape, bool)
    for number, where in enumerate(ndimage.find_objects(labels, count), start=1):
        part = labels[where] == number
        if part.sum() <= LARGEST * picture.size and _is_outer(where, picture.shape):
            kept[where] |= part
    return np.asarray(ndimage.binary_dilation(kept, np.ones((3, 3), bool)))


def _is_outer(where: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether the centre of a rectangle is within MARGIN of an edge."""
    centres = [(part.start + part.stop) / 2 / side for part, side in zip(where, shape, strict=True)]
    return any(not MARGIN <= centre <= 1 - MARGIN for centre in centres)

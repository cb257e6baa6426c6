"""A film and its heatmaps as PNG, for a browser: previews, not for diagnosis."""

import io

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from edgecxr.heatmap import colour_map, colour_overlay
from edgecxr.runtimes.node.drawing_process import Picture

__all__ = ["blend_png", "cam_npy", "film_png", "overlay_png"]

LEVEL = 3  # of PNG compression


def film_png(film: Picture) -> bytes:
    """The film, gray."""
    return _png(film.gray)


def overlay_png(film: Picture, strength: NDArray[np.float32]) -> bytes:
    """The heatmap alone, as large as the film is shown: colour with its strength as opacity, to lie over the film."""
    level = np.clip(strength * 255 + 0.5, 0, 255).astype(np.uint8)
    return _png(np.dstack([colour_map()[level].astype(np.uint8), level]))


def blend_png(film: Picture, strength: NDArray[np.float32]) -> bytes:
    """Film and heatmap as one picture."""
    return _png(colour_overlay(film.gray, strength))


def cam_npy(cam: NDArray[np.float32]) -> bytes:
    """The class activation map (C, h, w) as a NumPy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(cam, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _png(image: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(image), level=LEVEL))

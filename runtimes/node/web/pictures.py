"""A film and its heatmaps as PNG, for a browser: previews, not for diagnosis."""

import functools
import io
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from edgecxr.heatmap import colour_map, colour_overlay, display_gray
from edgecxr.kernels import preprocess
from edgecxr.read import read_radiograph
from edgecxr.spec import PreprocessSpec

__all__ = ["LARGEST", "Preview", "blend_png", "cam_npy", "film_png", "overlay_png", "preview"]

LARGEST = 1024  # pixels of a preview's longer side
SMALLEST = 16  # side of the chain's smallest square
CACHED = 4  # previews kept: a page asks for the film and its maps one after the other
LEVEL = 3  # of PNG compression

_one_at_a_time = threading.Lock()  # a film of 60 megapixels takes 300 MB to decode


@dataclass(frozen=True)
class Preview:
    """A film as it is displayed."""

    gray: NDArray[np.uint8]  # (H, W)


def preview(path: Path) -> Preview:
    """The film, windowed and turned as its header says, at most LARGEST pixels a side, never enlarged.

    Raises Refusal (it cannot be read or has no contrast) and OSError.
    """
    with _one_at_a_time:
        return _preview(str(path), os.stat(path).st_mtime_ns)


@functools.lru_cache(CACHED)
def _preview(path: str, written: int) -> Preview:
    film = read_radiograph(path)
    spec = PreprocessSpec(size=max(SMALLEST, min(LARGEST, max(film.shape))))
    return Preview(display_gray(preprocess([film], spec)[0, 0], spec.placement(*film.shape)))


def film_png(film: Preview) -> bytes:
    """The film, gray."""
    return _png(film.gray)


def overlay_png(film: Preview, strength: NDArray[np.float32]) -> bytes:
    """The heatmap alone, as large as the preview: colour with its strength as opacity, to lie over the film."""
    level = np.clip(strength * 255 + 0.5, 0, 255).astype(np.uint8)
    return _png(np.dstack([colour_map()[level].astype(np.uint8), level]))


def blend_png(film: Preview, strength: NDArray[np.float32]) -> bytes:
    """Film and heatmap as one picture."""
    return _png(colour_overlay(film.gray, strength))


def cam_npy(cam: NDArray[np.float32]) -> bytes:
    """The class activation map (C, h, w) as a NumPy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(cam, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _png(image: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(image), level=LEVEL))

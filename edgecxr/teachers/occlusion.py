"""Occlusion (Zeiler and Fergus, ECCV 2014) by captum: how far the score falls when a square of the film is grey.

It only asks for scores, so it explains anything that scores: a network, an ensemble, a deployed bundle.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import Occlusion as CaptumOcclusion
from numpy.typing import NDArray
from torch import Tensor

from edgecxr.errors import StageError

__all__ = ["Occlusion"]

AT_A_TIME = 16  # occluded films in one batch


@dataclass(frozen=True)
class Occlusion:
    """A square of `window` pixels, moved by `stride` pixels of the model's input; 0: an eighth and a sixteenth."""

    window: int = 0
    stride: int = 0

    def placed(self, size: int) -> "Occlusion":
        """With window and stride for an input of `size` pixels. Raises StageError when they do not fit into it."""
        window = self.window or max(1, size // 8)
        stride = self.stride or max(1, window // 2)
        if not 0 < stride <= window <= size:
            raise StageError(
                f"window {window} and stride {stride} of an input of {size}: want stride <= window <= {size}"
            )
        return Occlusion(window, stride)

    def fall(
        self, image: NDArray[np.floating], fill: float, score: Callable[[NDArray[np.float32]], NDArray[np.floating]]
    ) -> NDArray[np.float32]:
        """(S, S): the score's fall, averaged over the squares that covered each pixel; above 0 speaks for the finding.

        `image` is (1, 1, S, S) in the model's range, `score` maps (N, 1, S, S) to (N,), `fill` is the square's value.
        """
        own = self.placed(image.shape[-1])

        def scored(films: Tensor) -> Tensor:
            return torch.from_numpy(np.asarray(score(films.numpy()), np.float64))

        found = CaptumOcclusion(scored).attribute(
            torch.from_numpy(np.array(image, np.float32)),
            sliding_window_shapes=(1, own.window, own.window),
            strides=(1, own.stride, own.stride),
            baselines=fill,
            perturbations_per_eval=AT_A_TIME,
        )
        values: NDArray[np.float32] = found[0, 0].numpy().astype(np.float32)
        return values

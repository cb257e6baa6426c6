"""What a network's classifier sees: the features in front of its last layer, as an embedding of the film."""

from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import head_parameters

__all__ = ["FeatureTap"]


class FeatureTap:
    """While it is open, `take` gives the features of the films that the network has seen since the last `take`."""

    def __init__(self, module: nn.Module) -> None:
        names = {name.rpartition(".")[0] for name in head_parameters(module)}
        if len(names) != 1:
            raise StageError("the network has no last linear or convolutional layer to take features from")
        self._layer = module.get_submodule(names.pop())
        self._seen: list[NDArray[np.float32]] = []

    def __enter__(self) -> "FeatureTap":
        self._handle = self._layer.register_forward_pre_hook(self._keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    def take(self) -> NDArray[np.float32]:
        """(n, D) for n films that were seen, one row for each time; maps of a convolution are averaged over place."""
        seen, self._seen = self._seen, []
        return np.concatenate(seen)

    def _keep(self, layer: nn.Module, given: tuple[Any, ...]) -> None:
        features: Tensor = given[0].detach().float()
        self._seen.append((features.mean(dim=(2, 3)) if features.ndim == 4 else features).cpu().numpy())

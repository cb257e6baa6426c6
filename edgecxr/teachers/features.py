"""What a network's classifier sees: the features in front of its last layer, as an embedding of the film."""

from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import classifier_name
from edgecxr.teachers.joint import Joint

__all__ = ["FeatureTap"]


class FeatureTap:
    """While it is open, `take` gives the features of the films that the network has seen since the last `take`."""

    def __init__(self, module: nn.Module) -> None:
        self._seen: list[tuple[int, NDArray[np.float32]]] = []
        body = getattr(module, "body", module)
        parts = list(body.networks) if isinstance(body, Joint) else [module]
        self._layers = [_classifier(part) for part in parts]

    def __enter__(self) -> "FeatureTap":
        self._handles = [
            layer.register_forward_pre_hook(partial(self._keep, place)) for place, layer in enumerate(self._layers)
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def take(self) -> NDArray[np.float32]:
        """(n, D) for n films that were seen, one row for each time; maps of a convolution are averaged over place.

        Of networks that are joined, the features of all, side by side.
        """
        seen, self._seen = self._seen, []
        parts = [[values for place, values in seen if place == wanted] for wanted in range(len(self._layers))]
        return np.concatenate([np.concatenate(part) for part in parts], axis=1)

    def _keep(self, place: int, layer: nn.Module, given: tuple[Any, ...]) -> None:
        features: Tensor = given[0].detach().float()
        self._seen.append((place, (features.mean(dim=(2, 3)) if features.ndim == 4 else features).cpu().numpy()))


def _classifier(module: nn.Module) -> nn.Module:
    name = classifier_name(module)
    if name is None:
        raise StageError("the network has no last linear or convolutional layer to take features from")
    return module.get_submodule(name)

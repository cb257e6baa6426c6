"""Output neuron keeping: a classifier begins with the neurons that an earlier task had for the same classes.

Bassi & Attux, "A Deep Convolutional Neural Network for COVID-19 Detection Using Chest X-Rays" (2021): of a network
that had learned ChestX-ray14, the output neurons of the classes that the next task has, too, are kept, and only the
others begin at random.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import head_parameters

__all__ = ["keep_neurons", "without_classifier"]


def keep_neurons(source: Mapping[str, Tensor], target: nn.Module, kept: Mapping[int, int]) -> None:
    """Copy output neurons in place: `kept` is from output of `target` to output of the network that `source` is of.

    Weights and bias of each, of a linear or a convolutional classifier; the other outputs stay as they are. Raises
    StageError when `source` has no such classifier, or not so many outputs.
    """
    state = target.state_dict()
    with torch.no_grad():
        for name in sorted(head_parameters(target)):
            old, new = source.get(name), state[name]
            if old is None or old.shape[1:] != new.shape[1:] or max(kept.values(), default=0) >= len(old):
                found = "absent" if old is None else f"of shape {tuple(old.shape)}"
                raise StageError(
                    f"no output neurons to keep: {name} is {found} in the earlier network, {tuple(new.shape)} here; "
                    "pretrain the same architecture"
                )
            for place, earlier in kept.items():
                new[place] = old[earlier]


def without_classifier(source: Mapping[str, Tensor], target: nn.Module) -> dict[str, Tensor]:
    """`source` without the weights of the classifier of `target`."""
    return {name: value for name, value in source.items() if name not in head_parameters(target)}

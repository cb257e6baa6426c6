"""A teacher's network laid open: what its first layer sees, and where each class stands among its outputs."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import Network
from edgecxr.teachers.foreign import ForeignTeacher, OnnxSource, ProgramSource
from edgecxr.teachers.teacher import MemberTeacher, Teacher

__all__ = ["ExplainedNetwork", "lay_open"]


@dataclass(frozen=True)
class ExplainedNetwork:
    """`body` maps ``film * scale + shift`` (N, channels, S, S) to logits; `columns` are the classes' places in them."""

    name: str
    body: nn.Module
    scale: Tensor  # (1, channels, 1, 1)
    shift: Tensor
    columns: tuple[int, ...]

    def values(self, image: NDArray[np.floating]) -> Tensor:
        """What `body` sees of films (N, 1, S, S) in [0, 1]."""
        return torch.from_numpy(np.asarray(image, np.float32)).to(self.scale.device) * self.scale + self.shift

    @property
    def extremes(self) -> tuple[Tensor, Tensor]:
        """(1, channels, 1, 1) each: the lowest and the highest value that a film can have in front of `body`."""
        ends = torch.stack([self.shift, self.scale + self.shift])
        return ends.amin(dim=0), ends.amax(dim=0)


def lay_open(teacher: Teacher) -> ExplainedNetwork:
    """The network of a trained teacher, or of a foreign one that came as PyTorch weights.

    Raises StageError for ONNX files, exported programs and outputs that are probabilities: there are no layers to go
    back through, or the score is not the last layer's.
    """
    if isinstance(teacher, MemberTeacher):
        network = teacher.module
        scale, shift = 1 / network.std, -network.mean / network.std
        return ExplainedNetwork(teacher.name, network.body, scale, shift, tuple(range(len(teacher.classes))))
    if isinstance(teacher, ForeignTeacher):
        return _foreign(teacher)
    raise StageError(f"teacher {teacher.name!r} is no single network; explain its members one by one")


def _foreign(teacher: ForeignTeacher) -> ExplainedNetwork:
    source, module = teacher.source, teacher.session.module
    if module is None or isinstance(source, OnnxSource | ProgramSource):
        raise StageError(
            f"teacher {teacher.name!r} comes as {', '.join(source.files)}, with no layers to go back through"
        )
    if source.outputs == "probabilities":
        raise StageError(f"teacher {teacher.name!r} gives probabilities, and no logits to go back from")
    device = next(module.parameters()).device
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (source.mean, source.std))
    scale = torch.ones(1, source.channels, 1, 1, device=device) * (source.high - source.low) / std
    shift = (torch.full_like(scale, source.low) - mean) / std
    if isinstance(module, Network):  # written by this package, with a normalization of its own
        scale, shift, module = scale / module.std, (shift - module.mean) / module.std, module.body
    columns = tuple(source.classes.index(name) for name in teacher.classes)
    return ExplainedNetwork(teacher.name, module, scale, shift, columns)

"""Films with their labels, as training takes them, and the checks that keep a hopeless run from starting."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from edgecxr.errors import StageError
from edgecxr.spec import Head

__all__ = ["Samples", "check_samples", "run_key"]


@dataclass(frozen=True)
class Samples:
    """Films and labels side by side.

    `images` (N, 1, S, S) float in [0, 1], in memory or memory-mapped. `targets` by head name: softmax (N,) int64 with
    -1 for unlabelled, sigmoid (N, K) float32 with NaN for unknown. `settled` (N,) bool marks films that are augmented
    already and not again (`teachers.sampling`).
    """

    images: NDArray[np.floating]
    targets: Mapping[str, NDArray[Any]]
    settled: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def tensors(self, rows: NDArray[np.intp], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """Films (n, 1, S, S) float32 and targets of these rows, on the device."""
        images = torch.from_numpy(np.asarray(self.images[rows], dtype=np.float32)).to(device)
        return images, {name: torch.from_numpy(value[rows]).to(device) for name, value in self.targets.items()}


def check_samples(samples: Samples, heads: Sequence[Head], part: str) -> None:
    """Raise StageError unless `samples` can train ("training") or validate these heads."""
    if len(samples) < 2:
        raise StageError(f"{len(samples)} {part} films; wanted at least 2: look at the folds of the recipe")
    first = np.asarray(samples.images[:16], dtype=np.float32)
    if not (first.min() >= 0 and first.max() <= 1):
        raise StageError(
            f"{part} films range from {first.min():.3g} to {first.max():.3g}; wanted [0, 1]: use range 0 to 1"
        )
    for head in heads:
        targets = samples.targets[head.name]
        shape = (len(samples),) if head.kind == "softmax" else (len(samples), len(head.classes))
        if targets.shape != shape:
            raise StageError(f"{part} targets of head {head.name!r} are {targets.shape}; wanted {shape}")
        if part == "training":
            _check_classes(head, targets)


def _check_classes(head: Head, targets: NDArray[Any]) -> None:
    """Every class of a softmax head, and both answers of a sigmoid class, must occur where the network learns."""
    if head.kind == "softmax":
        missing = [name for index, name in enumerate(head.classes) if not (targets == index).any()]
    else:
        missing = [name for name, column in zip(head.classes, targets.T, strict=True) if not {0, 1} <= set(column)]
    if missing:
        raise StageError(
            f"no training film shows both kinds of {', '.join(missing)} (head {head.name!r}); nothing to learn"
        )


def run_key(module: nn.Module, samples: tuple[Samples, Samples], *settings: BaseModel) -> str:
    """Digest (hex) of what must be equal for a run to be continued: films, labels, initial weights, settings.

    Of the films, 64 evenly spaced ones stand for all.
    """
    digest = hashlib.sha256("\n".join(part.model_dump_json() for part in settings).encode())
    for part in samples:
        digest.update(repr(part.images.shape).encode())
        digest.update(np.ascontiguousarray(part.images[:: max(1, len(part) // 64)]).tobytes())
        for name in sorted(part.targets):
            digest.update(name.encode() + np.ascontiguousarray(part.targets[name]).tobytes())
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()

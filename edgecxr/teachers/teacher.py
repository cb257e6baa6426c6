"""A teacher: whatever turns films into logits for heads of ours, with a preprocessing of its own."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch.nn import functional

from edgecxr.errors import StageError
from edgecxr.spec import IN_FULL, Head, PreprocessSpec, ReadingSpec, Strict, class_names
from edgecxr.teachers.architecture import Network, build
from edgecxr.teachers.compute import Autocast, forward, pick_device
from edgecxr.teachers.joint import join
from edgecxr.teachers.names import RECORD
from edgecxr.teachers.weights import read_weights, write_atomic, write_weights

__all__ = ["WEIGHTS", "MemberRecord", "MemberTeacher", "Teacher", "open_member", "write_member"]

WEIGHTS = "weights.safetensors"


class Teacher(ABC):
    """`heads` are those it votes on, a part of the recipe's or all; `preprocess` is its own, with range 0 to 1."""

    batch: int = 32
    fixed_batch: bool = False  # takes exactly `batch` films at a time

    def __init__(self, name: str, heads: Sequence[Head], preprocess: PreprocessSpec) -> None:
        if (preprocess.range_low, preprocess.range_high) != (0.0, 1.0):
            raise StageError(f"teacher {name!r} wants films in [0, 1]; leave range_low and range_high at 0 and 1")
        self.name, self.heads, self.preprocess = name, tuple(heads), preprocess

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the columns of `logits`."""
        return class_names(self.heads)

    def logits(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, C) float32 of films (N, 1, S, S) in [0, 1], preprocessed under `self.preprocess`.

        Raises StageError for films of another shape, and for outputs that are not finite.
        """
        side = self.preprocess.size
        if images.ndim != 4 or images.shape[1:] != (1, side, side):
            raise StageError(f"teacher {self.name!r} got films {images.shape}; wanted (N, 1, {side}, {side})")
        parts = [self._padded(images[start : start + self.batch]) for start in range(0, len(images), self.batch)]
        empty = np.zeros((0, len(self.classes)), dtype=np.float32)
        logits: NDArray[np.float32] = np.concatenate([empty, *parts]).astype(np.float32)
        if not np.isfinite(logits).all():
            broken = int((~np.isfinite(logits).all(axis=1)).sum())
            raise StageError(f"teacher {self.name!r} gave NaN or infinity for {broken} of {len(images)} films")
        return logits

    def _padded(self, images: NDArray[np.floating]) -> NDArray[np.floating]:
        """`_infer` of up to `batch` films, filled up with copies of the last where the batch is fixed."""
        films = np.asarray(images, dtype=np.float32)
        lacking = self.batch - len(films) if self.fixed_batch else 0
        if lacking:
            films = np.concatenate([films, np.repeat(films[-1:], lacking, axis=0)])
        return self._infer(films)[: len(images)]

    @abstractmethod
    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        """(n, C) logits of (n, 1, S, S) films."""


class MemberRecord(Strict):
    """`teacher.json` of a network that was trained here."""

    name: str
    architecture: str
    joint: tuple[str, ...] = ()  # of networks that were trained together (`teachers.joint`): the architecture of each
    channels: Annotated[int, Field(ge=1, le=3)] = 1
    heads: tuple[Head, ...]
    columns: dict[str, dict[str, Any]] = Field(default={}, description="by head, its `HeadColumns` without the head")
    preprocess: PreprocessSpec
    reading: ReadingSpec = IN_FULL  # of its films, in training as later
    zooms: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0,)  # logits are averaged over these views
    data_digest: str = ""  # of the films of the build
    folds: dict[str, tuple[int, ...]] = Field(default={}, description="of these: train, validate, test")
    weights_sha256: str = ""


class MemberTeacher(Teacher):
    """A network that was trained here; `module` is it."""

    def __init__(
        self, member: MemberRecord, module: Network, *, device: str = "auto", autocast: Autocast = "off"
    ) -> None:
        super().__init__(member.name, member.heads, member.preprocess)
        self.member, self.autocast = member, autocast
        # channels last: the convolutions of a CPU and of tensor cores take half the time
        self.module = module.to(pick_device(device)).to(memory_format=torch.channels_last).eval()

    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        views = [forward(self.module, _zoomed(images, zoom), len(images), self.autocast) for zoom in self.member.zooms]
        mean: NDArray[np.floating] = torch.stack(views).mean(dim=0).numpy()
        return mean


def write_member(folder: Path, member: MemberRecord, module: torch.nn.Module) -> MemberRecord:
    """Write teacher.json and weights.safetensors; returns the record with the digest of the weights."""
    write_weights(folder / WEIGHTS, module.state_dict())
    record = member.model_copy(update={"weights_sha256": _digest(folder / WEIGHTS)})
    write_atomic(folder / RECORD, record.model_dump_json(indent=1).encode())
    return record


def open_member(folder: Path, *, device: str = "auto", autocast: Autocast = "off") -> MemberTeacher:
    """The teacher that `write_member` left in `folder`. Raises StageError when it is absent, altered or damaged."""
    try:
        member = MemberRecord.model_validate(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise StageError(f"no {RECORD} in {folder}; wanted the folder of a trained teacher") from None
    except (ValueError, ValidationError) as error:
        raise StageError(f"{folder / RECORD} is not the record of a trained teacher: {error}") from error
    network = _blank(member)
    state = read_weights(folder / WEIGHTS, ())
    if _digest(folder / WEIGHTS) != member.weights_sha256:
        raise StageError(f"{folder / WEIGHTS} is not the file that {RECORD} was written with; train the teacher again")
    network.load_state_dict(state)
    return MemberTeacher(member, network, device=device, autocast=autocast)


def _blank(member: MemberRecord) -> Network:
    """The network of the record, before its weights."""
    classes = sum(len(head.classes) for head in member.heads)
    if not member.joint:
        return build(member.architecture, classes, member.channels)
    return join({name: build(name, classes, member.channels) for name in member.joint})


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _zoomed(images: NDArray[np.float32], zoom: float) -> NDArray[np.float32]:
    """Films enlarged about the centre by `zoom` (below 1: shrunk, black around)."""
    if zoom == 1:
        return images
    turn = torch.eye(2, 3).div(zoom).repeat(len(images), 1, 1)
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    zoomed: NDArray[np.float32] = functional.grid_sample(
        torch.from_numpy(images), grid, padding_mode="zeros", align_corners=False
    ).numpy()
    return zoomed

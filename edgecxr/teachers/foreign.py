"""Teachers that were trained elsewhere, described in a recipe: what the file is, what it wants to see, what it says.

A checkpoint and an ONNX file are data. A factory, a TorchScript file and a `torch.export` program are code: name only
those that you would run.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import logit

from edgecxr.errors import StageError
from edgecxr.phantom import chest
from edgecxr.repeats import repeated
from edgecxr.spec import Head, PreprocessSpec, Strict, class_names
from edgecxr.teachers.film_cache import film_batch
from edgecxr.teachers.sessions import Session, open_checkpoint, open_factory, open_onnx, open_program
from edgecxr.teachers.teacher import Teacher
from edgecxr.teachers.weights import PREFIXES

__all__ = ["CheckpointSource", "FactorySource", "ForeignSource", "ForeignTeacher", "OnnxSource", "ProgramSource"]
__all__ += ["Source", "check_teacher", "load_foreign"]

CLIP = 1e-6  # probabilities are held in [CLIP, 1 - CLIP] before they become logits
SAME = 1e-4  # outputs that differ by less, in logits, over unlike films are the same


class Source(Strict):
    """What every foreign teacher says of itself.

    A film reaches it as value = low + film * (high - low), film in [0, 1] with bone bright, then (value - mean) / std;
    low above high turns the film over.
    """

    FILES: ClassVar[tuple[str, ...]] = ()  # keys that hold paths

    name: str
    size: Annotated[int, Field(ge=16, le=2048, description="side of its square input")] = 224
    aspect: Literal["pad", "stretch"] = "pad"
    channels: Literal[1, 3] = 1
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0,)  # one value, or one per channel
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    classes: Annotated[
        tuple[str, ...], Field(min_length=1, description="its outputs in order; `_` and the like: not ours")
    ]
    outputs: Literal["logits", "probabilities"] = "logits"
    batch: Annotated[int, Field(ge=1)] = 32

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if self.low == self.high:
            raise ValueError(f"low and high are both {self.low}; give the values of black and of white")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(
                    f"{key} has {len(values)} values for {self.channels} channel(s); give 1 or {self.channels}"
                )
        return self

    @property
    def preprocess(self) -> PreprocessSpec:
        """How its films are made; the value range comes after, in `ForeignTeacher`."""
        return PreprocessSpec(size=self.size, aspect=self.aspect)

    @property
    def files(self) -> tuple[str, ...]:
        """The files it is made of, as written in the recipe."""
        return tuple(str(getattr(self, key)) for key in self.FILES if getattr(self, key) is not None)


class CheckpointSource(Source):
    """Weights of a timm or torchvision architecture."""

    FILES: ClassVar[tuple[str, ...]] = ("checkpoint",)
    kind: Literal["checkpoint"]
    checkpoint: str
    architecture: str
    prefixes: tuple[str, ...] = PREFIXES  # taken off where every name has them


class FactorySource(Source):
    """A function of the user's that returns a torch.nn.Module."""

    FILES: ClassVar[tuple[str, ...]] = ("weights",)
    kind: Literal["factory"]
    factory: Annotated[str, Field(pattern=r"^[\w.]+:\w+$", description="module:function")]
    weights: str | None = None

    def module_file(self, base: Path) -> Path | None:
        """Source of the function's module, searched as `open_factory` does: in `base` first. None where it has none.

        Raises StageError when there is no such module.
        """
        name = self.factory.partition(":")[0]
        importlib.invalidate_caches()
        sys.path.insert(0, str(base))
        try:
            found = find_spec(name)
        except (ImportError, AttributeError, ValueError):
            found = None
        finally:
            sys.path.remove(str(base))
        if found is None:
            raise StageError(
                f"factory {self.factory!r}: no module {name!r}; write 'module:function', beside the recipe"
            )
        path = Path(found.origin or "")
        return path if path.is_file() else None


class ProgramSource(Source):
    """A torch.export program (.pt2) or a TorchScript file."""

    FILES: ClassVar[tuple[str, ...]] = ("program",)
    kind: Literal["program"]
    program: str
    output: str | int | None = None


class OnnxSource(Source):
    """An ONNX file."""

    FILES: ClassVar[tuple[str, ...]] = ("onnx",)
    kind: Literal["onnx"]
    onnx: str
    input: str | None = None
    output: str | int | None = None


ForeignSource = Annotated[CheckpointSource | FactorySource | ProgramSource | OnnxSource, Field(discriminator="kind")]


class ForeignTeacher(Teacher):
    """A foreign network behind its own value range and class order."""

    def __init__(self, source: Source, session: Session, heads: Sequence[Head]) -> None:
        own = _covered(source, heads)
        super().__init__(source.name, own, source.preprocess)
        self.source, self.session = source, session
        self.batch, self.fixed_batch = session.batch or source.batch, session.batch is not None
        self._order = [source.classes.index(name) for name in self.classes]
        self._mean = np.array(source.mean, dtype=np.float32).reshape(1, -1, 1, 1)
        self._std = np.array(source.std, dtype=np.float32).reshape(1, -1, 1, 1)

    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        values = self.source.low + images * np.float32(self.source.high - self.source.low)
        shape = (len(images), self.source.channels, *images.shape[2:])
        values = np.array(np.broadcast_to((values - self._mean) / self._std, shape), dtype=np.float32, order="C")
        raw = self.session.run(values)
        if raw.shape != (len(images), len(self.source.classes)):
            raise StageError(
                f"teacher {self.name!r} gave {raw.shape} for {len(images)} films; its "
                f"classes want {(len(images), len(self.source.classes))}: list every output in order under classes"
            )
        return self._as_logits(raw[:, self._order])

    def _as_logits(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Logits as they are; probabilities through the log (softmax heads) or the log-odds (sigmoid heads)."""
        if self.source.outputs == "logits":
            return values
        if values.size and not (values.min() >= -CLIP and values.max() <= 1 + CLIP):
            raise StageError(
                f"teacher {self.name!r} gave {values.min():.4g} to {values.max():.4g} where outputs: probabilities "
                "promises [0, 1]; say outputs: logits"
            )
        clipped = np.clip(values.astype(np.float64), CLIP, 1 - CLIP)
        soft = np.array([head.kind == "softmax" for head in self.heads for _ in head.classes])
        return np.asarray(np.where(soft, np.log(clipped), logit(clipped)))


def load_foreign(source: Source, heads: Sequence[Head], *, base: Path = Path()) -> ForeignTeacher:
    """Open the teacher of `source`, paths taken from `base` (the recipe's folder), and check it on phantom films.

    It votes on every head of which it has all classes. Outputs that no head names are dropped; in a softmax head that
    is before the softmax, so the teacher then says "given that it is one of these". Raises StageError.
    """
    teacher = ForeignTeacher(source, _open(source, base), heads)
    check_teacher(teacher)
    return teacher


def check_teacher(teacher: Teacher) -> None:
    """Show the teacher unlike films. Raises StageError when it cannot take them, or says the same of all."""
    films = [chest(seed, finding, 256) for seed, finding in enumerate(("normal", "covid", "pneumonia", "normal"))]
    images = film_batch(films, teacher.preprocess)
    images[3] = images[3] * 0.5
    try:
        logits = teacher.logits(images)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise StageError(
            f"teacher {teacher.name!r} failed on films {images.shape}: {error}; check size and channels"
        ) from error
    if np.ptp(logits, axis=0).max() < SAME:
        raise StageError(
            f"teacher {teacher.name!r} says the same of every film ({np.round(logits[0], 4).tolist()}): most often its "
            "value range (low, high, mean, std) or its channels are not those that it was trained with"
        )


def _covered(source: Source, heads: Sequence[Head]) -> tuple[Head, ...]:
    """The heads of which the source has every class. A head of which it has only some is refused."""
    if twice := repeated(name for name in source.classes if name != "_"):
        raise StageError(f"teacher {source.name!r} names the output {twice[0]!r} twice; write _ for outputs to drop")
    for head in heads:
        missing = [name for name in head.classes if name not in source.classes]
        if 0 < len(missing) < len(head.classes):
            raise StageError(
                f"teacher {source.name!r} lacks {', '.join(missing)} of head {head.name!r}; it has "
                f"{', '.join(source.classes)}: rename its classes to ours, or make that class a head of its own"
            )
    own = tuple(head for head in heads if set(head.classes) <= set(source.classes))
    if not own:
        wanted = ", ".join(class_names(heads))
        raise StageError(f"teacher {source.name!r} has {', '.join(source.classes)}; none of {wanted} is there")
    return own


def _open(source: Source, base: Path) -> Session:
    if isinstance(source, CheckpointSource):
        path = base / source.checkpoint
        return open_checkpoint(path, source.architecture, len(source.classes), source.channels, source.prefixes)
    if isinstance(source, FactorySource):
        return open_factory(source.factory, base / source.weights if source.weights else None, base)
    if isinstance(source, ProgramSource):
        return open_program(base / source.program, source.output)
    if isinstance(source, OnnxSource):
        return open_onnx(base / source.onnx, source.input, source.output)
    raise StageError(f"no way to open a {type(source).__name__}")

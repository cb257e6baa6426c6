"""What a model is: its preprocessing, its heads and how its scores become decisions. The manifest's typed form."""

import hashlib
import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

__all__ = ["IN_FULL", "Box", "Head", "ModelSpec", "OperatingPoint", "Precision", "PreprocessSpec", "ReadingSpec"]
__all__ += ["TEMPERATURES", "class_names"]

Precision = Literal["fp32", "fp16", "int8"]
TEMPERATURES = 0.05, 20.0  # within which one is fitted; beyond, the logits are not those of the head
CHAIN_VERSION = 1  # raised whenever the arithmetic of the preprocessing chain changes
MAGNIFICATION = 2  # at most, of a film in the input of a model
OVERSAMPLING = (
    2  # a film that is read reduced keeps this many pixels, at least, for each of the model's along each side
)


class Strict(BaseModel):
    """Immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Box(NamedTuple):
    """A rectangle in the S×S model input: rows [top, top + height), columns [left, left + width)."""

    top: int
    left: int
    height: int
    width: int


class PreprocessSpec(Strict):
    """The preprocessing chain of DESIGN 1, to the bit; its `digest` is part of the model."""

    size: Annotated[int, Field(ge=16, le=2048, description="side S of the square model input, in pixels")] = 224
    aspect: Annotated[Literal["pad", "stretch"], Field(description="keep the aspect and pad with black, or not")] = (
        "pad"
    )
    low_percentile: Annotated[float, Field(ge=0, lt=50)] = 0.5
    high_percentile: Annotated[float, Field(gt=50, le=100)] = 99.5
    range_low: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    range_high: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    dtype: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _check(self) -> "PreprocessSpec":
        if not self.range_low < self.range_high:
            raise ValueError(f"range_low {self.range_low} must be below range_high {self.range_high}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the chain's version and of every parameter."""
        text = f"chain {CHAIN_VERSION} {self.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()

    def placement(self, height: int, width: int) -> Box:
        """Where a film of (height, width) pixels lands in the S×S input; what is outside is black.

        With `aspect="pad"` the longer side fills S, the shorter becomes max(1, floor(S * short / long + 0.5)),
        centred, the odd pixel of padding at the bottom or right.
        """
        if self.aspect == "stretch":
            return Box(0, 0, self.size, self.size)
        longest = max(height, width)
        rows = max(1, math.floor(self.size * height / longest + 0.5))
        columns = max(1, math.floor(self.size * width / longest + 0.5))
        return Box((self.size - rows) // 2, (self.size - columns) // 2, rows, columns)

    def magnifies(self, height: int, width: int) -> bool:
        """Whether a film of (height, width) pixels is a thumbnail: enlarged more than twice to fill its box."""
        box = self.placement(height, width)
        return box.height > MAGNIFICATION * height or box.width > MAGNIFICATION * width

    def suffices(self, coarse: tuple[int, int], full: tuple[int, int]) -> bool:
        """Whether a film of `full` (rows, columns) may be read as one of `coarse` for this input.

        It must land in the same box, so that heatmaps lie where they would, and have twice the box's pixels along each
        side, so that step 4 still is a mean over several film pixels.
        """
        box = self.placement(*full)
        enough = coarse[0] >= OVERSAMPLING * box.height and coarse[1] >= OVERSAMPLING * box.width
        return enough and self.placement(*coarse) == box


class ReadingSpec(Strict):
    """How films are read, in training, evaluation and screening alike."""

    jpeg2000: Annotated[
        Literal["full", "reduced"],
        Field(description="reduced: DICOM films in JPEG 2000 at the coarsest resolution that suffices for the model"),
    ] = "full"

    def reduced_for(self, preprocess: PreprocessSpec) -> PreprocessSpec | None:
        """What `edgecxr.read.read_radiograph` is told, for a model with this input."""
        return preprocess if self.jpeg2000 == "reduced" else None


IN_FULL = ReadingSpec()


class Head(Strict):
    """Classes that are scored together: `softmax` (exactly one holds) or `sigmoid` (each on its own)."""

    name: str
    kind: Literal["softmax", "sigmoid"]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    reference: str | None = None  # the softmax class that means "nothing found"; it gets no decision

    @model_validator(mode="after")
    def _check(self) -> "Head":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"head {self.name!r} names a class twice: {', '.join(self.classes)}")
        if self.kind == "softmax" and len(self.classes) < 2:
            raise ValueError(f"softmax head {self.name!r} has one class; it needs at least two, or kind: sigmoid")
        if self.reference is not None and (self.kind == "sigmoid" or self.reference not in self.classes):
            raise ValueError(f"reference {self.reference!r} of head {self.name!r} must be one of its softmax classes")
        return self

    @property
    def findings(self) -> tuple[str, ...]:
        """The classes that are decided on: all but the reference."""
        return tuple(name for name in self.classes if name != self.reference)


def class_names(heads: Iterable[Head]) -> tuple[str, ...]:
    """The classes of all heads, in the order of the `logits` output: head after head."""
    return tuple(name for head in heads for name in head.classes)


class OperatingPoint(Strict):
    """The threshold of one finding, derived for one artefact on one engine family; never valid for another."""

    name: str  # e.g. "screening"
    finding: str
    precision: Precision
    engine: str  # engine family, e.g. "openvino-cpu"
    threshold: Annotated[float, Field(ge=0, le=1)]  # calibrated probability; positive at or above it
    rule: str  # how it was set, e.g. "sensitivity >= 0.90 on the validation fold"
    sensitivity: float  # reached where it was set
    specificity: float


class ModelSpec(Strict):
    """Everything a runtime must know to turn a radiograph into a decision, but for the weights."""

    name: str
    version: str
    heads: Annotated[tuple[Head, ...], Field(min_length=1)]
    preprocess: PreprocessSpec
    temperatures: dict[Precision, tuple[float, ...]]  # one per head, fitted on validation films
    operating_points: tuple[OperatingPoint, ...] = ()
    cam_shape: tuple[int, int]  # (h, w) of the class activation map
    embedding_size: int
    reading: ReadingSpec = IN_FULL  # written where it is not the default: versions before it know no such key

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.reading == IN_FULL:
            written.pop("reading", None)
        return written

    @model_validator(mode="after")
    def _check(self) -> "ModelSpec":
        names = self.classes
        if len(set(names)) != len(names):
            raise ValueError(f"two heads share a class name: {', '.join(names)}")
        for precision, values in self.temperatures.items():
            low, high = TEMPERATURES
            if len(values) != len(self.heads) or not all(low <= value <= high for value in values):
                raise ValueError(f"{precision} needs one temperature of {low:g} to {high:g} per head, got {values}")
        return self

    @property
    def reduced_for(self) -> PreprocessSpec | None:
        """What `edgecxr.read.read_radiograph` is told, so that films are read as in training."""
        return self.reading.reduced_for(self.preprocess)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the `logits` output, head after head."""
        return class_names(self.heads)

    @property
    def findings(self) -> tuple[str, ...]:
        """The classes that are decided on, in the order of the `logits` output."""
        return tuple(name for head in self.heads for name in head.findings)

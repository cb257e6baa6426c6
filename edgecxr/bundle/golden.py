"""The golden set: phantom films as stored values, with what the packed models answered when the bundle was built."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from edgecxr.bundle import arrays
from edgecxr.bundle.manifest import describe
from edgecxr.errors import BundleError
from edgecxr.radiograph import Radiograph, VoiFunction, Window
from edgecxr.spec import ModelSpec, Precision, Strict

__all__ = ["Golden"]

OUTPUTS = ("logits", "cam", "embedding")
MEMBER = "golden.npz"


class _Header(Strict):
    """What `golden.npz` says of a frame beside its pixels."""

    bits_stored: Annotated[int, Field(ge=1, le=16)]
    slope: FiniteFloat
    intercept: FiniteFloat
    window: tuple[FiniteFloat, FiniteFloat, VoiFunction] | None
    inverted: bool
    padding: tuple[int, int] | None
    source: str


HEADERS = TypeAdapter(tuple[_Header, ...])


@dataclass(frozen=True)
class Golden:
    """N phantom films and, for FP32 and every packed precision, the outputs that ONNX Runtime gave at build time.

    logits (N, C), cam (N, C, h, w) and embedding (N, D), float32, by precision. No patient's film travels in a bundle.
    """

    frames: tuple[Radiograph, ...]
    logits: Mapping[Precision, NDArray[np.float32]]
    cam: Mapping[Precision, NDArray[np.float32]]
    embedding: Mapping[Precision, NDArray[np.float32]]

    def to_bytes(self) -> bytes:
        """npz: pixels frame by frame, what their header says as JSON, outputs by precision."""
        headers = json.dumps([_header(frame) for frame in self.frames], sort_keys=True)
        stored: dict[str, NDArray[Any]] = {"headers": np.frombuffer(headers.encode(), np.uint8)}
        for index, frame in enumerate(self.frames):
            stored[f"pixels.{index}"] = frame.pixels
        for output in OUTPUTS:
            for precision, values in getattr(self, output).items():
                stored[f"{output}.{precision}"] = np.asarray(values, np.float32)
        return arrays.dump(stored)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Golden":
        """Read what `to_bytes` wrote. Raises BundleError."""
        stored = arrays.load(data, MEMBER)
        try:
            headers = HEADERS.validate_json(stored.pop("headers").tobytes())
            frames = tuple(_frame(stored.pop(f"pixels.{index}"), header) for index, header in enumerate(headers))
        except ValidationError as error:
            raise BundleError(f"{MEMBER}: its frames: {describe(error)}; build the bundle again") from error
        except (KeyError, ValueError) as error:
            raise BundleError(f"{MEMBER}: its frames cannot be read ({error!r}); build the bundle again") from error
        outputs: dict[str, dict[Any, NDArray[np.float32]]] = {output: {} for output in OUTPUTS}
        for name, values in stored.items():
            output, _, precision = name.partition(".")
            if output not in outputs or values.dtype != np.float32:
                raise BundleError(f"{MEMBER}: unexpected array {name!r} of {values.dtype}; build the bundle again")
            outputs[output][precision] = values
        return cls(frames, **outputs)

    def check(self, spec: ModelSpec, precisions: tuple[Precision, ...]) -> None:
        """Every precision (and FP32) has outputs of the spec's shapes, all finite. Raises BundleError."""
        if not self.frames:
            raise BundleError(f"{MEMBER}: holds no frame; at least one phantom is needed to prove an engine")
        count, classes = len(self.frames), len(spec.classes)
        wanted = {
            "logits": (count, classes),
            "cam": (count, classes, *spec.cam_shape),
            "embedding": (count, spec.embedding_size),
        }
        for output, shape in wanted.items():
            for precision in dict.fromkeys(("fp32", *precisions)):
                values = getattr(self, output).get(precision)
                if values is None or values.shape != shape or not np.isfinite(values).all():
                    got = "nothing" if values is None else f"{values.shape} {values.dtype}"
                    raise BundleError(f"{MEMBER}: {output} of {precision}: got {got}, wanted finite values of {shape}")


def _header(frame: Radiograph) -> dict[str, Any]:
    if frame.modality_lut is not None or frame.voi_lut is not None:
        raise BundleError(f"golden frame {frame.source!r} has a lookup table; golden frames are phantoms without one")
    window = frame.window
    return {
        "bits_stored": frame.bits_stored,
        "slope": frame.slope,
        "intercept": frame.intercept,
        "window": None if window is None else [window.center, window.width, window.function],
        "inverted": frame.inverted,
        "padding": frame.padding,
        "source": frame.source,
    }


def _frame(pixels: NDArray[Any], header: _Header) -> Radiograph:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.int8, np.uint16, np.int16):
        raise ValueError(f"pixels {pixels.shape} {pixels.dtype}, wanted (H, W) of 8 or 16 bits")
    said = dict(header) | {"window": None if header.window is None else Window(*header.window)}
    return Radiograph(np.ascontiguousarray(pixels), **said)

"""Every error that EdgeCXR raises on purpose.

EdgeCxrError
├── Refusal          this film cannot be screened; carries a reason from the closed list `RefusalReason`
├── DatasetError     labels or films of a training set are wrong; carries every problem found
├── RecipeError      a recipe is wrong; carries file and line
├── BundleError      a file is not a bundle that this version can trust
├── EngineError      an inference engine is absent, or did not reproduce the bundle's golden set
├── KernelError      a preprocessing kernel was asked for by name and is absent
├── LintError        an ONNX graph breaks the rules of a deployable model
├── StageError       a build stage could not produce what the next one needs
├── ConfigError      the node's configuration is wrong; carries file and line
├── SpoolError       the node's spool cannot be opened or trusted
├── SpoolFull        the node has no room for another image
├── ObjectTooLarge   a peer sent more bytes than an object may have
├── DrawingError     a film could not be drawn for people, whatever was decided on it
├── ResultError      no DICOM result can be made of an image
├── SendError        a peer could not be reached, or refused
└── StatisticsError  too few films, or scores that are not numbers: a figure cannot be computed

Messages say what was got, what was wanted and what to do.
"""

from collections.abc import Sequence
from enum import Enum

__all__ = [
    "BundleError",
    "ChoiceError",
    "ConfigError",
    "DatasetError",
    "DrawingError",
    "EdgeCxrError",
    "EngineError",
    "KernelError",
    "LintError",
    "ObjectTooLarge",
    "RecipeError",
    "Refusal",
    "RefusalReason",
    "ResultError",
    "SendError",
    "SpoolError",
    "SpoolFull",
    "StageError",
    "StatisticsError",
]

SHOWN = 50  # problems of a data set that a message lists; all are in `problems`


class EdgeCxrError(Exception):
    """Base of every error that EdgeCXR raises on purpose."""


class RefusalReason(str, Enum):
    """Why a film was refused: the closed list that results, reports and the node share."""

    UNREADABLE = "unreadable"  # not a file format that we read, or its structure is broken
    TRUNCATED = "truncated"  # fewer bytes than the header promises
    UNSUPPORTED_SYNTAX = "unsupported_syntax"  # a transfer syntax without a decoder here
    TOO_LARGE = "too_large"  # more pixels, bytes or nesting than a radiograph has
    NO_PIXELS = "no_pixels"  # a DICOM object without an image
    MULTI_FRAME = "multi_frame"  # more than one frame
    NOT_GRAYSCALE = "not_grayscale"  # colour, palette, or more than one channel
    UNSUPPORTED_PIXELS = "unsupported_pixels"  # bit depth, type or transform that the chain does not define
    CONTRADICTORY = "contradictory"  # header and pixel data disagree on how to read the values
    NOT_A_RADIOGRAPH = "not_a_radiograph"  # another modality (CT, MR, US, report, segmentation …)
    NOT_A_CHEST = "not_a_chest"  # the header names another body part or species
    NOT_FRONTAL_CHEST = "not_frontal_chest"  # the network's embedding is far from every training film
    NO_CONTRAST = "no_contrast"  # one flat value: nothing was exposed
    TOO_SMALL = "too_small"  # a thumbnail: fewer pixels than the model needs


class Refusal(EdgeCxrError):
    """One film cannot be screened. `str(error)` is ``"<reason>: <detail>"``."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class DatasetError(EdgeCxrError):
    """Labels or films of a data set are wrong; `problems` names each, row by row."""

    def __init__(self, problems: Sequence[str]) -> None:
        shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        more = f"\n  … and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        super().__init__(f"{len(problems)} problem(s) in the data set:\n{shown}{more}")
        self.problems = tuple(problems)


class RecipeError(EdgeCxrError):
    """A recipe does not say what it must; the message gives file, line and the nearest valid key."""


class BundleError(EdgeCxrError):
    """A file is not a bundle that can be trusted: damaged, altered, or of a newer schema."""


class EngineError(EdgeCxrError):
    """An inference engine is absent, failed, or did not reproduce the golden set on this machine."""


class KernelError(EdgeCxrError):
    """A preprocessing kernel was named (EDGECXR_KERNELS) and is not there, or was given what it cannot take."""


class LintError(EdgeCxrError):
    """An ONNX graph breaks a rule that TensorRT, OpenVINO and ONNX Runtime share; `problems` names each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the graph cannot be deployed:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = tuple(problems)


class StageError(EdgeCxrError):
    """A build stage could not produce what the next one needs; the message says what to change in the recipe."""


class ChoiceError(StageError):
    """A method or a layer that was asked for does not fit the network; the message names what does."""


class StatisticsError(EdgeCxrError, ValueError):
    """A figure cannot be computed from these films; the message gives the counts."""


class ConfigError(EdgeCxrError):
    """A node's configuration does not say what it must; the message gives file, line and the nearest valid key."""


class SpoolError(EdgeCxrError):
    """The node's spool cannot be opened or trusted: of a newer schema, in use by another node, or damaged."""


class SpoolFull(EdgeCxrError):
    """There is no room for another image: the disk is near full, or too many images wait. Nothing was taken."""


class ObjectTooLarge(EdgeCxrError):
    """A peer sent more bytes than one object may have."""


class DrawingError(EdgeCxrError):
    """Drawing a film for people crashed or stalled; where it is `given_up`, it is not tried again."""

    def __init__(self, detail: str, given_up: bool = False) -> None:
        super().__init__(f"the film cannot be shown: {detail}")
        self.detail = detail
        self.given_up = given_up


class ResultError(EdgeCxrError):
    """No DICOM result can be made of this image; the message says what its header lacks."""


class SendError(EdgeCxrError):
    """A peer could not be reached, or refused the association; the message has its own words."""

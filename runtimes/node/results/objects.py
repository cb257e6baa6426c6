"""The DICOM objects that a result is sent as."""

import warnings
from functools import partial
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset

from edgecxr.errors import ResultError
from edgecxr.runtimes.node.config import ResultSection
from edgecxr.runtimes.node.drawing_process import Draw, draw_film
from edgecxr.runtimes.node.images import Image, Result
from edgecxr.runtimes.node.results.capture import capture
from edgecxr.runtimes.node.results.making import Making
from edgecxr.runtimes.node.results.source import keep_bytes, read_source
from edgecxr.runtimes.node.results.sr import report

__all__ = ["build"]

MAKERS = {"sr": report, "capture": capture}


def build(
    kind: str,
    image: Image,
    result: Result,
    source: Path,
    sop_instance: str,
    *,
    settings: ResultSection,
    draw: Draw | None = None,
) -> FileDataset:
    """The object of `kind` ("sr", "capture") for one image, in Explicit VR Little Endian.

    `source` is the file as received, `sop_instance` the UID that the object gets, `draw` draws the film; in this
    process unless given. The same arguments give the same object, bytes included, whenever it is built. Raises
    ResultError: the image is no DICOM file or lacks the UIDs of its study, or `result` is not of this image. Raises
    DrawingError as `draw` does, unless it gave the film up: then the object says so.
    """
    if kind not in MAKERS:
        raise ResultError(f"no result object is called {kind!r}; choose one of {', '.join(MAKERS)}")
    if result.image != image.id:
        raise ResultError(f"the result is of image {result.image}, not of image {image.id}")
    record, cam, decided = result.record, result.cam, result.decided
    draw = draw or partial(draw_film, source)
    making = Making(read_source(source), record, cam, decided, sop_instance, settings, draw, result.doubt)
    with warnings.catch_warnings():  # UIDs with leading zeros, which units send: pydicom warns, and keeps them
        warnings.filterwarnings("ignore", "Invalid value for VR UI", UserWarning)
        dataset = MAKERS[kind](making)
        return _as_read(dataset)


def _as_read(dataset: Dataset) -> FileDataset:
    """The object as it reads from a file. pydicom then keeps stored text as bytes, whoever saves or sends it."""
    keep_bytes(dataset)
    stream = BytesIO()
    pydicom.dcmwrite(stream, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream)

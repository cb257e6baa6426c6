"""The DICOM objects that a result is sent as."""

import warnings
from pathlib import Path

from pydicom.dataset import FileDataset

from edgecxr.errors import ResultError
from edgecxr.runtimes.node.config import ResultSection
from edgecxr.runtimes.node.images import Image, Result
from edgecxr.runtimes.node.results.capture import capture
from edgecxr.runtimes.node.results.making import Making
from edgecxr.runtimes.node.results.source import read_source
from edgecxr.runtimes.node.results.sr import report

__all__ = ["build"]

MAKERS = {"sr": report, "capture": capture}


def build(
    kind: str, image: Image, result: Result, source: Path, sop_instance: str, *, settings: ResultSection
) -> FileDataset:
    """The object of `kind` ("sr", "capture") for one image, in Explicit VR Little Endian.

    `source` is the file as received, `sop_instance` the UID that the object gets. The same arguments give the same
    object, bytes included, whenever it is built. Raises ResultError: the image is no DICOM file or lacks the UIDs of
    its study, or `result` is not of this image.
    """
    if kind not in MAKERS:
        raise ResultError(f"no result object is called {kind!r}; choose one of {', '.join(MAKERS)}")
    if result.image != image.id:
        raise ResultError(f"the result is of image {result.image}, not of image {image.id}")
    making = Making(read_source(source), result.record, result.cam, result.decided, sop_instance, source, settings)
    with warnings.catch_warnings():  # UIDs with leading zeros, which units send: pydicom warns, and keeps them
        warnings.filterwarnings("ignore", "Invalid value for VR UI", UserWarning)
        dataset = MAKERS[kind](making)
    meta = dataset.file_meta
    return FileDataset("", dataset, preamble=b"\0" * 128, file_meta=meta, is_implicit_VR=False)

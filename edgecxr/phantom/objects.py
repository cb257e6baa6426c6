"""Phantoms as DICOM objects: valid DX and CR images in every transfer syntax that X-ray units send."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

from edgecxr.errors import EngineError
from edgecxr.radiograph import Lut, Radiograph, Window

__all__ = ["MODALITIES", "SYNTAXES", "turned", "write_dicom"]

Pixels = NDArray[Any]
IMPLEMENTATION = UID("2.25.186330512467311245607514871309873418641")


@dataclass(frozen=True)
class Syntax:
    """A transfer syntax, and how one frame is encoded in it (None: native)."""

    uid: str
    encode: Callable[[Pixels, int], bytes] | None = None
    lossy: bool = False


SYNTAXES: dict[str, Syntax] = {
    "explicit": Syntax("1.2.840.10008.1.2.1"),
    "implicit": Syntax("1.2.840.10008.1.2"),
    "big": Syntax("1.2.840.10008.1.2.2"),
    "deflated": Syntax("1.2.840.10008.1.2.1.99"),
    "rle": Syntax("1.2.840.10008.1.2.5", lambda pixels, _: _rle(pixels)),
    "jpegls": Syntax("1.2.840.10008.1.2.4.80", lambda pixels, _: bytes(imagecodecs.jpegls_encode(pixels))),
    "jpeg_lossless": Syntax("1.2.840.10008.1.2.4.70", lambda pixels, bits: _jpeg_lossless(pixels, bits)),
    "jpeg2000": Syntax("1.2.840.10008.1.2.4.90", lambda pixels, bits: _jpeg2000(pixels, bits)),
    "jpeg_extended": Syntax("1.2.840.10008.1.2.4.51", lambda pixels, bits: _jpeg_extended(pixels, bits), lossy=True),
}
MODALITIES = {
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
}


def write_dicom(
    radiograph: Radiograph,
    path: str | Path,
    *,
    syntax: str = "explicit",
    monochrome1: bool = False,
    modality: str = "DX",
    body_part: str = "CHEST",
) -> Path:
    """Write one film as a DICOM file (PS3.10) and return its path.

    `monochrome1` writes the twin whose stored values are turned, with its window and padding, so that both files give
    the same tensor. UIDs follow from the film and the arguments, unless `radiograph.identity` brings its own. Raises
    ValueError for a name outside SYNTAXES or MODALITIES, or pixels that the syntax cannot hold.
    """
    if syntax not in SYNTAXES:
        raise ValueError(f"syntax {syntax!r}: choose one of {', '.join(SYNTAXES)}")
    if modality not in MODALITIES:
        raise ValueError(f"modality {modality!r}: choose one of {', '.join(MODALITIES)}")
    film = turned(radiograph) if monochrome1 and not radiograph.inverted else radiograph
    entropy = [film.source, syntax, modality, str(film.inverted), str(film.shape)]
    dataset = _header(film, modality, body_part, entropy)
    target = Path(path)
    meta = _meta(dataset, SYNTAXES[syntax].uid)
    file = FileDataset(str(target), dataset, preamble=b"\0" * 128, file_meta=meta)
    _set_pixels(file, film, SYNTAXES[syntax])
    big, implicit = syntax == "big", syntax == "implicit"
    pydicom.dcmwrite(target, file, enforce_file_format=True, little_endian=not big, implicit_vr=implicit)
    return target


def turned(radiograph: Radiograph) -> Radiograph:
    """The twin with dark and bright swapped in its stored values: the same picture, once its polarity is turned back.

    A stored value v becomes T - v, with T the sum of the smallest and the largest value of its bits, so a modality
    value m becomes K - m with K = slope·T + 2·intercept; windows and padding follow. Raises ValueError with tables.
    """
    if radiograph.modality_lut is not None or radiograph.voi_lut is not None:
        raise ValueError("a film with lookup tables has no turned twin here; write it as it is")
    signed = radiograph.pixels.dtype.kind == "i"
    total = -1 if signed else 2**radiograph.bits_stored - 1
    pixels = (total - radiograph.pixels.astype(np.int32)).astype(radiograph.pixels.dtype)
    mirror = radiograph.slope * total + 2 * radiograph.intercept
    window = radiograph.window
    if window is not None:
        mirror += 1 if window.function == "LINEAR" else 0  # LINEAR is centred on c - 0.5 (PS3.3 C.11.2.1.2.1)
        window = Window(mirror - window.center, window.width, window.function)
    padding = radiograph.padding and (total - radiograph.padding[1], total - radiograph.padding[0])
    return replace(radiograph, pixels=pixels, window=window, padding=padding, inverted=not radiograph.inverted)


def _meta(dataset: Dataset, syntax: str) -> FileMetaDataset:
    """Group 0002 (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "EDGECXR_PHANTOM"
    return meta


def _header(film: Radiograph, modality: str, body_part: str, entropy: list[str]) -> Dataset:
    """Patient, study, series and image of a phantom, without its pixels."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID = MODALITIES[modality]
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(header, keyword, generate_uid(entropy_srcs=[*entropy, keyword]))
    header.PatientName, header.PatientID = "Phantom^EdgeCXR", film.source or "phantom"
    header.PatientBirthDate, header.PatientSex = "", "O"
    header.StudyDate, header.StudyTime, header.StudyID = "20260101", "080000", "1"
    header.AccessionNumber = header.ReferringPhysicianName = header.PatientOrientation = ""
    header.Modality, header.Manufacturer = modality, "EdgeCXR phantom"
    header.SeriesNumber, header.InstanceNumber, header.ImageType = 1, 1, ["ORIGINAL", "PRIMARY"]
    header.BodyPartExamined, header.BurnedInAnnotation = body_part, "NO"
    if modality != "CT":
        header.ViewPosition = "PA"
    if modality == "DX":
        header.PresentationIntentType = "FOR PRESENTATION"
        header.PixelIntensityRelationship, header.PixelIntensityRelationshipSign = "LOG", 1
        header.ImageLaterality, header.ImagerPixelSpacing = "U", [0.14, 0.14]
    for keyword, value in film.identity.items():
        setattr(header, keyword, value)
    _set_transforms(header, film)
    return header


def _set_transforms(header: Dataset, film: Radiograph) -> None:
    """Modality and VOI transforms and polarity, as the film has them."""
    header.PresentationLUTShape = "INVERSE" if film.inverted else "IDENTITY"
    if film.modality_lut is not None:
        header.ModalityLUTSequence = [_lut(film.modality_lut)]
        header.ModalityLUTSequence[0].ModalityLUTType = "US"
    else:
        header.RescaleSlope, header.RescaleIntercept, header.RescaleType = film.slope, film.intercept, "US"
    if film.voi_lut is not None:
        header.VOILUTSequence = [_lut(film.voi_lut)]
    if film.window is not None:
        header.WindowCenter, header.WindowWidth = film.window.center, film.window.width
        header.VOILUTFunction = film.window.function


def _lut(table: Lut) -> Dataset:
    """One item of a LUT sequence (PS3.3 C.11.1.1.1)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table.values) % 65536, table.first % 65536, table.bits])
    item.add_new("LUTData", "US", [int(value) for value in table.values])
    return item


def _set_pixels(file: FileDataset, film: Radiograph, syntax: Syntax) -> None:
    """The Image Pixel module (PS3.3 C.7.6.3), native or encapsulated."""
    pixels = film.pixels
    signed = pixels.dtype.kind == "i"
    file.Rows, file.Columns = film.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, int(signed)
    file.PhotometricInterpretation = "MONOCHROME1" if film.inverted else "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * pixels.itemsize, film.bits_stored, film.bits_stored - 1
    file.LossyImageCompression = "01" if syntax.lossy else "00"
    if film.padding is not None:
        file.add_new("PixelPaddingValue", "SS" if signed else "US", film.padding[0])
        file.add_new("PixelPaddingRangeLimit", "SS" if signed else "US", film.padding[1])
    if syntax.encode is None:
        big = syntax.uid == SYNTAXES["big"].uid
        data = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        file.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))
        return
    if signed and syntax.uid != SYNTAXES["rle"].uid:
        raise ValueError("signed pixels are written native or as RLE; this codec holds unsigned values")
    file.add_new("PixelData", "OB", encapsulate([syntax.encode(pixels, film.bits_stored)]))
    file["PixelData"].is_undefined_length = True


def _rle(pixels: Pixels) -> bytes:
    """One DICOM RLE frame (PS3.5 G). Raises EngineError where its encoder is not installed, as in the runtime alone."""
    try:
        from rle.utils import encode_pixel_data
    except ModuleNotFoundError as error:
        raise EngineError('RLE is written by pylibjpeg-rle: pip install "edgecxr[train]"') from error
    encoded: bytes = encode_pixel_data(
        pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(),
        byteorder="<",
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=8 * pixels.itemsize,
    )
    return encoded


def _jpeg_lossless(pixels: Pixels, bits: int) -> bytes:
    """JPEG process 14, selection value 1 (ITU-T T.81 annex H)."""
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits))


def _jpeg2000(pixels: Pixels, bits: int) -> bytes:
    """A reversible JPEG 2000 code stream with five resolutions below the full one (ITU-T T.800)."""
    return bytes(
        imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, bitspersample=bits, resolutions=6)
    )


def _jpeg_extended(pixels: Pixels, bits: int) -> bytes:
    """12-bit sequential JPEG, process 4 (ITU-T T.81): lossy, at high quality."""
    if bits != 12:
        raise ValueError(f"JPEG extended is written with 12 bits here, the film has {bits}")
    return bytes(imagecodecs.jpeg8_encode(pixels, level=97, bitspersample=12))

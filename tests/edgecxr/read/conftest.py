"""Films that are made here: by pydicom, pylibjpeg-rle and the encoders of imagecodecs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from rle.utils import encode_frame

EMPTY_OFFSET_TABLE = b"\xfe\xff\x00\xe0\0\0\0\0"


def _bits(pixels: NDArray[Any]) -> int:
    return 8 if pixels.dtype.itemsize == 1 else 12


def _jpeg_lossless(pixels: NDArray[Any], predictor: int) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=_bits(pixels), predictor=predictor)


def _jpeg2000(pixels: NDArray[Any], **options: Any) -> bytes:
    options = {"level": 0, "reversible": True, "codecformat": "j2k", "bitspersample": _bits(pixels)} | options
    return imagecodecs.jpeg2k_encode(pixels, **options)


ENCODERS: dict[str, Callable[..., bytes]] = {
    RLELossless: lambda pixels: encode_frame(pixels.tobytes(), *pixels.shape, 1, 8 * pixels.dtype.itemsize, "<"),
    JPEGLossless: lambda pixels: _jpeg_lossless(pixels, predictor=6),
    JPEGLosslessSV1: lambda pixels: _jpeg_lossless(pixels, predictor=1),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: _jpeg2000,
    HTJ2KLossless: lambda pixels: imagecodecs.htj2k_encode(pixels, reversible=True),
    JPEGBaseline8Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, 95),
    JPEGExtended12Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, 95, bitspersample=12),
    JPEGLSNearLossless: lambda pixels: imagecodecs.jpegls_encode(pixels, 2),
    JPEG2000: lambda pixels: _jpeg2000(pixels, level=70, reversible=False),
}


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """encode(syntax, pixels, **options) -> one compressed frame."""
    return lambda syntax, pixels, **options: bytes(ENCODERS[syntax](pixels, **options))


@pytest.fixture(scope="session")
def film() -> Callable[..., NDArray[Any]]:
    """film(dtype, shape, bits): a noisy slope over the full range of 12 bits, or of 8; odd in both directions."""

    def make(dtype: str = "uint16", shape: tuple[int, int] = (61, 47), bits: int | None = None) -> NDArray[Any]:
        kind = np.dtype(dtype)
        bits = bits or (8 if kind.itemsize == 1 else 12)
        y, x = np.mgrid[: shape[0], : shape[1]]
        noise = np.random.default_rng(7).integers(0, 16, shape)
        values = (x * 0.6 / shape[1] + y * 0.4 / shape[0]) * ((1 << bits) - 17) + noise
        values[0, 0], values[0, 1] = 0, (1 << bits) - 1
        return (values - (1 << bits - 1 if kind.kind == "i" else 0)).astype(kind)

    return make


@pytest.fixture(scope="session")
def dataset() -> Callable[..., Dataset]:
    """dataset(pixels, **elements): the header of a frontal chest film with these pixels; None leaves an element out."""

    def make(pixels: NDArray[Any], **elements: Any) -> Dataset:
        values = {
            "SOPClassUID": DigitalXRayImageStorageForPresentation,
            "SOPInstanceUID": "1.2.3.4",
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2.3.1",
            "Modality": "DX",
            "BodyPartExamined": "CHEST",
            "ViewPosition": "PA",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 8 * pixels.dtype.itemsize,
            "BitsStored": _bits(pixels),
            "HighBit": _bits(pixels) - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        } | elements
        header = Dataset()
        for keyword, value in values.items():
            if value is not None:
                setattr(header, keyword, value)
        return header

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """save(header, syntax) -> Path of a PS3.10 file, written by pydicom."""

    def write(header: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = syntax
        header.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
        header.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        path = tmp_path / f"film{len(list(tmp_path.iterdir()))}"
        header.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def write_dicom(dataset: Callable[..., Dataset], save: Callable[..., Path]) -> Callable[..., Path]:
    """write_dicom(pixels, syntax, fragments=None, **elements) -> Path of a chest film.

    `fragments` are the pieces of the compressed frame, where it is not to be encoded here. An element PixelData is
    written as it is.
    """

    def write(
        pixels: NDArray[Any],
        syntax: str = ExplicitVRLittleEndian,
        fragments: list[bytes] | None = None,
        **elements: Any,
    ) -> Path:
        header = dataset(pixels, **elements)
        compressed = fragments is not None or syntax in ENCODERS
        if "PixelData" not in elements and compressed:
            fragments = fragments or [bytes(ENCODERS[syntax](pixels))]
            items = b"".join(encapsulate([piece], has_bot=False)[8:] for piece in fragments)
            header.PixelData = EMPTY_OFFSET_TABLE + items
        elif "PixelData" not in elements:
            order = ">" if syntax == ExplicitVRBigEndian else "<"
            raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
            header.PixelData = raw + b"\0" * (len(raw) % 2)
        header["PixelData"].VR = "OB" if compressed or pixels.dtype.itemsize == 1 else "OW"
        header["PixelData"].is_undefined_length = compressed
        return save(header, syntax)

    return write

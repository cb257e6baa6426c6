import sys
from dataclasses import replace

import imagecodecs
import numpy as np
import pydicom
import pytest

from edgecxr.errors import EngineError
from edgecxr.phantom import MODALITIES, SYNTAXES, chest, turned, write_dicom
from edgecxr.radiograph import Lut, Window

DECODERS = {
    "jpegls": imagecodecs.jpegls_decode,
    "jpeg_lossless": imagecodecs.ljpeg_decode,
    "jpeg2000": imagecodecs.jpeg2k_decode,
    "jpeg_extended": imagecodecs.jpeg8_decode,
}


def stored(path, syntax):
    file = pydicom.dcmread(path)
    if syntax in DECODERS:
        frame = next(pydicom.encaps.generate_frames(file.PixelData, number_of_frames=1))
        return file, DECODERS[syntax](frame)
    return file, file.pixel_array


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_holds_the_stored_values(tmp_path, syntax, monochrome1):
    film = chest(1, "covid", 65)
    file, values = stored(write_dicom(film, tmp_path / "a.dcm", syntax=syntax, monochrome1=monochrome1), syntax)
    expected = 4095 - film.pixels if monochrome1 else film.pixels
    assert file.file_meta.TransferSyntaxUID == SYNTAXES[syntax].uid
    assert file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID
    assert file.PhotometricInterpretation == ("MONOCHROME1" if monochrome1 else "MONOCHROME2")
    assert file.BodyPartExamined == "CHEST"
    assert np.abs(values.astype(int) - expected).max() <= (60 if SYNTAXES[syntax].lossy else 0)


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_class_follows_the_modality(tmp_path, modality):
    file = pydicom.dcmread(write_dicom(chest(1, size=64), tmp_path / "a.dcm", modality=modality))
    assert file.SOPClassUID == MODALITIES[modality]
    assert file.Modality == modality


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_a_turned_film_shows_the_same_picture(function, kind):
    offset = 2048 if kind == "int16" else 0
    pixels = (chest(2, size=64).pixels.astype(int) - offset).astype(kind)
    film = replace(chest(2, size=64), pixels=pixels, slope=2.0, intercept=-10.0, window=Window(900.0, 3000.0, function))
    twin = turned(film)

    def shown(radiograph):
        values = radiograph.pixels.astype(float) * radiograph.slope + radiograph.intercept
        shift, width = (0.5, radiograph.window.width - 1) if function == "LINEAR" else (0.0, radiograph.window.width)
        gray = np.clip((values - (radiograph.window.center - shift)) / width + 0.5, 0, 1)
        return 1 - gray if radiograph.inverted else gray

    np.testing.assert_allclose(shown(twin), shown(film), atol=1e-12)
    assert np.array_equal(turned(twin).pixels, film.pixels)
    assert turned(twin).window == film.window


def test_padding_turns_with_the_film():
    assert turned(replace(chest(0, size=32), padding=(0, 10))).padding == (4085, 4095)


def test_tables_are_written_and_refused_a_twin(tmp_path):
    table = Lut(0, np.arange(4096, dtype=np.uint16), 12)
    film = replace(chest(0, size=32), voi_lut=table, modality_lut=table)
    file = pydicom.dcmread(write_dicom(film, tmp_path / "a.dcm"))
    assert list(file.VOILUTSequence[0].LUTDescriptor) == [4096, 0, 12]
    assert file.ModalityLUTSequence[0].LUTData[4095] == 4095
    with pytest.raises(ValueError, match="lookup tables has no turned twin"):
        write_dicom(film, tmp_path / "b.dcm", monochrome1=True)


def test_the_film_may_bring_its_own_identity(tmp_path):
    film = replace(chest(0, size=32), identity={"SOPInstanceUID": "1.2.3", "PatientID": "P-7"})
    file = pydicom.dcmread(write_dicom(film, tmp_path / "a.dcm"))
    assert (file.SOPInstanceUID, file.PatientID) == ("1.2.3", "P-7")
    assert file.file_meta.MediaStorageSOPInstanceUID == "1.2.3"


def test_only_rle_needs_its_encoder(tmp_path, monkeypatch):
    """The runtime alone has no pylibjpeg-rle: everything else is written there too."""
    monkeypatch.setitem(sys.modules, "rle.utils", None)
    with pytest.raises(EngineError, match=r'RLE is written by pylibjpeg-rle: pip install "edgecxr\[train\]"'):
        write_dicom(chest(0, size=32), tmp_path / "a.dcm", syntax="rle")
    for syntax in set(SYNTAXES) - {"rle"}:
        write_dicom(chest(0, size=32), tmp_path / f"{syntax}.dcm", syntax=syntax)


def test_unknown_names_are_refused_with_the_choices(tmp_path):
    with pytest.raises(ValueError, match="syntax 'zip': choose one of explicit, implicit"):
        write_dicom(chest(0, size=32), tmp_path / "a.dcm", syntax="zip")
    with pytest.raises(ValueError, match="modality 'MR': choose one of DX, CR, CT"):
        write_dicom(chest(0, size=32), tmp_path / "a.dcm", modality="MR")
    signed = replace(chest(0, size=32), pixels=np.zeros((32, 32), np.int16))
    with pytest.raises(ValueError, match="signed pixels are written native or as RLE"):
        write_dicom(signed, tmp_path / "a.dcm", syntax="jpeg2000")

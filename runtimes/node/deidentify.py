"""De-identified copies of DICOM files: the Basic Application Level Confidentiality Profile (PS3.15 E.2).

What to do with each attribute comes from table E.1-1, as the package dicom-anonymizer has it. It is applied here and
not by that package, which leaves names and UIDs inside sequences as they are. At any depth:

- X is removed; so is what the table gives as X/D or X/Z/D, which radiographs need not have (type 3)
- Z and Z/D become empty, D a dummy value
- U is replaced, the same UID by the same within one `Deidentifier`; so is every other UID that DICOM does not define
- private attributes, overlays, curves and attributes that PS3.6 does not know are removed
- names, dates, times and ages that the table does not list become empty
- comments and application data inside JPEG and JPEG 2000 pixels become blank (see `comments`), and so does what lies
  behind uncompressed and RLE pixels; tables of offsets that are none are left out
"""

import hashlib
import mmap
import secrets
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import get_expected_length
from pydicom.sequence import Sequence

from edgecxr.errors import Refusal, ResultError
from edgecxr.read.dicom import open_dataset
from edgecxr.read.guard import DEFAULT
from edgecxr.runtimes.node.comments import blanked_pixels, blanked_runs, cut

__all__ = ["Deidentifier"]

TABLE = "dicomfields_2026c"  # PS3.15 2026c
REMOVE, EMPTY, DUMMY, UID, KEEP = "X", "Z", "D", "U", "K"
ACTIONS = {
    "D_TAGS": DUMMY,
    "Z_TAGS": EMPTY,
    "X_TAGS": REMOVE,
    "U_TAGS": UID,
    "Z_D_TAGS": EMPTY,
    "X_Z_TAGS": EMPTY,
    "X_D_TAGS": REMOVE,
    "X_Z_D_TAGS": REMOVE,
    "X_Z_U_STAR_TAGS": KEEP,  # sequences of references: kept, with the UIDs inside replaced
}
UNLISTED = {"PN": EMPTY, "DA": EMPTY, "DT": EMPTY, "TM": EMPTY, "AS": EMPTY, "AE": EMPTY, "UI": UID}
DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),
    "AS": "000Y",
    "AT": 0,
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "http://removed.invalid",
}
DICOM_ROOT = "1.2.840.10008."  # UIDs that the standard itself defines
PIXELS_WITH_TEXT = (  # classes whose pixels are pictures of anything
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, also multi-frame
    "1.2.840.10008.5.1.4.1.1.77.1",  # visible light: photographic, video
)
RLE, PLAIN_ITEMS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.98"  # encapsulated, without markers
OFFSETS = (0x7FE00001, 0x7FE00002)  # Extended Offset Table and its lengths: nobody needs them
FIRST_GROUP = 0x0008  # lower ones are for commands, files and directories
CHARACTER_SET = 0x00080005
METHOD = "PS3.15 Basic Application Level Confidentiality Profile, EdgeCXR"  # LO: at most 64 characters


class Deidentifier:
    """Makes copies that belong together: UIDs and patients are replaced in the same way in all of them.

    What replaces a UID depends on a secret that is not kept, so that nothing leads back. A patient becomes `P00001`
    and so on, in the order of their first image.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._patients: dict[str, str] = {}
        self._actions = dict(_table())

    def write(self, source: Path, folder: Path, *, allow_burned_in: bool = False) -> Path:
        """A de-identified copy in `folder`, named by its new SOP Instance UID.

        Raises ResultError when the file is no DICOM file that can be read, or its pixels may show a name or hide one.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd values, which they quote
            dataset = self.dataset(source, allow_burned_in=allow_burned_in)
            path = folder / f"{dataset.SOPInstanceUID}.dcm"
            try:
                dataset.save_as(path, enforce_file_format=True)
            except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
                path.unlink(missing_ok=True)
                raise ResultError(f"the copy cannot be written: {type(error).__name__}") from error
        return path

    def dataset(self, source: Path, *, allow_burned_in: bool = False) -> FileDataset:
        """The de-identified data set. Raises ResultError as `write` does."""
        dataset = _read(source)
        if not allow_burned_in:
            _check_pixels(dataset)
        patient = self._pseudonym(dataset)
        self._clean(dataset)
        _clean_pixels(dataset)
        dataset.PatientName = dataset.PatientID = patient
        dataset.PatientIdentityRemoved = "YES"
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        dataset.DeidentificationMethod = METHOD
        dataset.DeidentificationMethodCodeSequence = [_code("113100", "Basic Application Confidentiality Profile")]
        dataset.preamble = bytes(128)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta = meta
        return dataset

    def replaced(self, uid: str) -> str:
        """What stands for a UID: itself where DICOM defines it, else one made of its keyed hash (PS3.5 B.2)."""
        if not uid or uid.startswith(DICOM_ROOT):
            return uid
        digest = hashlib.blake2b(uid.encode(), key=self._secret, digest_size=16).digest()
        return f"2.25.{int.from_bytes(digest, 'big')}"

    def _pseudonym(self, dataset: Dataset) -> str:
        key = str(dataset.get("PatientID") or "").strip() or str(dataset.get("PatientName") or "").strip()
        return self._patients.setdefault(key, f"P{len(self._patients) + 1:05d}") if key else ""

    def _clean(self, dataset: Dataset, forced: str | None = None) -> None:
        """Apply the table to every attribute and below; `forced` replaces its word inside a dummied sequence."""
        for tag in list(dataset.keys()):
            vr = _vr(dataset, tag)
            action = self._action(int(tag), vr)
            if forced and action == KEEP and tag != CHARACTER_SET:
                action = forced
            try:
                self._apply(dataset, tag, vr, action)
            except Exception:  # a value that cannot even be parsed is not kept
                del dataset[tag]

    def _action(self, tag: int, vr: str) -> str:
        group = tag >> 16
        if group % 2 or group < FIRST_GROUP or group & 0xFF00 in (0x5000, 0x6000) or not dictionary_has_tag(tag):
            return REMOVE
        return self._actions.get(tag) or UNLISTED.get(vr, KEEP)

    def _apply(self, dataset: Dataset, tag: Any, vr: str, action: str) -> None:
        if action == REMOVE:
            del dataset[tag]
        elif action == EMPTY:
            dataset[tag] = DataElement(tag, vr, Sequence() if vr == "SQ" else None)
        elif vr == "SQ":
            for item in dataset[tag].value:
                self._clean(item, DUMMY if action == DUMMY else None)
        elif action == UID or (action == DUMMY and vr == "UI"):
            value = dataset[tag].value
            many = [value] if isinstance(value, str) else list(value or [])
            dataset[tag] = DataElement(tag, "UI", [self.replaced(str(uid)) for uid in many])
        elif action == DUMMY:
            dataset[tag] = DataElement(tag, vr, DUMMIES[vr])


def _table() -> Iterator[tuple[int, str]]:
    """Tag and action of table E.1-1; repeating groups are removed as a whole, so they are left out."""
    groups = dicom_anonymization_database_selector(TABLE)
    for name, action in ACTIONS.items():
        yield from (((tag[0] << 16) + tag[1], action) for tag in groups[name] if len(tag) == 2)


def _vr(dataset: Dataset, tag: Any) -> str:
    """The VR of PS3.6; as stored, where that leaves a choice or has none."""
    stored = str(dataset.get_item(tag).VR or "")
    listed = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
    if listed and " " not in listed:
        return listed
    return stored if stored and stored != "UN" else listed[:2] or "UN"


def _read(source: Path) -> FileDataset:
    """The data set, after the bounded parser has found it sound. Raises ResultError."""
    try:
        with source.open("rb") as handle:
            data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        open_dataset(data, DEFAULT)
        dataset = pydicom.dcmread(source)
    except (Refusal, InvalidDicomError, OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        told = error.detail if isinstance(error, Refusal) else type(error).__name__
        raise ResultError(f"only a sound DICOM file can be de-identified: {told}") from error
    lacking = [name for name in ("SOPClassUID", "SOPInstanceUID") if not dataset.get(name)]
    if lacking or "TransferSyntaxUID" not in dataset.file_meta:
        raise ResultError(f"the header lacks {', '.join(lacking) or 'TransferSyntaxUID'}; it cannot be de-identified")
    return dataset


def _check_pixels(dataset: Dataset) -> None:
    """Raises ResultError when the pixels may show what the header no longer says (PS3.15 E.3.1 is not applied)."""
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() not in ("", "NO"):
        raise ResultError("BurnedInAnnotation is YES: the picture itself may show the patient's name")
    sop_class = str(dataset.SOPClassUID)
    if any(sop_class == root or sop_class.startswith(f"{root}.") for root in PIXELS_WITH_TEXT):
        raise ResultError(f"{dataset.SOPClassUID.name}: such pictures often show the patient's name in their pixels")


def _clean_pixels(dataset: FileDataset) -> None:
    """Raises ResultError where pixels cannot be searched: they may say what the header no longer does."""
    for tag in OFFSETS:
        dataset.pop(tag, None)
    if not dataset.get("PixelData"):
        return
    try:
        dataset["PixelData"].value = _cleaned(dataset, dataset.file_meta.TransferSyntaxUID, dataset.PixelData)
    except ValueError as error:
        raise ResultError(f"the pixels cannot be searched for text: {error}") from error
    except (AttributeError, TypeError) as error:
        raise ResultError("the header does not say how large the picture is; it cannot be de-identified") from error


def _cleaned(dataset: Dataset, syntax: Any, value: bytes) -> bytes:
    """Pixel Data of a transfer syntax in which nothing is left but the picture. Raises ValueError, AttributeError."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not syntax.is_encapsulated:
        size = get_expected_length(dataset)
        return value[: size + size % 2]  # the last of an odd number of bytes shares its word with one of padding
    if syntax == RLE:
        return blanked_pixels(value, frames, partial(blanked_runs, size=int(dataset.Rows) * int(dataset.Columns)))
    if syntax == PLAIN_ITEMS:
        return blanked_pixels(value, frames, partial(cut, size=get_expected_length(dataset) // frames))
    return blanked_pixels(value, frames)


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = "DCM"
    code.CodeMeaning = meaning
    return code

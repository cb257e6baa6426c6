"""What a result takes from the header of its image: the patient and the study, byte for byte where they are legal.

A value that breaks its VR (PS3.5 6.2) would make the result invalid and is left empty, which is said in `notes`; text
is never decoded and encoded again, so a name keeps its bytes whatever its character set.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from edgecxr.errors import Refusal, ResultError
from edgecxr.read import DEFAULT
from edgecxr.read.dicom import is_dicom, open_dataset
from edgecxr.read.guard import load
from edgecxr.read.header import Header

__all__ = ["Source", "keep_bytes", "read_source"]

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
REQUIRED = (  # type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): empty where unknown
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
OPTIONAL = (  # type 3 of these modules, and of Patient Study (C.7.2.2)
    "IssuerOfPatientID",
    "PatientBirthTime",
    "OtherPatientIDs",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "StudyDescription",
    "NameOfPhysiciansReadingStudy",
    "AdmittingDiagnosesDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "Occupation",
    "AdditionalPatientHistory",
)
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "InstitutionName")
SEVERAL = frozenset(
    ["OtherPatientIDs", "OtherPatientNames", "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription"]
)
LENGTHS = {"SH": 16, "LO": 64, "PN": 3 * 64 + 2, "LT": 10240}  # characters
LOSSY_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2.4.{number}" for number in ("50", "51", "81", "91", "93", "203")
)  # PS3.6 A; 91, 93 and 203 may be lossless, and then say so in Lossy Image Compression


@dataclass(frozen=True)
class Source:
    """The image that a result is about."""

    study: str
    series: str
    sop_class: str
    instance: str
    charset: tuple[str, ...]  # as declared; () where nothing that PS3.3 C.12.1.1.2 defines is
    values: dict[str, bytes]  # REQUIRED all, OPTIONAL where legal; b"" where empty
    equipment: dict[str, str]  # what acquired it: the values of EQUIPMENT that are plain ASCII
    timezone: str  # as +0545; "" where it says none
    orientation: tuple[str, ...]  # of rows and columns, two values or none
    body_part: str
    laterality: str  # of the series, "L" or "R"; else ""
    burned_in: str  # "YES", "NO" or ""
    lossy: bool
    number: int  # its number in the series, 1 where it has none
    notes: tuple[str, ...]  # what was left empty, without the values

    @property
    def is_image(self) -> bool:
        """Whether its class is an image's by PS3.4 B.5, and in use."""
        sop_class = UID(self.sop_class)
        return "Image Storage" in sop_class.name and not sop_class.is_retired

    def put(self, keyword: str, dataset: Dataset) -> None:
        """The value as stored, into `dataset`."""
        tag = Tag(keyword)
        raw = self.values[keyword]
        raw += b" " * (len(raw) % 2)
        dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True)


def keep_bytes(dataset: Dataset) -> None:
    """Have pydicom write the values of `Source.put` as they are, instead of decoding and encoding them."""
    current = dataset.get("SpecificCharacterSet") or "ISO_IR 6"
    dataset.set_original_encoding(False, True, convert_encodings(current))


def read_source(path: Path) -> Source:
    """Read the header of an image, also of a damaged one. Raises ResultError: not DICOM, or without its UIDs."""
    try:
        data = load(path, DEFAULT)
        if not is_dicom(data):
            raise ResultError("the image is not a DICOM file: there is no patient and no study to put a result into")
        header, syntax, _ = open_dataset(data, DEFAULT, broken=True)
    except Refusal as error:
        raise ResultError(f"the image has no header that a result could follow: {error.detail}") from error
    return _source(header, syntax)


def _source(header: Header, syntax: str) -> Source:
    notes: list[str] = []
    study, series, sop_class, instance = (_uid(header, keyword) for keyword in UIDS)
    charset = _charset(header, notes)
    values = {keyword: _value(header, keyword, charset, notes) or b"" for keyword in REQUIRED}
    for keyword in OPTIONAL:
        if (value := _value(header, keyword, charset, notes)) is not None:
            values[keyword] = value
    orientation = _words(header, "PatientOrientation", r"[AFHLPR]{1,3}")
    declared_lossy = _word(header, "LossyImageCompression", "0[01]")
    return Source(
        study=study,
        series=series,
        sop_class=sop_class,
        instance=instance,
        charset=charset,
        values=values,
        equipment={keyword: text for keyword in EQUIPMENT if (text := _word(header, keyword, r"[ -\[\]-~]{1,64}"))},
        timezone=_word(header, "TimezoneOffsetFromUTC", r"(?!-0000)[+-](0\d|1[0-4])[0-5]\d"),
        orientation=orientation if len(orientation) == 2 else (),
        body_part=_word(header, "BodyPartExamined", r"[A-Z0-9_ ]{1,16}"),
        laterality=_word(header, "Laterality", "[LR]"),
        burned_in=_word(header, "BurnedInAnnotation", "YES|NO"),
        lossy=declared_lossy == "01" or (not declared_lossy and syntax in LOSSY_SYNTAXES),
        number=int(_word(header, "InstanceNumber", r"[1-9]\d{0,8}") or 1),
        notes=tuple(notes),
    )


def _uid(header: Header, keyword: str) -> str:
    """A UID that an association can carry. Leading zeros (PS3.5 9.1 forbids them) are common, and kept."""
    text = _stripped(header, keyword).decode("latin-1")
    if not text:
        raise ResultError(f"the image has no {keyword}: a result would belong to no study")
    if not re.fullmatch(r"[0-9.]{1,64}", text):
        raise ResultError(f"the image's {keyword} is no UID (digits and dots, 64 at most): a result cannot refer to it")
    return text


def _charset(header: Header, notes: list[str]) -> tuple[str, ...]:
    terms = tuple(part.strip() for part in _stripped(header, "SpecificCharacterSet").decode("latin-1").split("\\"))
    if not any(terms):
        return ()
    if all(term in python_encoding for term in terms):
        return terms
    notes.append("SpecificCharacterSet of the image is not one of DICOM's; the text has none declared")
    return ()


def _value(header: Header, keyword: str, charset: tuple[str, ...], notes: list[str]) -> bytes | None:
    """The bytes of a legal value, b"" for an empty one, None where it is absent or illegal (which is noted)."""
    if header.element(keyword) is None:
        return None
    raw = _stripped(header, keyword)
    if not raw or _legal(keyword, raw, charset):
        return raw
    notes.append(f"{keyword} of the image is not legal in DICOM and was left out")
    return None


def _legal(keyword: str, raw: bytes, charset: tuple[str, ...]) -> bool:
    vr = dictionary_VR(keyword)
    rule = RULES.get(keyword) or RULES.get(vr)
    if rule is not None:
        return rule(raw.decode("latin-1"))
    text = _decoded(raw, charset)
    values = [text] if vr == "LT" else text.split("\\")
    if len(values) > 1 and keyword not in SEVERAL:
        return False
    control = {chr(code) for code in range(32)} - (set("\t\n\f\r") if vr == "LT" else set())
    return all(len(value) <= LENGTHS[vr] and not control & set(value) and _is_name(vr, value) for value in values)


def _decoded(raw: bytes, charset: tuple[str, ...]) -> str:
    """Text for counting characters. A byte that the character set does not have counts as one."""
    encodings = [python_encoding[term] for term in charset] or ["latin-1"]
    if len(encodings) == 1:
        return raw.decode(encodings[0], "replace")
    try:
        return str(decode_bytes(raw, encodings, set(b"\\^=")))
    except (UnicodeError, LookupError, UserWarning):
        return raw.replace(b"\x1b", b"?").decode("latin-1")


def _is_name(vr: str, value: str) -> bool:
    """Whether a PN has at most three groups of 64 characters and five components (PS3.5 6.2.1)."""
    groups = value.split("=")
    return vr != "PN" or (len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups))


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return len(text) == 8


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


RULES: dict[str, Callable[[str], bool]] = {
    "DA": _is_date,
    "TM": _matches(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "AS": _matches(r"\d{3}[DWMY]"),
    "DS": _matches(r"(?=.{1,16}$)[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
    "PatientSex": _matches("[MFO]"),
}


def _stripped(header: Header, keyword: str) -> bytes:
    """The bytes without their padding: no text begins or ends with one that means anything but a leading blank."""
    return bytes(header.value(keyword)[: 1 << 16]).rstrip(b" \0")


def _word(header: Header, keyword: str, pattern: str) -> str:
    text = _stripped(header, keyword).decode("latin-1").strip()
    return text if re.fullmatch(pattern, text) else ""


def _words(header: Header, keyword: str, pattern: str) -> tuple[str, ...]:
    texts = _stripped(header, keyword).decode("latin-1").split("\\")
    return tuple(text.strip() for text in texts) if all(re.fullmatch(pattern, text.strip()) for text in texts) else ()

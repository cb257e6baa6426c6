"""Whose film it is: the few elements of a DICOM header that the worklist shows, decoded leniently, for display only.

Only the groups before the pixels are walked, so a film that is cut short in its pixels still has a name on the page.
"""

import mmap
import warnings
from pathlib import Path

from pydicom import charset
from pydicom.datadict import tag_for_keyword

from edgecxr.errors import Refusal
from edgecxr.read.dicom import is_dicom
from edgecxr.read.elements import Element, Encoding, walk_group
from edgecxr.read.guard import DEFAULT, Limits, inflate

__all__ = ["COLUMNS", "read_identity"]

COLUMNS = {  # of the spool -> keyword of PS3.6
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "study_instance": "StudyInstanceUID",
    "series_instance": "SeriesInstanceUID",
    "accession": "AccessionNumber",
    "study_date": "StudyDate",
}
TRANSFER_SYNTAX, CHARACTER_SET = 0x00020010, 0x00080005
LAST_GROUP = 0x0020  # study, series and image are identified here; equipment, presentation and pixels come later
META = Encoding(implicit=False, little=True)  # PS3.10 7.1
IMPLICIT, DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
LONGEST = 1024  # bytes of a value; PS3.5 6.2 allows a name 3 x 64 characters
PERSON_DELIMITERS = {ord("^"), ord("=")}  # where a code extension ends, PS3.5 6.1.2.5.3


def read_identity(path: Path, limits: Limits = DEFAULT) -> dict[str, str]:
    """The columns of `COLUMNS` for one file; "" where the header does not say, and all "" for what is not DICOM.

    Never raises for a bad file: what stands before the damage is returned.
    """
    try:
        with open(path, "rb") as handle:
            data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        elements, data = _elements(data, limits)
    except (OSError, ValueError, Refusal):  # ValueError: an empty file cannot be mapped
        elements, data = {}, memoryview(b"")
    character_set = _raw(data, elements.get(CHARACTER_SET)).decode("latin-1").split("\\")
    return {column: _shown(data, elements, keyword, character_set) for column, keyword in COLUMNS.items()}


def _elements(data: memoryview, limits: Limits) -> tuple[dict[int, Element], memoryview]:
    """The elements of groups 0008 to 0020, as far as they can be read, and the bytes they lie in."""
    if not is_dicom(data):
        return {}, data
    meta, position = walk_group(data, 132 if bytes(data[128:132]) == b"DICM" else 0, META, limits)
    syntax = _raw(data, meta.get(TRANSFER_SYNTAX)).decode("latin-1").strip(" \0")
    if syntax == DEFLATED:
        data, position = inflate(data[position:], limits), 0
    encoding = Encoding(implicit=syntax == IMPLICIT, little=syntax != BIG_ENDIAN)
    found: dict[int, Element] = {}
    try:
        while _group(data, position, encoding) <= LAST_GROUP:
            group, position = walk_group(data, position, encoding, limits)
            found |= group
    except Refusal:
        pass  # what was found before the damage stands; the reason is told by the screening itself
    return found, data


def _group(data: memoryview, position: int, encoding: Encoding) -> int:
    """The group number at `position`; past every group at the end of the data."""
    if position + 8 > len(data):
        return 0xFFFF
    return int.from_bytes(data[position : position + 2], "little" if encoding.little else "big")


def _raw(data: memoryview, element: Element | None) -> bytes:
    if element is None or element.undefined:
        return b""
    return bytes(data[element.start : min(element.stop, element.start + LONGEST)])


def _shown(data: memoryview, elements: dict[int, Element], keyword: str, character_set: list[str]) -> str:
    tag = tag_for_keyword(keyword)
    raw = _raw(data, elements.get(tag if tag is not None else -1))
    text = raw.decode("ascii") if raw.isascii() and b"\x1b" not in raw else _decoded(raw, character_set)
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _decoded(raw: bytes, character_set: list[str]) -> str:
    """By the header's character set; by UTF-8 or Latin-1 where it names none, or one that does not fit."""
    if any(term.strip() for term in character_set):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an unknown character set: pydicom falls back, which is what we want
                encodings = charset.convert_encodings([term.strip() for term in character_set])
                return str(charset.decode_bytes(raw, encodings, PERSON_DELIMITERS))
        except (LookupError, UnicodeError):
            pass
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")

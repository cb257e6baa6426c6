"""A DICOM file (PS3.10) as a `Radiograph`, or the reason why not."""

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.radiograph import Radiograph
from edgecxr.read import admission, luts, pixels
from edgecxr.read.elements import Encoding, walk_group
from edgecxr.read.guard import Limits, inflate, shown
from edgecxr.read.header import Header
from edgecxr.read.layout import read_layout, value_range
from edgecxr.spec import PreprocessSpec

__all__ = ["is_dicom", "open_dataset", "read_dicom"]

IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
META = Encoding(implicit=False, little=True)  # PS3.10 7.1
IDENTITY = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "Manufacturer",
    "ManufacturerModelName",
)


def is_dicom(data: memoryview) -> bool:
    """Whether the content is a PS3.10 file, with its preamble or beginning at the meta information."""
    return bytes(data[128:132]) == b"DICM" or bytes(data[:4]) == b"\x02\x00\x00\x00"


def read_dicom(data: memoryview, source: str, limits: Limits, reduced_for: PreprocessSpec | None = None) -> Radiograph:
    """The one radiograph in a DICOM file. `data` may be changed: pixels of an uncompressed film lie in it.

    `reduced_for` is that of `read_radiograph`. A film with padding is read in full: a coarser image mixes padding with
    film, and what is neither would be taken for film.

    Raises Refusal with any reason but NO_CONTRAST.
    """
    header, syntax, notes = open_dataset(data, limits)
    admission.check_object(header, notes)
    admission.check_subject(header, notes)
    layout = read_layout(header, limits)
    slope, intercept, modality_lut = luts.modality(header, layout, notes)
    floor = 0.0 if modality_lut else intercept + min(slope * end for end in value_range(layout.stored, layout.signed))
    window, voi_lut = luts.voi(header, floor, notes)
    inverted = luts.inversion(header, notes)
    padding = luts.padding(header, layout, notes)
    frame = pixels.decode(header, syntax, layout, limits, reduced_for if padding is None else None)
    film = Radiograph(
        pixels=frame.values,
        bits_stored=frame.stored,
        slope=slope,
        intercept=intercept,
        modality_lut=modality_lut,
        window=window,
        voi_lut=voi_lut,
        inverted=inverted,
        padding=padding,
        source=source,
        identity={name: value for name in IDENTITY if (value := "\\".join(header.texts(name)))},
        notes=(*notes, *frame.notes),
    )
    luts.check_shown(film)
    return film


def open_dataset(data: memoryview, limits: Limits, *, broken: bool = False) -> tuple[Header, str, list[str]]:
    """The header of a DICOM file, its transfer syntax and what was odd about the file.

    `broken` is for telling whose a damaged file is: the header ends where the first fault begins.

    Raises Refusal: UNREADABLE (no meta information, no transfer syntax, broken structure), TRUNCATED, TOO_LARGE.
    """
    notes: list[str] = []
    start = 132 if bytes(data[128:132]) == b"DICM" else 0
    if not start:
        notes.append("the file has no preamble")
    meta, position = walk_group(data, start, META, limits)
    element = meta.get(0x00020010)
    syntax = "" if element is None else bytes(data[element.start : element.stop]).decode("latin-1").strip(" \0")
    if not syntax:
        raise Refusal(RefusalReason.UNREADABLE, "the file names no transfer syntax (0002,0010), which PS3.10 requires")
    if not set(syntax) <= set("0123456789.") or len(syntax) > 64:
        raise Refusal(RefusalReason.UNREADABLE, f"the transfer syntax is no UID: {shown(syntax)}")
    if syntax == DEFLATED:
        data, position = inflate(data[position:], limits), 0
    encoding = Encoding(implicit=syntax == IMPLICIT, little=syntax != BIG_ENDIAN)
    return Header(data, (position, len(data)), encoding, limits, broken=broken), syntax, notes

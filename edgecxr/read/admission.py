"""Which DICOM objects are screened: one frontal radiograph of a human chest, as far as the header tells.

Only what the header says is judged here, never a name or a free text. What it does not say is left to the network's
own check (`NOT_FRONTAL_CHEST` by embedding).
"""

import re
import unicodedata

from pydicom.config import IGNORE
from pydicom.uid import UID

from edgecxr.errors import Refusal, RefusalReason
from edgecxr.read.guard import shown
from edgecxr.read.header import Header

__all__ = ["check_object", "check_subject"]

SECONDARY_CAPTURE = frozenset(
    {"1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3"}
)  # plain, and multi-frame grayscale byte and word, which may hold one frame
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
RADIOGRAPHY = frozenset({"1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", FOR_PROCESSING})
MODALITIES = frozenset({"CR", "DX", "RG"})  # PS3.3 C.7.3.1.1.1
SCANNED = "OT"  # a scanned film is often "other"; taken where the header also says that it is a chest

CHEST = frozenset({"CHEST", "THORAX", "TORAX", "TORACE", "LUNG", "LUNGS"})
FRONTAL = frozenset({"PA", "AP", "FRONTAL", "POSTEROANTERIOR", "ANTEROPOSTERIOR"})
LATERAL = frozenset(
    {"LATERAL", "LAT", "LL", "RL", "OBLIQUE", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "DECUBITUS", "LLD", "RLD"}
)
SIDEWAYS = frozenset({"LATERAL", "LAT", "OBLIQUE", "DECUBITUS"})  # what device programs are called in words
INCIDENTAL = frozenset(
    {"1", "2", "ONE", "TWO", "VIEW", "VIEWS", "SINGLE", "ROUTINE", "PORTABLE", "BEDSIDE", "ERECT", "UPRIGHT", "SUPINE"}
    | {"STANDING", "SITTING", "ADULT", "CHILD", "PEDIATRIC", "CR", "DX", "XR", "X", "RAY", "XRAY", "AND", "STRUCTURE"}
)
ANIMAL = frozenset({"CANINE", "FELINE", "EQUINE", "BOVINE", "AVIAN", "VETERINARY"})
HUMAN = frozenset({"HUMAN", "HOMO", "SAPIENS"})
HUMAN_CODES = frozenset({"337915000", "L-85B00"})  # Homo sapiens in SNOMED CT and SNOMED-RT, PS3.16 CID 7454


def check_object(header: Header, notes: list[str]) -> None:
    """Raise Refusal (NOT_A_RADIOGRAPH, NO_PIXELS, UNSUPPORTED_PIXELS) unless this is a radiograph with pixels."""
    sop_class, kind = header.text("SOPClassUID"), header.text("Modality")
    radiography, capture = sop_class in RADIOGRAPHY, sop_class in SECONDARY_CAPTURE
    if sop_class and not (radiography or capture):
        name = UID(sop_class, validation_mode=IGNORE).name
        raise Refusal(RefusalReason.NOT_A_RADIOGRAPH, f"the object is {shown(name)}")
    if kind and kind not in MODALITIES and not (capture and kind == SCANNED):
        raise Refusal(RefusalReason.NOT_A_RADIOGRAPH, f"the modality is {shown(kind)}; CR, DX or RG is read")
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
        if header.element(keyword) is not None:
            raise Refusal(RefusalReason.UNSUPPORTED_PIXELS, f"{keyword}: integers of 8 to 16 bits are read")
    if header.element("PixelData") is None:
        raise Refusal(RefusalReason.NO_PIXELS, "the DICOM object has no pixel data")
    if not sop_class or not kind:
        raise Refusal(
            RefusalReason.NOT_A_RADIOGRAPH,
            f"nothing says that this is a radiograph: SOP class {shown(sop_class)}, modality {shown(kind)}",
        )
    if sop_class == FOR_PROCESSING:
        notes.append("detector values for processing: the film was not made ready for display")
    if header.text("BurnedInAnnotation") == "YES":
        notes.append("text is burnt into the film")


def check_subject(header: Header, notes: list[str]) -> None:
    """Raise Refusal when the header names another subject (NOT_A_CHEST) or view (NOT_FRONTAL_CHEST).

    A modality of OT without a body part is NOT_A_RADIOGRAPH.
    """
    _check_species(header)
    named = _check_part(header, notes)
    if header.text("Modality") == SCANNED and not named:
        raise Refusal(
            RefusalReason.NOT_A_RADIOGRAPH, "the modality is OT and no body part says that this is a chest film"
        )
    _check_view(header, notes)


def words(text: str) -> set[str]:
    """Upper-case words and numbers of `text`, without accents."""
    plain = unicodedata.normalize("NFKD", text[:256]).encode("ascii", "ignore").decode()
    return set(re.findall(r"[A-Z]+|\d+", plain.upper()))


def _check_species(header: Header) -> None:
    species = header.text("PatientSpeciesDescription")
    if species and not words(species) & HUMAN:
        raise Refusal(RefusalReason.NOT_A_CHEST, f"the patient's species is {shown(species)}")
    for item in header.items("PatientSpeciesCodeSequence")[:1]:
        if item.text("CodeValue") not in HUMAN_CODES and not words(item.text("CodeMeaning")) & HUMAN:
            raise Refusal(RefusalReason.NOT_A_CHEST, f"the patient's species is {shown(item.text('CodeMeaning'))}")
    processed = header.text("AcquisitionDeviceProcessingDescription")
    if words(processed) & ANIMAL:
        raise Refusal(RefusalReason.NOT_A_CHEST, f"the device processed the image as {shown(processed)}")
    breed = header.text("PatientBreedDescription")
    if breed or header.items("PatientBreedCodeSequence"):
        raise Refusal(RefusalReason.NOT_A_CHEST, f"the patient has a breed {shown(breed)}, so is an animal")


def _check_part(header: Header, notes: list[str]) -> bool:
    """Whether the header names a chest; False when it names nothing."""
    part = header.text("BodyPartExamined")
    regions = [item.text("CodeMeaning") for item in header.items("AnatomicRegionSequence")]
    named = [text for text in (part, *regions) if text]
    for text in named:
        found = words(text)
        if not found & CHEST or not found <= CHEST | FRONTAL | LATERAL | INCIDENTAL:
            raise Refusal(RefusalReason.NOT_A_CHEST, f"the body part is {shown(text)}; CHEST, THORAX or LUNG is read")
        if found & LATERAL and not found & FRONTAL:
            raise Refusal(RefusalReason.NOT_FRONTAL_CHEST, f"the header says {shown(text)}: not a frontal view")
    if not named:
        notes.append("the header names no body part")
    return bool(named)


def _of_several(header: Header) -> list[str]:
    """What names a frontal and another view at once: an examination of several films, or a device's program."""
    parts = [item.text("CodeMeaning") for item in header.items("AnatomicRegionSequence")]
    texts = [header.text("BodyPartExamined"), *parts, header.text("AcquisitionDeviceProcessingDescription")]
    return [text for text in texts if words(text) & FRONTAL and words(text) & LATERAL]


def _check_view(header: Header, notes: list[str]) -> None:
    views = [header.text("ViewPosition"), *(item.text("CodeMeaning") for item in header.items("ViewCodeSequence"))]
    processed = header.text("AcquisitionDeviceProcessingDescription")
    if not any(views) and words(processed) & SIDEWAYS and not words(processed) & FRONTAL:
        views.append(processed)
    for text in filter(None, views):
        found = words(text)
        if found & LATERAL:
            raise Refusal(
                RefusalReason.NOT_FRONTAL_CHEST,
                f"the header says view {shown(text)}: lateral, oblique or decubitus"
                + (", and frontal too" if found & FRONTAL else ""),
            )
        if not found & FRONTAL:
            notes.append(f"the view {shown(text)} is unknown here")
    if not any(views):
        notes += [f"the header says {shown(text)} and not which view this film is" for text in _of_several(header)]
    orientation = [value.upper() for value in header.texts("PatientOrientation")]
    if len(orientation) == 2 and orientation != ["L", "F"]:
        notes.append(f"patient orientation {shown('/'.join(orientation))}; a frontal film is L/F. It is not turned")

"""The capture of one image: a Secondary Capture with film, heatmap and result burnt in (PS3.3 A.8.1)."""

from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, TM

from edgecxr.runtimes.node.results.drawing import sheet
from edgecxr.runtimes.node.results.header import WARNING, fill, frame
from edgecxr.runtimes.node.results.making import Making

__all__ = ["capture"]

# Terms of PS3.16 annex L for structures that are not paired; what else a header says has no term, or has two sides.
UNPAIRED = ("ABDOMEN", "CHEST", "CSPINE", "HEAD", "HEART", "LSPINE", "NECK", "PELVIS", "SKULL", "SPINE", "TSPINE")


def capture(making: Making) -> Dataset:
    """The capture as a data set with its file meta information. Without PixelSpacing: nothing is to be measured.

    Raises DrawingError while its picture may yet be drawn.
    """
    pixels, missing = sheet(making)
    dataset: Dataset = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced below
        study_instance_uid=making.source.study,
        **frame(making, "capture"),
    )
    dataset["PixelData"].VR = "OB"
    fill(dataset, making)
    _describe(dataset, making, missing)
    return dataset


def _describe(dataset: Dataset, making: Making, missing: str) -> None:
    source = making.source
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.PatientOrientation = list(source.orientation) or None
    if source.body_part in UNPAIRED:
        dataset.BodyPartExamined = source.body_part
    else:
        dataset.Laterality = source.laterality or None  # type 2C: where the structure may be paired (PS3.3 C.7.3.1)
    dataset.DateOfSecondaryCapture = DA(making.moment.date())
    dataset.TimeOfSecondaryCapture = TM(making.moment.time().replace(microsecond=0, tzinfo=None))
    if source.burned_in:  # does it identify the patient? Our words do not; about the film, what the film says
        dataset.BurnedInAnnotation = source.burned_in
    dataset.LossyImageCompression = "01" if source.lossy else "00"
    dataset.DerivationDescription = f"{WARNING}. {_result(making, missing)}"[:1024]
    dataset.ImageComments = "\r\n".join((WARNING, _result(making, missing), *making.notes))[:10240]
    if source.is_image:
        dataset.SourceImageSequence = [_reference(making)]


def _result(making: Making, missing: str) -> str:
    if making.refused:
        return f"REFUSED, not screened: {making.reason}"
    lines = (
        f"{finding['name']} {finding['decision']} ({finding['probability']:.6f}, threshold {finding['threshold']:.6f})"
        for finding in making.record["findings"]
    )
    shown = f"{missing}. Result of" if missing else "Heatmap by"
    return f"{shown} {making.model}: {'; '.join(lines)}"


def _reference(making: Making) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = making.source.sop_class
    item.ReferencedSOPInstanceUID = making.source.instance
    purpose, code = Dataset(), codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item

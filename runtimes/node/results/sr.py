"""The structured report of one image: Comprehensive SR, TID 1500 (PS3.16), one measurement group for each finding.

A refused image gets a report too: its one group says that nothing was measured and why, and has no finding in it.
"""

from collections.abc import Mapping
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    CompositeContentItem,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from edgecxr.runtimes.node.results import codes as concepts
from edgecxr.runtimes.node.results.header import WARNING, ascii_text, fill, frame
from edgecxr.runtimes.node.results.making import Making

__all__ = ["report"]

SOURCE = CodedConcept("121112", "DCM", "Source of Measurement")
KNOWN_CLASS = "1.2.840.10008.5.1.4.1.1.1"  # CR; highdicom looks the modules of the source's class up


def report(making: Making) -> Dataset:
    """The report as a data set with its file meta information."""
    content = MeasurementReport(
        observation_context=_observer(making),
        procedure_reported=concepts.ANY_PROCEDURE if making.refused else concepts.PROCEDURE,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(_english()),
        imaging_measurements=_groups(making),
    )
    content[0].ContentSequence.extend(_comment(text) for text in _comments(making))
    dataset: Dataset = ComprehensiveSR(
        evidence=[_evidence(making)],
        content=content[0],
        is_complete=True,
        is_final=False,
        **frame(making, "sr"),
    )
    dataset.CurrentRequestedProcedureEvidenceSequence = [_reference(making)]
    dataset.ContentTemplateSequence[0].TemplateIdentifier = "1500"
    fill(dataset, making)
    return dataset


def _groups(making: Making) -> list[MeasurementsAndQualitativeEvaluations]:
    if making.refused:
        return [_refusal(making)]
    return [_group(making, finding) for finding in making.record["findings"]]


def _group(making: Making, finding: Mapping[str, Any]) -> MeasurementsAndQualitativeEvaluations:
    """Score, threshold and decision on one finding (TID 1501)."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(making, finding["name"]),
        finding_type=concepts.finding_code(finding["name"]),
        algorithm_id=_algorithm(making),
        finding_sites=[FindingSite(concepts.CHEST)],
        measurements=[
            Measurement(concepts.PROBABILITY, _number(finding["probability"]), codes.UCUM.NoUnits),
            Measurement(concepts.THRESHOLD, _number(finding["threshold"]), codes.UCUM.NoUnits),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(concepts.DECISION, concepts.DECISIONS[finding["decision"]]),
        ],
        source_images=_images(making),
    )


def _refusal(making: Making) -> MeasurementsAndQualitativeEvaluations:
    """That the image was not screened, and why: neither a finding nor a number."""
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(making, "refused"),
        algorithm_id=_algorithm(making),
        qualitative_evaluations=[
            QualitativeEvaluation(concepts.OUTCOME, concepts.REFUSED),
            QualitativeEvaluation(concepts.REASON, concepts.reason_code(making.record["reason"])),
        ],
        source_images=_images(making),
    )
    if not making.source.is_image:
        group[0].ContentSequence.append(_composite(making))
    return group


def _algorithm(making: Making) -> AlgorithmIdentification:
    """TID 4019: which model, at which operating point, on what."""
    record = making.record
    return AlgorithmIdentification(
        name=ascii_text(record["model"]["name"]),
        version=ascii_text(record["model"]["version"]),
        parameters=[
            f"operating point: {ascii_text(record['operating_point'])}",
            f"bundle SHA-256: {record['bundle']}",
            f"engine: {record['engine']}",
            f"precision: {record['precision']}",
            f"preprocessing kernel: {record['kernel']}",
        ],
    )


def _observer(making: Making) -> ObservationContext:
    attributes = DeviceObserverIdentifyingAttributes(
        uid=making.device,
        name="EdgeCXR",
        manufacturer_name="EdgeCXR",
        model_name=f"EdgeCXR node {making.version}",
        serial_number=ascii_text(making.settings.device_serial),
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, attributes))


def _tracking(making: Making, name: str) -> TrackingIdentifier:
    uid = concepts.uid("tracking", making.source.instance, making.instance, name)
    return TrackingIdentifier(uid=uid, identifier=ascii_text(f"{name} {making.source.instance[-24:]}"))


def _images(making: Making) -> list[SourceImageForMeasurementGroup]:
    if not making.source.is_image:
        return []
    return [SourceImageForMeasurementGroup(making.source.sop_class, making.source.instance)]


def _composite(making: Making) -> CompositeContentItem:
    """What was refused, where it is no image of PS3.4 B.5: an IMAGE item must not refer to it."""
    source = making.source
    return CompositeContentItem(SOURCE, source.sop_class, source.instance, RelationshipTypeValues.CONTAINS)


def _comments(making: Making) -> list[str]:
    refused = [f"REFUSED, not screened: {making.reason}"] if making.refused else []
    return [WARNING, *refused, *(f"Note: {note}" for note in making.notes)]


def _comment(text: str) -> TextContentItem:
    return TextContentItem(concepts.COMMENT, text, RelationshipTypeValues.CONTAINS)


def _english() -> CodedConcept:
    return CodedConcept("en", "RFC5646", "English")


def _number(value: float) -> float:
    """A value whose decimal string fits into DS (16 bytes, PS3.5 6.2); the exact one is written beside it."""
    return float(f"{value:.9g}")


def _evidence(making: Making) -> Dataset:
    """The image, as far as highdicom needs it; patient and study are put in afterwards, as they are stored."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = KNOWN_CLASS, making.source.instance
    image.StudyInstanceUID, image.SeriesInstanceUID = making.source.study, making.source.series
    image.PatientID = image.PatientName = image.PatientBirthDate = image.PatientSex = None
    image.AccessionNumber = image.StudyID = image.StudyDate = image.StudyTime = None
    return image


def _reference(making: Making) -> Dataset:
    """The one item of the Current Requested Procedure Evidence Sequence (PS3.3 C.17.2)."""
    image, series, study = Dataset(), Dataset(), Dataset()
    image.ReferencedSOPClassUID = making.source.sop_class
    image.ReferencedSOPInstanceUID = making.source.instance
    series.SeriesInstanceUID, series.ReferencedSOPSequence = making.source.series, [image]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = making.source.study, [series]
    return study

"""Coded concepts and unique identifiers of the result objects.

DICOM and SNOMED CT codes where there is one; what only EdgeCXR means is coded in the private scheme 99EDGECXR, which
every object declares (PS3.3 C.12.1.1.5, Coding Scheme Identification Sequence).
"""

import re
import uuid

from highdicom import UID
from highdicom.sr import CodedConcept

from edgecxr.errors import RefusalReason

__all__ = [
    "ANY_PROCEDURE",
    "CHEST",
    "COMMENT",
    "DECISION",
    "DECISIONS",
    "OUTCOME",
    "PRIVATE_SCHEME",
    "PROBABILITY",
    "PROCEDURE",
    "REASON",
    "REFUSED",
    "THRESHOLD",
    "finding_code",
    "reason_code",
    "uid",
]

PRIVATE_SCHEME = "99EDGECXR"
NAMESPACE = uuid.UUID("4a1fd1c8-9f5c-5d0e-8f0a-7c1f3a0f5b53")

PROBABILITY = CodedConcept("122157", "DCM", "Probability")
THRESHOLD = CodedConcept("122411", "DCM", "Threshold Value")
COMMENT = CodedConcept("121106", "DCM", "Comment")
CHEST = CodedConcept("816094009", "SCT", "Chest")
PROCEDURE = CodedConcept("399208008", "SCT", "Plain X-ray of chest")
ANY_PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")  # CID 100
DECISION = CodedConcept("decision", PRIVATE_SCHEME, "Screening decision")
OUTCOME = CodedConcept("outcome", PRIVATE_SCHEME, "Screening outcome")
REFUSED = CodedConcept("refused", PRIVATE_SCHEME, "Refused: not screened")
REASON = CodedConcept("reason", PRIVATE_SCHEME, "Reason for refusal")
DECISIONS = {
    "positive": CodedConcept("10828004", "SCT", "Positive"),
    "negative": CodedConcept("260385009", "SCT", "Negative"),
}
FINDINGS = {  # by the words of a class name; SNOMED CT, as in PS3.16 or the international edition
    "covid": CodedConcept("840539006", "SCT", "COVID-19"),
    "covid-19": CodedConcept("840539006", "SCT", "COVID-19"),
    "pneumonia": CodedConcept("233604007", "SCT", "Pneumonia"),
    "tuberculosis": CodedConcept("56717001", "SCT", "Tuberculosis"),
    "tb": CodedConcept("56717001", "SCT", "Tuberculosis"),
    "pneumothorax": CodedConcept("36118008", "SCT", "Pneumothorax"),
    "pleural effusion": CodedConcept("60046008", "SCT", "Pleural effusion"),
    "effusion": CodedConcept("60046008", "SCT", "Pleural effusion"),
    "pulmonary edema": CodedConcept("19242006", "SCT", "Pulmonary edema"),
    "edema": CodedConcept("19242006", "SCT", "Pulmonary edema"),
    "atelectasis": CodedConcept("46621007", "SCT", "Atelectasis"),
    "cardiomegaly": CodedConcept("8186001", "SCT", "Cardiomegaly"),
    "emphysema": CodedConcept("87433001", "SCT", "Pulmonary emphysema"),
}


def finding_code(name: str) -> CodedConcept:
    """The concept of a model's class; a class that is not in the table is coded privately, under its own name."""
    words = " ".join(name.lower().replace("_", " ").split())
    if words in FINDINGS:
        return FINDINGS[words]
    plain = words.encode("ascii", "replace").decode()
    value = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(value) > 16 or not value:
        value = uuid.uuid5(NAMESPACE, name).hex[:16]
    return CodedConcept(value, PRIVATE_SCHEME, plain[:64] or value)


def reason_code(reason: str) -> CodedConcept:
    """The concept of one entry of `RefusalReason`."""
    number = list(RefusalReason).index(RefusalReason(reason)) + 1
    return CodedConcept(f"refused-{number:02d}", PRIVATE_SCHEME, reason.replace("_", " "))


def uid(*parts: str) -> UID:
    """A UID that follows from `parts` alone: the same in a retry, after a restart, on another machine (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(parts)).int}")

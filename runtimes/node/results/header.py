"""What every result object has in common: patient, study, series, equipment, and when it was made (PS3.3 C.7, C.12)."""

from typing import Any

from highdicom import ContributingEquipment
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from edgecxr.runtimes.node.pdu import IMPLEMENTATION_UID
from edgecxr.runtimes.node.results.codes import PRIVATE_SCHEME, uid
from edgecxr.runtimes.node.results.making import Making
from edgecxr.runtimes.node.results.text import ascii_text

__all__ = ["WARNING", "ascii_text", "fill", "frame"]

WARNING = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
SERIES = {"sr": (9901, "EdgeCXR result"), "capture": (9902, "EdgeCXR heatmap")}


def frame(making: Making, kind: str) -> dict[str, Any]:
    """The arguments that highdicom's report and capture share."""
    number, description = SERIES[kind]
    settings, record = making.settings, making.record
    return {
        "series_instance_uid": uid(making.source.series, kind, record["bundle"]),
        "series_number": number,
        "series_description": f"{description}: research use only",
        "sop_instance_uid": making.instance,
        "instance_number": making.source.number,
        "manufacturer": "EdgeCXR",
        "manufacturer_model_name": "EdgeCXR node",
        "device_serial_number": ascii_text(settings.device_serial, 64) or "0",
        "software_versions": [making.version, record["bundle"][:64], making.model[:62]],
        "institution_name": ascii_text(settings.institution, 64) or None,
        "content_date": making.moment.strftime("%Y%m%d"),
        "content_time": making.moment.strftime("%H%M%S"),
        "series_date": making.moment.strftime("%Y%m%d"),
        "series_time": making.moment.strftime("%H%M%S"),
    }


def fill(dataset: Dataset, making: Making) -> None:
    """Put in what highdicom leaves out or takes from the clock; patient and study exactly as the image has them."""
    source, moment = making.source, making.moment
    day, clock = DA(moment.date()), TM(moment.time().replace(microsecond=0, tzinfo=None))
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = day, clock
    dataset.TimezoneOffsetFromUTC = making.offset
    dataset.InstanceCreatorUID = making.device
    dataset.DeviceUID = making.device
    if making.settings.station:
        dataset.StationName = ascii_text(making.settings.station, 16)
    dataset.ContributingEquipmentSequence = _equipment(making)
    dataset.CodingSchemeIdentificationSequence = [_scheme()]
    for keyword in source.values:
        source.put(keyword, dataset)
    if source.charset:
        dataset.SpecificCharacterSet = list(source.charset) if len(source.charset) > 1 else source.charset[0]
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    dataset.file_meta.ImplementationVersionName = ascii_text(f"EDGECXR_{making.version}", 16)


def _equipment(making: Making) -> list[Dataset]:
    """Who processed the image, and what acquired it (PS3.3 C.12.1.1.5)."""
    processing = ContributingEquipment(
        manufacturer="EdgeCXR",
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=making.model[:64],
        software_versions=[making.record["bundle"][:64], making.version],
        device_serial_number=ascii_text(making.settings.device_serial, 64) or "0",
        contribution_datetime=making.moment.replace(microsecond=0),
        contribution_description="Screened for findings; research use only",
    )
    if not making.source.equipment.get("Manufacturer"):
        return [processing]
    acquisition = ContributingEquipment(manufacturer="", purpose_of_reference=codes.DCM.AcquisitionEquipment)
    for keyword, text in making.source.equipment.items():
        setattr(acquisition, keyword, text)
    return [processing, acquisition]


def _scheme() -> Dataset:
    scheme = Dataset()
    scheme.CodingSchemeDesignator = PRIVATE_SCHEME
    scheme.CodingSchemeName = "EdgeCXR codes"
    scheme.CodingSchemeResponsibleOrganization = "EdgeCXR"
    return scheme

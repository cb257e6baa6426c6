"""Phantoms: synthetic films for tests, the demo and every bundle's golden set, so that no patient's film is used."""

from edgecxr.phantom.chest import chest
from edgecxr.phantom.folders import FieldFile, write_dataset, write_field_folder
from edgecxr.phantom.misfits import OTHER_KINDS, other
from edgecxr.phantom.objects import MODALITIES, SYNTAXES, turned, write_dicom
from edgecxr.phantom.opacity import FINDINGS

__all__ = [
    "FINDINGS",
    "MODALITIES",
    "OTHER_KINDS",
    "SYNTAXES",
    "FieldFile",
    "chest",
    "other",
    "turned",
    "write_dataset",
    "write_dicom",
    "write_field_folder",
]

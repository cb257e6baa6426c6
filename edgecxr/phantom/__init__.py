"""Phantoms: synthetic films for tests, the demo and the golden set of every bundle, so that no patient's film is used."""

from edgecxr.phantom.chest import chest
from edgecxr.phantom.opacity import FINDINGS

__all__ = ["FINDINGS", "chest"]

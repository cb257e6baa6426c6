"""Many data sets into one folder of films: labels mapped, duplicate films found, folds by person."""

from edgecxr.merging.merge import Sources, merge, read_sources
from edgecxr.merging.report import MergeReport

__all__ = ["MergeReport", "Sources", "merge", "read_sources"]

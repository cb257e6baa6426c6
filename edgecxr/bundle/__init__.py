"""The bundle: one file, ``NAME.cxr``, with everything that screening needs, read only after every digest matches.

A zip (stored) of manifest.json, one model.PRECISION.onnx for each packed precision, golden.npz, gates.npz,
evaluation.json and card.md.
"""

from pathlib import Path

from edgecxr.bundle.golden import Golden
from edgecxr.bundle.manifest import Manifest
from edgecxr.bundle.reader import Bundle
from edgecxr.bundle.writer import write_bundle

__all__ = ["Bundle", "Golden", "Manifest", "default_bundle_path", "write_bundle"]


def default_bundle_path() -> Path:
    """The model that is shipped with the package."""
    return Path(__file__).parents[1] / "models" / "covid3.cxr"

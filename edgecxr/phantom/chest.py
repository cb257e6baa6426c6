"""Phantom frontal chest radiographs: no patient's film, deterministic, with a known finding."""

import zlib

import numpy as np

from edgecxr.phantom.anatomy import draw_body, draw_thorax
from edgecxr.phantom.canvas import Canvas, enlarge
from edgecxr.phantom.exposure import expose
from edgecxr.phantom.opacity import FINDINGS, airless
from edgecxr.radiograph import Radiograph

__all__ = ["chest"]

FINEST = 256  # anatomy is softer than this grid; larger films are enlarged from it before noise is added


def chest(seed: int, finding: str = "normal", size: int = 512) -> Radiograph:
    """A 12-bit frontal chest film of (size, size) uint16, bone bright, the heart's apex to the image's right.

    The same seed gives the same patient at every size, and the same patient with another finding. Raises ValueError
    for a finding outside FINDINGS or a size below 32.
    """
    if finding not in FINDINGS:
        raise ValueError(f"finding {finding!r}: a phantom has one of {', '.join(FINDINGS)}")
    if size < 32:
        raise ValueError(f"size {size}: a phantom needs at least 32 pixels a side")
    patient = np.random.default_rng([seed, 0])
    canvas = Canvas.square(
        min(size, FINEST),
        shift=(patient.uniform(-0.06, 0.06), patient.uniform(-0.05, 0.05)),
        degrees=patient.uniform(-4, 4),
        scale=patient.uniform(0.92, 1.06),
    )
    body = draw_body(patient)
    thorax = draw_thorax(canvas, body, patient)
    lost = airless(canvas, thorax, body, finding, np.random.default_rng([seed, zlib.crc32(finding.encode())]))
    tissue = np.clip(thorax.tissue - thorax.air * (np.float32(1) - lost), 0, None)
    tissue = tissue if size <= FINEST else enlarge(tissue, size)
    return expose(tissue, np.random.default_rng([seed, 1]), f"phantom {finding} {seed}")

"""A bundle with thresholds of a site's own: the same model, golden set and gates under a new manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecxr.bundle.reader import Bundle
from edgecxr.bundle.writer import write_bundle
from edgecxr.spec import OperatingPoint

__all__ = ["SITE", "recalibrated_points", "write_recalibrated"]

SITE = "site"  # the key of the provenance


def recalibrated_points(bundle: Bundle, points: Sequence[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """Those of the bundle, but of the names in `points` these alone: none that was set elsewhere stays."""
    names = {point.name for point in points}
    return (*points, *(point for point in bundle.spec.operating_points if point.name not in names))


def write_recalibrated(bundle: Bundle, path: Path, points: Sequence[OperatingPoint], site: Mapping[str, Any]) -> Path:
    """Write `bundle` with `points` (`recalibrated_points`) to `path`, whole or not at all; it bears no signature.

    `site` says on what they were set; it stands in the provenance with the digest of the bundle before, and in the
    card. Raises BundleError.
    """
    spec = bundle.spec.model_copy(update={"operating_points": recalibrated_points(bundle, points)})
    return write_bundle(
        path,
        model=spec,
        models={precision: bundle.model(precision) for precision in bundle.precisions},
        golden=bundle.golden(),
        gates={precision: bundle.gate(precision) for precision in bundle.precisions},
        evaluation=bundle.evaluation(),
        card=f"{bundle.card().rstrip()}\n\n{_section(bundle, points)}",
        provenance={**bundle.manifest.provenance, SITE: {**site, "bundle_before": bundle.digest}},
        tolerance=bundle.manifest.tolerance,
    )


def _section(bundle: Bundle, points: Sequence[OperatingPoint]) -> str:
    """Of the card."""
    names = ", ".join(dict.fromkeys(f"`{point.name}`" for point in points))
    rows = [
        f"| {item.name} | {item.finding} | {item.precision} on {item.engine} | {item.threshold:.3f} | {item.rule} |"
        for item in points
    ]
    return "\n".join(
        [
            "## Thresholds of a site",
            "",
            f"Of {names} the thresholds were set by `edgecxr calibrate` after the build, from bundle "
            f"{bundle.digest[:12]}. What stands above and in `evaluation.json` was measured at the thresholds before.",
            "",
            "| point | finding | of | threshold | rule |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )

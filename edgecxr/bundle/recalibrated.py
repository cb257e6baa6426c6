"""A bundle with thresholds of a site's own: the same model, golden set and gates under a new manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecxr.bundle.reader import Bundle
from edgecxr.bundle.writer import write_bundle
from edgecxr.spec import OperatingPoint

__all__ = ["SITE", "recalibrated_points", "site_of", "write_recalibrated"]

SITE = "site"  # the key of the provenance: by operating point, on what a site set it
HEADING = "## Thresholds of a site"


def site_of(provenance: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By operating point that a site set, on what; nothing of a bundle as it was built."""
    told = provenance.get(SITE)
    return dict(told) if isinstance(told, dict) else {}


def recalibrated_points(bundle: Bundle, points: Sequence[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """The bundle's points in the order of their names; of the names in `points` these alone, and new names last.

    None that was set elsewhere stays under a name; and which name comes first, the one to decide by, stays as it was.
    """
    names = dict.fromkeys(point.name for point in (*bundle.spec.operating_points, *points))
    renewed = {point.name for point in points}
    return tuple(
        point
        for name in names
        for point in (points if name in renewed else bundle.spec.operating_points)
        if point.name == name
    )


def write_recalibrated(bundle: Bundle, path: Path, points: Sequence[OperatingPoint], site: Mapping[str, Any]) -> Path:
    """Write `bundle` with `points` (`recalibrated_points`) to `path`, whole or not at all; it bears no signature.

    `site` says on what they were set; it stands in the provenance under the name of each point, with the digest of the
    bundle before, and in the card. Raises BundleError.
    """
    told = {**site, "bundle_before": bundle.digest}
    sites = {**site_of(bundle.manifest.provenance), **{point.name: told for point in points}}
    spec = bundle.spec.model_copy(update={"operating_points": recalibrated_points(bundle, points)})
    card = bundle.card().partition(HEADING)[0].rstrip()
    return write_bundle(
        path,
        model=spec,
        models={precision: bundle.model(precision) for precision in bundle.precisions},
        golden=bundle.golden(),
        gates={precision: bundle.gate(precision) for precision in bundle.precisions},
        evaluation=bundle.evaluation(),
        card=f"{card}\n\n{_section([item for item in spec.operating_points if item.name in sites])}",
        provenance={**bundle.manifest.provenance, SITE: sites},
        tolerance=bundle.manifest.tolerance,
    )


def _section(points: Sequence[OperatingPoint]) -> str:
    """Of the card: every point that a site set."""
    names = ", ".join(dict.fromkeys(f"`{point.name}`" for point in points))
    rows = [
        f"| {item.name} | {item.finding} | {item.precision} on {item.engine} | {item.threshold:.3f} | {item.rule} |"
        for item in points
    ]
    return "\n".join(
        [
            HEADING,
            "",
            f"Of {names} the thresholds were set by `edgecxr calibrate` after the build. What stands above and in "
            "`evaluation.json` was measured at the thresholds of the build.",
            "",
            "| point | finding | of | threshold | rule |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )

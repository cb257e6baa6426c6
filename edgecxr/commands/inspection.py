"""``edgecxr inspect``: what is in a bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.terminal import print_json

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.spec import OperatingPoint

__all__ = ["inspect"]


def inspect(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle.  [default: the one shipped]")] = None,
    card: Annotated[bool, typer.Option("--card", help="Print the model card and nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a bundle is for, what it was made from and how it decides. Every digest is checked first.

    Example: `edgecxr inspect covid3.cxr`
    """
    from edgecxr.bundle import Bundle, default_bundle_path, signature

    opened = Bundle.open(bundle or default_bundle_path())
    keys = signature.signers(opened)
    if card:
        print(opened.card())
    elif as_json:
        manifest = opened.manifest.model_dump(mode="json")
        print_json({"digest": opened.digest, "keys": keys, "manifest": manifest, "evaluation": opened.evaluation()})
    else:
        print("\n".join(f"{key + ':':<16}{value}" for key, value in _facts(opened, keys)))
        _print_points(opened)


def _facts(bundle: "Bundle", keys: tuple[str, ...]) -> list[tuple[str, Any]]:
    spec, manifest = bundle.spec, bundle.manifest
    size = spec.preprocess.size
    provenance = manifest.provenance
    return [
        ("bundle", bundle.source),
        ("digest", bundle.digest),
        *(("signed", f"by key {key[:12]} (edgecxr verify --trusted KEY.pub checks it)") for key in keys),
        *(() if keys else (("signed", "no"),)),
        ("model", f"{spec.name} {spec.version}"),
        *(("head", f"{head.name} ({head.kind}): {', '.join(head.classes)}") for head in spec.heads),
        ("input", f"{size}x{size}, {spec.preprocess.aspect}, chain {manifest.chain[:12]}"),
        *((f"model.{name}", f"{len(bundle.model(name)) / 1e6:.2f} MB") for name in bundle.precisions),
        ("tolerance", f"{manifest.tolerance} on {len(bundle.golden().frames)} golden films"),
        *(
            (key, value)
            for key, value in provenance.items()
            if isinstance(value, str | int | float) and "\n" not in str(value)
        ),
        *(("thresholds", line) for line in _site(provenance)),
    ]


def _site(provenance: Mapping[str, Any]) -> list[str]:
    """On what `edgecxr calibrate` set thresholds; nothing of a bundle as it was built."""
    from edgecxr.bundle.recalibrated import site_of

    return [
        f"{name}: {told['rule']}, set on {told['films']} films of a site, {max(told['refused'].values())} of them "
        f"refused, from bundle {told['bundle_before'][:12]}{''.join(f'; warning: {item}' for item in told['warnings'])}"
        for name, told in site_of(provenance).items()
    ]


def _print_points(bundle: "Bundle") -> None:
    """The thresholds, and what each reached where it was set; points that share a threshold in one row."""
    from edgecxr.bundle.recalibrated import site_of

    merged: dict[tuple[str, str, str, float], list[OperatingPoint]] = {}
    for point in bundle.spec.operating_points:
        merged.setdefault((point.finding, point.precision, point.engine, point.threshold), []).append(point)
    columns = ("point", "finding", "precision", "engine", "threshold", "sensitivity*", "specificity*")
    rows: list[tuple[str, ...]] = [columns]
    for (finding, precision, engine, threshold), points in merged.items():
        figures = (f"{value:.3f}" for value in (threshold, points[0].sensitivity, points[0].specificity))
        rows.append((" and ".join(point.name for point in points), finding, precision, engine, *figures))
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    validation, test = (_films(bundle, purpose) for purpose in ("validate", "test"))
    own = " (of a site's: its own films)" if site_of(bundle.manifest.provenance) else ""
    print(f"* of the {validation}validation films{own}, on which the thresholds were set: no measure of accuracy;")
    print(f"  --card tells those of the {test}test films, with intervals")


def _films(bundle: "Bundle", purpose: str) -> str:
    """How many films served a purpose, with a space behind; nothing where the bundle does not say."""
    films = bundle.manifest.provenance.get("films")
    return f"{films[purpose]} " if isinstance(films, dict) and purpose in films else ""

"""The report as one HTML file that stands alone: no script, no link to anywhere, pictures inside."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgecxr import __version__
from edgecxr.bundle.recalibrated import site_of
from edgecxr.durable import write_atomically
from edgecxr.report import plots
from edgecxr.report.content import (
    chosen_models,
    coarse_maps,
    counted,
    decided_films,
    gate_reports,
    merged_points,
    models_of,
    refused_films,
    shipped_models,
    stages,
    without_points,
    worse_sign,
)
from edgecxr.report.learning import WEIGHT

if TYPE_CHECKING:
    from edgecxr.bundle import Manifest
    from edgecxr.runtimes.screening import Screening

__all__ = ["write_report"]

Json = Mapping[str, Any]
TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("plots.css", "style.css")
VERDICTS = {
    "non_inferior": "not inferior",
    "inferior": "inferior",
    "inconclusive": "undecided",
    "not_judged": "not judged",
    "told": "told",
}
METRICS = {
    "auroc": "AUROC",
    "flip_rate": "decisions that flip",
    "ece": "calibration error",
    "cam_correlation": "heatmap correlation",
    "cam_pointing": "heatmap peak",
    "refusal_flips": "refusals that flip",
}
SECTIONS = {
    "films": ("decided", "Films"),
    "refused": ("refused", "Refused"),
    "accuracy": ("models", "Accuracy"),
    "gate": ("gates", "Gate"),
    "engine": ("engines", "Engine"),
    "training": ("histories", "Training"),
    "provenance": ("provenance", "Provenance"),
}


def write_report(
    path: str | Path,
    *,
    title: str,
    screenings: Sequence["Screening"] = (),
    evaluation: Json | Sequence[Json] | None = None,
    gate: Any = None,
    engines: Sequence[Json] = (),
    manifest: "Manifest | None" = None,
    history: Mapping[str, Sequence[Json]] | None = None,
    warnings: Sequence[str] = (),
    pictures: int = 200,
) -> Path:
    """Write the report, with the sections there is something for, and return its path.

    Args:
        title: shown at the top.
        screenings: of one folder; their files are read again for the pictures of the first `pictures` decided films.
        evaluation: a bundle's evaluation, or what `edgecxr.export.evaluation.evaluate` returned, once or in a list.
        gate: GateReports or their JSON; those of the evaluation where None.
        engines: `Engine.describe()` of each engine in use, and whatever else a reader should know of it.
        manifest: of the bundle; without it films have no heatmaps.
        history: training records by the name of what was trained.
        warnings: what a reader of the evaluation must know first, sentences without a full stop.
        pictures: films that get pictures; about 20 kB each.
    """
    model = None if manifest is None else manifest.model
    decided = decided_films(screenings, model, pictures)
    site = [] if manifest is None else list(site_of(manifest.provenance))
    content: dict[str, Any] = {
        "title": title,
        "model": model,
        "ran": _ran(screenings),
        "counts": counted(screenings),
        "stages": stages(screenings),
        "decided": decided,
        "pictured": pictures,
        "unpictured": len(decided) > pictures,
        "coarse": coarse_maps(model, decided),
        "refused": refused_films(screenings),
        **_evaluated(evaluation, site),
        "gates": gate_reports(gate, evaluation),
        "engines": list(engines),
        "warnings": list(warnings),
        "histories": _histories(history or {}),
        "provenance": [] if manifest is None else _provenance(manifest),
        "site": site,
        "recipe_text": None if manifest is None else manifest.provenance.get("recipe_text"),
    }
    place = Path(path)
    write_atomically(place, _render(content).encode(errors="backslashreplace"))
    return place


def _evaluated(evaluation: Json | Sequence[Json] | None, site: Sequence[str]) -> Json:
    """What the page tells of an evaluation; at points that a `site` has set since, a build's own tells nothing."""
    of_build = isinstance(evaluation, Mapping) and "models" in evaluation
    models = without_points(models_of(evaluation), site if of_build else ())
    shipped, others = shipped_models(models, evaluation)
    return {
        "models": models,
        "shipped": shipped,
        "others": others,
        "of_build": of_build,
        "findings": _findings(models, shipped, others),
        "matrices": _matrices(chosen_models(models)),
        "maps": [
            (model["name"], found, plots.neighbour_map(found)) for model in models for found in model.get("maps", ())
        ],
    }


def _render(content: dict[str, Any]) -> str:
    """The page; every value is escaped but the plots, which escape what they are given."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"bar": plots.bar, "forest": plots.forest, "worse_sign": worse_sign}
    environment.globals |= {"metrics": METRICS, "verdicts": VERDICTS}
    environment.filters["fixed"] = _fixed
    content["sections"] = [
        (anchor, name)
        for anchor, (key, name) in SECTIONS.items()
        if content[key] or (key == "engines" and content["stages"])
    ]
    return environment.get_template("report.html").render(
        **content,
        style=Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in STYLES)),
        version=__version__,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _fixed(value: float, digits: int = 3) -> str:
    """A number with a real minus sign, and none on a zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def _ran(screenings: Sequence["Screening"]) -> str:
    """What decided, in words: each combination of engine, precision and kernel that was used."""
    used = dict.fromkeys((item.engine, item.precision, item.kernel) for item in screenings)
    return ", ".join(f"{precision.upper()} on {engine}, kernel {kernel}" for engine, precision, kernel in used)


def _findings(models: Sequence[Json], shipped: Sequence[Json], others: Sequence[Json]) -> list[dict[str, Any]]:
    """Two tables and the plots for each finding, in the order of the first model's classes."""
    chosen = chosen_models(models)
    names = list(dict.fromkeys(entry["name"] for model in models for entry in model["classes"] if entry["is_finding"]))
    found = []
    for name in names:
        series = _rows(chosen, name)
        found.append(
            {
                "name": name,
                "rows": _rows(shipped, name),
                "others": _rows(others, name),
                "legend": [label for label, _ in series],
                "roc": plots.roc_plot(series),
                "precision_recall": plots.precision_recall_plot(series),
                "reliable": series[-1][0],
                "reliability": plots.reliability_plot(series[-1][1]["reliability"], len(series) - 1),
                "histograms": [
                    (label, plots.histogram_plot(entry["histogram"], name, entry["operating_points"]))
                    for label, entry in series
                    if "histogram" in entry
                ],
            }
        )
    return found


def _rows(models: Sequence[Json], finding: str) -> list[tuple[str, Json]]:
    """The finding's entry of each model, its operating points merged where they are one."""
    return [
        (model["name"], {**entry, "operating_points": merged_points(entry["operating_points"])})
        for model in models
        for entry in model["classes"]
        if entry["name"] == finding
    ]


def _matrices(models: Sequence[Json]) -> list[tuple[str, Markup]]:
    return [
        (model["name"], plots.confusion_matrix(head["classes"], head["confusion"]))
        for model in models
        for head in model["heads"]
        if head["confusion"]
    ]


def _histories(history: Mapping[str, Sequence[Json]]) -> list[tuple[str, list[Markup]]]:
    """By training its learning curves, then its moving weights where it has any."""
    return [
        (name, [plots.learning_curves({name: records}), *(plots.fusion_weights(records),) * _moving(records)])
        for name, records in history.items()
        if records
    ]


def _moving(records: Sequence[Json]) -> bool:
    return any(key.startswith(WEIGHT) for key in records[-1])


def _provenance(manifest: "Manifest") -> list[tuple[str, Any]]:
    """What the bundle says about its origin, the parts that a reader wants first on top."""
    told = {key.replace("_", " "): item for key, item in manifest.provenance.items() if key != "recipe_text"}
    facts = {
        "model": f"{manifest.model.name} {manifest.model.version}",
        "findings": list(manifest.model.findings),
        "input": f"{manifest.model.preprocess.size} × {manifest.model.preprocess.size} pixels",
        "chain digest": manifest.chain,
        **told,
    }
    return [*facts.items(), *((f"SHA-256 of {name}", digest) for name, digest in manifest.members.items())]

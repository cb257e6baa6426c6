"""What a report says, worked out from results before anything is laid out."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecxr.report.pictures import Picture, picture
from edgecxr.spec import ModelSpec

if TYPE_CHECKING:
    from edgecxr.runtimes.screening import Screening

__all__ = [
    "Decided",
    "Refused",
    "Stage",
    "chosen_models",
    "decided_films",
    "gate_reports",
    "models_of",
    "refused_films",
]
__all__ += ["coarse_maps", "counted", "merged_points", "shipped_models", "stages", "worse_sign"]

Json = Mapping[str, Any]
STAGES = ("read", "preprocess", "infer")
TRAINED = "-qat"  # ends the name of an artefact that was trained for its precision
COLOURS = 4  # models that one plot tells apart
COARSE = 4  # cells along a side of a map up to which its peak can lie well beside what it stands for
GAINS_ARE_LOSSES = ("ece", "flip_rate", "refusal_flips")  # metrics of the gate that are worse when larger


@dataclass(frozen=True)
class Decided:
    """One film with its decisions."""

    name: str
    screening: "Screening"
    picture: Picture | None
    positive: bool
    lost: bool  # there would be a picture if the file were as it was


@dataclass(frozen=True)
class Refused:
    """One file that was not screened; there is nothing else to say about it."""

    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Stage:
    """Milliseconds that one stage took over the folder; quantiles are of the films themselves."""

    name: str
    films: int
    p50: float
    p90: float
    p99: float


def decided_films(screenings: Sequence["Screening"], spec: ModelSpec | None, pictures: int) -> list[Decided]:
    """Decided films, positives first, each group by how far it lies above its threshold; the first have pictures."""
    ready = sorted((item for item in screenings if item.status == "ok"), key=_urgency)
    names = _short_names([item.file for item in screenings])
    films = []
    for number, item in enumerate(ready):
        wanted = spec is not None and number < pictures
        shown = picture(item, spec) if spec is not None and wanted else None
        films.append(Decided(names[item.file], item, shown, _positive(item), wanted and shown is None))
    return films


def refused_films(screenings: Sequence["Screening"]) -> list[Refused]:
    """Refused files in the order of the folder."""
    names = _short_names([item.file for item in screenings])
    return [
        Refused(names[item.file], item.reason.value if item.reason else "unknown", item.detail)
        for item in screenings
        if item.status == "refused"
    ]


def counted(screenings: Sequence["Screening"]) -> dict[str, int]:
    """How many films of each outcome."""
    outcomes = Counter(
        "refused" if item.status == "refused" else "positive" if _positive(item) else "negative" for item in screenings
    )
    return {"films": len(screenings), **{name: outcomes[name] for name in ("positive", "negative", "refused")}}


def stages(screenings: Sequence["Screening"]) -> list[Stage]:
    """Time per stage over the films that reached it, and `total` over the decided films."""
    found = []
    for name in STAGES:
        values = [item.milliseconds[name] for item in screenings if item.milliseconds.get(name) is not None]
        if values:
            found.append(_stage(name, values))
    totals = [sum(item.milliseconds.get(name) or 0.0 for name in STAGES) for item in screenings if item.status == "ok"]
    return [*found, _stage("total", totals)] if totals and found else found


def models_of(evaluation: Json | Sequence[Json] | None) -> list[Json]:
    """The evaluated models of a bundle's evaluation (`models`), of a list of them, or the one that is given."""
    if not evaluation:
        return []
    if isinstance(evaluation, Mapping):
        return list(evaluation["models"]) if "models" in evaluation else [evaluation]
    return list(evaluation)


def without_points(models: Sequence[Json], names: Collection[str]) -> list[Json]:
    """The models without operating points of these names: what they reach was measured at thresholds that are gone."""

    def kept(entry: Json) -> Json:
        return {**entry, "operating_points": [item for item in entry["operating_points"] if item["name"] not in names]}

    return [{**model, "classes": [kept(entry) for entry in model["classes"]]} for model in models]


def shipped_models(models: Sequence[Json], evaluation: Json | Sequence[Json] | None) -> tuple[list[Json], list[Json]]:
    """The models that the bundle holds, and the others (ensemble, reference, what the gate left out).

    All are the first where the evaluation does not say what was packed. In bundles built before, a precision that
    failed and was then trained for has two models of one name: the later one is held.
    """
    told = evaluation.get("precisions", ()) if isinstance(evaluation, Mapping) else ()
    latest = {model["name"]: model for model in models}.values()
    named = {part for model in latest for part in model["name"].split()}
    names = [(item.get("name"), item["precision"]) for item in told if item["packed"]]
    packed = {name if name in named else precision for name, precision in names}
    held = [model for model in latest if packed & set(model["name"].split()) and not _is_ensemble(model)]
    others = [model for model in models if not any(model is item for item in held)]
    return (held, others) if held else (list(models), [])


def merged_points(points: Sequence[Json]) -> list[Json]:
    """Operating points of one finding; those with the same threshold are one point that has all their names."""
    names: dict[float, list[str]] = {}
    for point in points:
        names.setdefault(point["threshold"], []).append(point["name"])
    first = {point["threshold"]: point for point in reversed(points)}
    return [{**first[threshold], "name": " and ".join(found)} for threshold, found in names.items()]


def coarse_maps(spec: ModelSpec | None, decided: Sequence[Decided]) -> tuple[int, int] | None:
    """Rows and columns of the maps that are shown, where they are so few that a peak says little about the place."""
    shown = any(film.picture and film.picture.overlays for film in decided)
    return spec.cam_shape if spec is not None and shown and max(spec.cam_shape) <= COARSE else None


def chosen_models(models: Sequence[Json]) -> list[Json]:
    """At most COLOURS models for the plots: of each artefact the first engine's (`student int8 openvino-cpu`).

    Of a precision that failed and was then trained for, that is the later artefact's.
    """
    first: dict[str, Json] = {}
    for model in {model["name"]: model for model in models}.values():
        first.setdefault(model["name"].rpartition(" ")[0] or model["name"], model)
    return list({name.removesuffix(TRAINED): model for name, model in first.items()}.values())[:COLOURS]


def gate_reports(gate: Any, evaluation: Json | Sequence[Json] | None) -> list[Json]:
    """Comparisons as JSON: those given (a GateReport or its JSON, one or many), else those of the evaluation.

    A row at an operating point names it with its finding; rows of bundles built before had but one and do not say it.
    """
    if gate is None:
        given = list(evaluation.get("gate") or ()) if isinstance(evaluation, Mapping) else []
    else:
        given = [gate] if isinstance(gate, Mapping) or hasattr(gate, "to_json") else list(gate)
    reports = [item if isinstance(item, Mapping) else item.to_json() for item in given]
    return [{**report, "rows": [_at_point(row) for row in report["rows"]]} for report in reports]


def _at_point(row: Json) -> Json:
    return {**row, "finding": f"{row['finding']}, {row['point']}"} if row.get("point") else row


def worse_sign(metric: str) -> int:
    """1 where a larger value of a gate's metric is worse, else -1."""
    return 1 if metric in GAINS_ARE_LOSSES else -1


def _is_ensemble(model: Json) -> bool:
    return bool(model["name"].startswith("ensemble"))


def _stage(name: str, values: Sequence[float | None]) -> Stage:
    p50, p90, p99 = np.quantile(np.array(values, np.float64), (0.5, 0.9, 0.99)).tolist()
    return Stage(name, len(values), p50, p90, p99)


def _positive(screening: "Screening") -> bool:
    return any(finding.decision == "positive" for finding in screening.findings)


def _urgency(screening: "Screening") -> tuple[bool, float, str]:
    excess = max((finding.probability - finding.threshold for finding in screening.findings), default=-1.0)
    return not _positive(screening), -excess, screening.file


def _short_names(files: Sequence[str]) -> dict[str, str]:
    """Each file's path below what all paths share."""
    parts = [PurePath(file).parts for file in files]
    shared = 0
    while parts and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return {file: str(PurePath(*part[shared:])) if part else file for file, part in zip(files, parts, strict=True)}

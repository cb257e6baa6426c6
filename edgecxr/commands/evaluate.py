"""``edgecxr evaluate``: every metric of a bundle on labelled films, through the whole screening line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
import yaml

from edgecxr.commands.choices import check_choices
from edgecxr.commands.terminal import ExitCode, counted, note, print_json, progress
from edgecxr.errors import DatasetError, Refusal

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.dataset import Dataset, Film, HeadColumns
    from edgecxr.runtimes.engine import Engine, Output

__all__ = ["evaluate"]


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of films with labels.csv.", show_default=False)],
    bundle: Annotated[Path | None, typer.Argument(help="The bundle.  [default: the one shipped]")] = None,
    folds: Annotated[
        str,
        typer.Option(help="Folds to evaluate on, such as 4 or 3,4.  [default: all; of its own data the test folds]"),
    ] = "",
    labels: Annotated[str, typer.Option(help="The table in the folder.")] = "labels.csv",
    engine: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure a bundle on labelled films, with confidence intervals. Ends with 1 when some films were refused.

    Example: `edgecxr evaluate covid3.cxr --data films --folds 4`
    """
    from edgecxr.bundle import Bundle, default_bundle_path
    from edgecxr.dataset import load_dataset
    from edgecxr.runtimes.registry import open_engine

    wanted = _numbers(folds) if folds else []
    opened = Bundle.open(bundle or default_bundle_path())
    check_choices(opened, engine, precision)
    heads = _placed_heads(opened)
    dataset = load_dataset(data, labels=labels, heads=heads)
    wanted = wanted or _test_folds(opened, dataset)
    if wanted:
        _warn_of_seen(opened, dataset, wanted)
        dataset = dataset.select(wanted)
    with open_engine(opened, engine, precision, point=None) as running:
        outputs, refused = _run(running, _labelled(dataset, heads), quiet=as_json)
        figures = _figures(opened, running, outputs, heads)
    if as_json:
        used = sorted({film.fold for film in dataset.films})
        print_json({"bundle": opened.digest, "engine": running.family, "folds": used, "refused": refused, **figures})
    else:
        _print(figures, refused)
    if refused:
        raise typer.Exit(ExitCode.SOME_REFUSED)


def _numbers(folds: str) -> list[int]:
    parts = folds.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"{folds!r} is not a list of folds such as 4 or 3,4", param_hint="--folds")
    return [int(part) for part in parts]


def _built_folds(bundle: "Bundle", dataset: "Dataset") -> dict[str, list[int]]:
    """Folds by purpose (train, validate, test) when the bundle was built on exactly this data, else none."""
    origin = bundle.manifest.provenance
    if origin.get("data_digest") != dataset.digest:
        return {}
    try:
        folds = yaml.safe_load(str(origin.get("recipe_text", "")))["data"]["folds"]
        return {purpose: [int(fold) for fold in folds[purpose]] for purpose in ("train", "validate", "test")}
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}


def _test_folds(bundle: "Bundle", dataset: "Dataset") -> list[int]:
    """The folds to take when none is named: those that the build kept for testing; none for other data: all."""
    test = _built_folds(bundle, dataset).get("test", [])
    if test:
        told = ", ".join(map(str, test))
        note(f"the bundle was built on this data: evaluating on fold {told}, which its recipe kept for testing")
    return test


def _warn_of_seen(bundle: "Bundle", dataset: "Dataset", wanted: list[int]) -> None:
    """A note for folds whose films the build has learned from."""
    built = _built_folds(bundle, dataset)
    for purpose in ("train", "validate"):
        if seen := sorted(set(wanted) & set(built.get(purpose, ()))):
            note(f"warning: fold {', '.join(map(str, seen))} served to {purpose} this bundle; its figures are too good")


def _placed_heads(bundle: "Bundle") -> tuple["HeadColumns", ...]:
    """The heads with the columns that the bundle was trained on."""
    from edgecxr.dataset import HeadColumns

    columns = bundle.manifest.provenance.get("columns", {})
    placed = columns if isinstance(columns, dict) else {}
    return tuple(
        HeadColumns.model_validate({"head": head, **(own if isinstance(own := placed.get(head.name), dict) else {})})
        for head in bundle.spec.heads
    )


def _labelled(dataset: "Dataset", heads: tuple["HeadColumns", ...]) -> list[tuple["Film", dict[str, Any]]]:
    """Films with at least one label, each with its target per head."""
    targets = {item.head.name: dataset.targets(item) for item in heads}
    rows = []
    for index, film in enumerate(dataset.films):
        own = {name: values[index] for name, values in targets.items()}
        if any(
            bool(np.all(value >= 0)) if np.ndim(value) == 0 else not np.isnan(value).all() for value in own.values()
        ):
            rows.append((film, own))
    if not rows:
        raise DatasetError([f"no film of {dataset.folder} has a label of the bundle's heads"])
    return rows


def _run(
    engine: "Engine", rows: list[tuple["Film", dict[str, Any]]], *, quiet: bool
) -> tuple[list[tuple["Output", dict[str, Any]]], list[dict[str, str]]]:
    """Outputs with targets of the films that could be read, and the others with their reasons."""
    from edgecxr.read import read_radiograph

    outputs, refused = [], []
    with progress("evaluating", len(rows), quiet=quiet) as step:
        for film, targets in rows:
            try:
                radiograph = read_radiograph(film.path, reduced_for=engine.spec.reduced_for)
                outputs.append((engine.run([radiograph])[0], targets))
            except Refusal as error:
                refused.append({"file": str(film.path), "reason": error.reason.value, "detail": error.detail})
                note(f"{film.path}: {error}")
            step(film.path.name)
    if not outputs:
        raise DatasetError([f"{row['file']}: {row['reason']}: {row['detail']}" for row in refused])
    return outputs, refused


def _figures(
    bundle: "Bundle", engine: "Engine", rows: list[tuple["Output", dict[str, Any]]], heads: tuple["HeadColumns", ...]
) -> dict[str, Any]:
    from edgecxr.export.evaluation import evaluate as measure
    from edgecxr.export.scored import Scored
    from edgecxr.scores import probabilities

    spec, precision = bundle.spec, engine.precision
    logits = np.stack([output.logits for output, _ in rows])
    scored = Scored(
        f"{spec.name} {precision} {engine.family}",
        logits,
        probabilities(logits, spec.heads, spec.temperatures[precision]),
        embeddings=np.stack([output.embedding for output, _ in rows]),
        points=tuple(p for p in spec.operating_points if (p.precision, p.engine) == (precision, engine.family)),
        refusal=bundle.gate(precision),
    )
    targets = {item.head.name: np.stack([own[item.head.name] for _, own in rows]) for item in heads}
    return measure(scored, targets, spec.heads)


def _print(figures: dict[str, Any], refused: list[dict[str, str]]) -> None:
    print(f"{figures['name']} on {counted(figures['films'])}, {len(refused)} refused as unreadable")
    for head in figures["heads"]:
        print(f"{head['name']}: macro AUROC {_interval(head['macro_auroc'])}, accuracy {_interval(head['accuracy'])}")
    for item in figures["classes"]:
        print(f"  {item['name']} ({item['positives']} of {item['films']}): AUROC {_interval(item['auroc'])}")
        for point in item["operating_points"]:
            rates = f"sensitivity {_interval(point['sensitivity'])}, specificity {_interval(point['specificity'])}"
            print(f"    {point['name']} at {point['threshold']:.3f}: {rates}")
    rate = figures["refusal"]
    print(f"refused as not a frontal chest film: {rate['refused']} of {rate['films']}, {_interval(rate['rate'])}")


def _interval(value: dict[str, float] | None) -> str:
    return "not measurable" if value is None else f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

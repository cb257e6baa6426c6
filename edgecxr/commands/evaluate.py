"""``edgecxr evaluate``: every metric of a model on labelled films; of a bundle through the whole screening line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
import yaml

from edgecxr.commands.choices import check_page, writing
from edgecxr.commands.evaluated import Answer, Evaluated, Running, open_evaluated
from edgecxr.commands.terminal import ExitCode, counted, note, print_json, progress
from edgecxr.errors import DatasetError, Refusal

if TYPE_CHECKING:
    from edgecxr.dataset import Dataset, Film, HeadColumns

__all__ = ["evaluate"]


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of films with labels.csv.", show_default=False)],
    bundle: Annotated[
        Path | None,
        typer.Argument(help="The bundle, or the folder of a trained teacher.  [default: the bundle shipped]"),
    ] = None,
    folds: Annotated[
        str,
        typer.Option(help="Folds to evaluate on, such as 4 or 3,4.  [default: all; of its own data the test folds]"),
    ] = "",
    labels: Annotated[str, typer.Option(help="The table in the folder.")] = "labels.csv",
    engine: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.")] = "auto",
    at_specificity: Annotated[
        float, typer.Option(min=0, max=1, help="Tell the sensitivity that goes with this specificity.")
    ] = 0.9,
    at_sensitivity: Annotated[
        float, typer.Option(min=0, max=1, help="Tell the specificity that goes with this sensitivity.")
    ] = 0.98,
    html: Annotated[Path | None, typer.Option(help="Write a page with every figure and plot to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure a bundle or a trained teacher on labelled films, with confidence intervals and plots.

    Ends with 1 when some films were refused.

    Example: `edgecxr evaluate covid3.cxr --data films --folds 4 --html covid3.html`
    """
    from edgecxr.dataset import load_dataset

    wanted = _numbers(folds) if folds else []
    opened = open_evaluated(bundle, engine, precision)
    if html is not None:
        check_page(html)
    dataset = load_dataset(data, labels=labels, heads=opened.heads)
    wanted = wanted or _test_folds(opened, dataset)
    warnings = _warnings_of_seen(opened, dataset, wanted)
    for warning in warnings:
        note(f"warning: {warning}")
    if wanted:
        dataset = dataset.select(wanted)
    with opened.running() as running:
        answers, refused = _run(running, _labelled(dataset, opened.heads), quiet=as_json)
        figures = _figures(running, answers, opened.heads, (at_specificity, at_sensitivity))
    if html is not None:
        _write_page(html, opened, running, figures, counted(len(answers)))
    if as_json:
        used = sorted({film.fold for film in dataset.films})
        told = {"bundle": opened.digest, "engine": running.engine, "folds": used, "warnings": warnings}
        print_json({**told, "refused": refused, **figures})
    else:
        _print(figures, refused)
    if refused:
        raise typer.Exit(ExitCode.SOME_REFUSED)


def _numbers(folds: str) -> list[int]:
    parts = folds.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise typer.BadParameter(f"{folds!r} is not a list of folds such as 4 or 3,4", param_hint="--folds")
    return [int(part) for part in parts]


def _is_built_on(model: Evaluated, dataset: "Dataset") -> bool:
    """Whether this is exactly the data of the bundle's build: every film, every row."""
    return bool(model.provenance.get("data_digest") == dataset.digest)


def _built_folds(model: Evaluated) -> dict[str, list[int]]:
    """Folds of the build's data by purpose (train, validate, test), none where the model does not say."""
    try:
        folds = yaml.safe_load(str(model.provenance.get("recipe_text", "")))["data"]["folds"]
        return {purpose: [int(fold) for fold in folds[purpose]] for purpose in ("train", "validate", "test")}
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}


def _test_folds(model: Evaluated, dataset: "Dataset") -> list[int]:
    """The folds to take when none is named: those that the build kept for testing; none for other data: all."""
    test = _built_folds(model).get("test", []) if _is_built_on(model, dataset) else []
    if test:
        note(
            f"the bundle was built on this data: evaluating on fold {_listed(test)}, which its recipe kept for testing"
        )
    elif model.manifest is None:
        note("warning: a teacher does not say which folds it learned from; name one that it has not seen with --folds")
    return test


def _warnings_of_seen(model: Evaluated, dataset: "Dataset", wanted: list[int]) -> list[str]:
    """Folds of `wanted` (none: all) whose films the build has learned from; or that this cannot be told.

    A bundle holds the digest of its data and no list of films, so one changed cell makes other data of the same films.
    """
    if model.manifest is None:
        return []  # a teacher says nothing of folds: `_test_folds` told so
    built = _built_folds(model)
    if not built or not _is_built_on(model, dataset):
        folds = "; ".join(f"{purpose} {_listed(numbers)}" for purpose, numbers in built.items())
        told = f"the folds of the data that it was built on were: {folds}" if folds else "it does not name its folds"
        return [
            "cannot tell whether these films taught the bundle: no list of films travels in it, and its build is not "
            f"known to be of exactly this data; {told}. On films that taught it, figures are too good"
        ]
    used = set(wanted) or {film.fold for film in dataset.films}
    seen = {purpose: sorted(used & set(built[purpose])) for purpose in ("train", "validate")}
    return [
        f"fold {_listed(folds)} served to {purpose} this bundle; its figures are too good"
        for purpose, folds in seen.items()
        if folds
    ]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


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
        raise DatasetError([f"no film of {dataset.folder} has a label of the model's heads"])
    return rows


def _run(
    running: Running, rows: list[tuple["Film", dict[str, Any]]], *, quiet: bool
) -> tuple[list[tuple[Answer, dict[str, Any]]], list[dict[str, str]]]:
    """Answers with targets of the films that could be read, and the others with their reasons."""
    from edgecxr.read import read_radiograph

    answers, refused = [], []
    with progress("evaluating", len(rows), quiet=quiet) as step:
        for film, targets in rows:
            try:
                radiograph = read_radiograph(film.path, reduced_for=running.reduced_for)
                answers.append((running.ask(radiograph), targets))
            except Refusal as error:
                refused.append({"file": str(film.path), "reason": error.reason.value, "detail": error.detail})
                note(f"{film.path}: {error}")
            step(film.path.name)
    if not answers:
        raise DatasetError([f"{row['file']}: {row['reason']}: {row['detail']}" for row in refused])
    return answers, refused


def _figures(
    running: Running,
    rows: list[tuple[Answer, dict[str, Any]]],
    placed: tuple["HeadColumns", ...],
    chosen: tuple[float, float],
) -> dict[str, Any]:
    from edgecxr.export.evaluation import evaluate as measure
    from edgecxr.export.plotted import plotted
    from edgecxr.export.scored import Scored
    from edgecxr.scores import probabilities

    heads = [item.head for item in placed]
    logits = np.stack([answer.logits for answer, _ in rows])
    scored = Scored(
        running.name,
        logits,
        probabilities(logits, heads, running.temperatures),
        embeddings=np.stack([answer.embedding for answer, _ in rows]),
        points=running.points,
        refusal=running.gate,
    )
    targets = {head.name: np.stack([own[head.name] for _, own in rows]) for head in heads}
    figures = measure(scored, targets, heads)
    return plotted(figures, scored, targets, heads, specificity=chosen[0], sensitivity=chosen[1])


def _write_page(path: Path, opened: Evaluated, running: Running, figures: dict[str, Any], films: str) -> None:
    from edgecxr.report import write_report

    with writing(path):
        write_report(
            path,
            title=f"{running.name} on {films}",
            evaluation=figures,
            engines=[running.described],
            manifest=opened.manifest,
        )
    note(f"report: {path.resolve()}")


def _print(figures: dict[str, Any], refused: list[dict[str, str]]) -> None:
    print(f"{figures['name']} on {counted(figures['films'])}, {len(refused)} refused as unreadable")
    for head in figures["heads"]:
        print(f"{head['name']}: macro AUROC {_interval(head['macro_auroc'])}, accuracy {_interval(head['accuracy'])}")
    for item in figures["classes"]:
        print(f"  {item['name']} ({item['positives']} of {item['films']}): AUROC {_interval(item['auroc'])}")
        for point in item["operating_points"]:
            rates = f"sensitivity {_interval(point['sensitivity'])}, specificity {_interval(point['specificity'])}"
            print(f"    {point['name']} at {point['threshold']:.3f}: {rates}")
        for rate in item["chosen"]:
            print(f"    {rate['of']} at {rate['given']} {rate['at']:g}: {_interval(rate['interval'])}")
    if rate := figures["refusal"]:
        print(f"refused as not a frontal chest film: {rate['refused']} of {rate['films']}, {_interval(rate['rate'])}")


def _interval(value: dict[str, float] | None) -> str:
    return "not measurable" if value is None else f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

"""``edgecxr calibrate``: thresholds of a site, from its own films whose findings are confirmed."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from edgecxr.commands.choices import check_bundle, check_choices, misuse, writing
from edgecxr.commands.evaluated import Answer, EvaluatedBundle, Running
from edgecxr.commands.labelled import Asked, ask_films, fold_numbers, labelled, taught_folds, warnings_of_seen
from edgecxr.commands.terminal import ExitCode, counted, note, print_json
from edgecxr.errors import DatasetError, EngineError, StatisticsError

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.dataset import Dataset, HeadColumns
    from edgecxr.decision import OperatingRule
    from edgecxr.spec import OperatingPoint

__all__ = ["calibrate"]

Json = dict[str, Any]


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="The bundle; it stays as it is.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder of confirmed films with labels.csv.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The bundle to write.", show_default=False)],
    point: Annotated[str, typer.Option(help="Operating point to set, or to add.  [default: the first]")] = "",
    sensitivity: Annotated[
        float | None, typer.Option(help="Highest threshold that finds this share, such as 0.9.")
    ] = None,
    specificity: Annotated[
        float | None, typer.Option(help="Lowest threshold that clears this share, such as 0.9.")
    ] = None,
    folds: Annotated[str, typer.Option(help="Folds to set them on, such as 0,1.  [default: all]")] = "",
    labels: Annotated[str, typer.Option(help="The table in the folder.")] = "labels.csv",
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="One of several.  [default: all of the CPU]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Set the thresholds of one operating point on a site's own confirmed films, and write a bundle that has them.

    Every engine and packed precision gets thresholds of its own; under this name no other stays. Films that the bundle
    refuses take no part. The new bundle bears no signature. Ends with 1 when some films were refused.

    Example: `edgecxr calibrate covid3.cxr --data confirmed --sensitivity 0.95 --out ours.cxr`
    """
    from edgecxr.bundle import Bundle
    from edgecxr.bundle.recalibrated import recalibrated_points, write_recalibrated
    from edgecxr.decision import OperatingRule
    from edgecxr.site import swapped_points

    opened = Bundle.open(bundle)
    rule = OperatingRule.model_validate({"name": _point(opened, point), **_target(sensitivity, specificity)})
    for name in engine or ():
        check_choices(opened, name, "auto")
    check_bundle(out, bundle)
    model = EvaluatedBundle(opened, "auto", "auto")
    dataset, warnings = _films(model, data, labels, fold_numbers(folds))
    with ExitStack() as stack:
        runnings = _opened(stack, opened, engine)
        asked, unreadable = ask_films(runnings, labelled(dataset, model.heads), quiet=as_json)
        points, refused = _derived(runnings, asked, model.heads, rule)
    for warning in (swapped := swapped_points(opened.spec.operating_points, recalibrated_points(opened, points))):
        note(f"warning: {warning}")
    site = {
        "data_digest": dataset.digest,
        "films": len(asked),
        "unreadable": len(unreadable),
        "refused": refused,
        "rule": str(rule),
        "warnings": [*warnings, *swapped],
    }
    with writing(out):
        written = Bundle.open(write_recalibrated(opened, out, points, site))
    _tell(written, points, site, unreadable, as_json=as_json)
    if unreadable or any(refused.values()):
        raise typer.Exit(ExitCode.SOME_REFUSED)


def _point(bundle: "Bundle", given: str) -> str:
    points = bundle.spec.operating_points
    if not given and not points:
        misuse(f"{bundle.source} has no operating point; name the one to add with --point")
    return given or points[0].name


def _target(sensitivity: float | None, specificity: float | None) -> dict[str, float]:
    given = {"sensitivity": sensitivity, "specificity": specificity}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        misuse(f"got {' and '.join(chosen) or 'no target'}; give exactly one of --sensitivity and --specificity")
    name, value = next(iter(chosen.items()))
    if not 0 < value < 1:
        misuse(f"--{name} is {value:g}; wanted a share between 0 and 1, such as 0.9")
    return chosen


def _films(model: EvaluatedBundle, data: Path, labels: str, wanted: list[int]) -> tuple["Dataset", list[str]]:
    """The films to set thresholds on, and what must be known of them; none that is known to have taught the bundle."""
    from edgecxr.dataset import load_dataset

    dataset = load_dataset(data, labels=labels, heads=model.heads)
    if taught := taught_folds(model, dataset, wanted):
        misuse(
            f"fold {taught} of these films taught the bundle, which scores them higher than any others: thresholds set "
            "on them would miss findings; name other folds with --folds"
        )
    warnings = warnings_of_seen(model, dataset, wanted, "scores are too sure, and thresholds set on them miss findings")
    for warning in warnings:
        note(f"warning: {warning}")
    return (dataset.select(wanted) if wanted else dataset), warnings


def _opened(stack: ExitStack, bundle: "Bundle", engines: list[str] | None) -> list[Running]:
    """Each precision on each engine; one that does not open here gets no threshold, and is named with its reason."""
    from edgecxr.runtimes.registry import ENGINES

    runnings = []
    for engine in engines or ENGINES:
        for precision in bundle.precisions:
            try:
                runnings.append(stack.enter_context(EvaluatedBundle(bundle, engine, precision).running()))
            except EngineError as error:
                note(f"{engine} {precision} gets no threshold: {error}")
    if not runnings:
        raise EngineError("no engine opens this bundle here, so nothing can be calibrated; see edgecxr doctor")
    return runnings


def _derived(
    runnings: list[Running], asked: list[Asked], placed: "tuple[HeadColumns, ...]", rule: "OperatingRule"
) -> tuple["list[OperatingPoint]", dict[str, int]]:
    """The points of every model, and how many films each refuses as no frontal chest film: those take no part."""
    from edgecxr.scores import class_labels, probabilities
    from edgecxr.site import site_points

    heads = [item.head for item in placed]
    labels = class_labels(heads, {head.name: np.stack([row.targets[head.name] for row in asked]) for head in heads})
    points: list[OperatingPoint] = []
    refused = {}
    for index, running in enumerate(runnings):
        answers = [row.answers[index] for row in asked]
        taken = _taken(running, answers)
        scores = probabilities(np.stack([answer.logits for answer in answers]), heads, running.temperatures)
        precision, engine = running.described["precision"], running.engine
        refused[f"{precision} {engine}"] = int((~taken).sum())
        try:
            points += site_points(heads, scores[taken], labels[taken], rule, precision=precision, engine=engine)
        except StatisticsError as error:
            raise DatasetError([str(error)]) from error
    return points, refused


def _taken(running: Running, answers: list[Answer]) -> NDArray[np.bool_]:
    """(N,) films that the model's gate lets through: the others get no decision, so no threshold is for them."""
    embeddings = [answer.embedding for answer in answers if answer.embedding is not None]
    if running.gate is None or not embeddings:
        return np.ones(len(answers), bool)
    return np.asarray(running.gate.distance(np.stack(embeddings)) <= running.gate.threshold)


def _tell(
    written: "Bundle", points: "list[OperatingPoint]", site: Json, unreadable: list[Json], *, as_json: bool
) -> None:
    if as_json:
        rows = [item.model_dump(mode="json") for item in points]
        told = {"bundle": written.source, "digest": written.digest, "points": rows}
        print_json({**told, "site": site, "unreadable": unreadable})
        return
    lost = f"{max(site['refused'].values())} of them refused as no frontal chest film, {len(unreadable)} unreadable"
    print(f"{written.source}: digest {written.digest[:12]}, set on {counted(site['films'])}, {lost}")
    for item in points:
        reached = f"sensitivity {item.sensitivity:.3f}, specificity {item.specificity:.3f}"
        print(
            f"  {item.finding}, {item.name}, {item.precision} on {item.engine}: {item.threshold:.3f}; {reached} there"
        )
    print("reached on the films it was set on, which is no measure of accuracy: evaluate it on others")
    print("not signed: edgecxr sign, then edgecxr install")

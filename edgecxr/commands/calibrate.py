"""``edgecxr calibrate``: thresholds of a site, from its own films whose findings are confirmed."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from edgecxr.commands.choices import check_bundle, check_choices, misuse, writing
from edgecxr.commands.evaluated import Answer, Running, open_evaluated
from edgecxr.commands.labelled import Asked, ask_films, fold_numbers, labelled, warnings_of_seen
from edgecxr.commands.terminal import ExitCode, counted, note, print_json
from edgecxr.errors import DatasetError, EngineError

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.dataset import HeadColumns
    from edgecxr.decision import OperatingRule
    from edgecxr.spec import OperatingPoint

__all__ = ["calibrate"]

LEAST = 10  # films that a rule speaks of: of fewer, no share is worth a threshold
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
    from edgecxr.bundle.recalibrated import write_recalibrated
    from edgecxr.dataset import load_dataset
    from edgecxr.decision import OperatingRule

    opened = Bundle.open(bundle)
    rule = OperatingRule.model_validate({"name": _point(opened, point), **_target(sensitivity, specificity)})
    for name in engine or ():
        check_choices(opened, name, "auto")
    check_bundle(out, bundle)
    model = open_evaluated(bundle, "auto", "auto")
    dataset = load_dataset(data, labels=labels, heads=model.heads)
    wanted = fold_numbers(folds)
    for warning in warnings_of_seen(model, dataset, wanted):
        note(f"warning: {warning}")
    dataset = dataset.select(wanted) if wanted else dataset
    with ExitStack() as stack:
        runnings = _opened(stack, opened, bundle, engine)
        asked, refused = ask_films(runnings, labelled(dataset, model.heads), quiet=as_json)
        points = [
            item
            for index, running in enumerate(runnings)
            for item in _derived(running, index, asked, model.heads, rule)
        ]
    site = {"data_digest": dataset.digest, "films": len(asked), "refused": len(refused), "rule": str(rule)}
    with writing(out):
        written = Bundle.open(write_recalibrated(opened, out, points, site))
    _tell(written, points, (len(asked), refused), as_json=as_json)
    if refused:
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


def _opened(stack: ExitStack, bundle: "Bundle", path: Path, engines: list[str] | None) -> list[Running]:
    """Each precision on each engine; one that does not open here gets no threshold, and is named with its reason."""
    from edgecxr.runtimes.registry import ENGINES

    runnings = []
    for engine in engines or ENGINES:
        for precision in bundle.precisions:
            try:
                runnings.append(stack.enter_context(open_evaluated(path, engine, precision).running()))
            except EngineError as error:
                note(f"{engine} {precision} gets no threshold: {error}")
    if not runnings:
        raise EngineError("no engine opens this bundle here, so nothing can be calibrated; see edgecxr doctor")
    return runnings


def _derived(
    running: Running, index: int, asked: list[Asked], placed: "tuple[HeadColumns, ...]", rule: "OperatingRule"
) -> "list[OperatingPoint]":
    """The threshold of every finding, on the films that are labelled for it and that this model does not refuse."""
    from edgecxr.decision import derive_operating_point
    from edgecxr.scores import class_labels, columns, probabilities

    heads = [item.head for item in placed]
    scores = probabilities(np.stack([row.answers[index].logits for row in asked]), heads, running.temperatures)
    truth = class_labels(heads, {head.name: np.stack([row.targets[head.name] for row in asked]) for head in heads})
    passed = _passed(running, [row.answers[index] for row in asked])
    precision, family = running.described["precision"], running.engine
    found = []
    for head, part in zip(heads, columns(heads), strict=True):
        for name, column in zip(head.classes, range(part.start, part.stop), strict=True):
            if name == head.reference:
                continue
            used = passed & ~np.isnan(truth[:, column])
            own = truth[used, column]
            _check_count(name, own, rule)
            found.append(
                derive_operating_point(
                    name,
                    scores[used, column],
                    own,
                    rule,
                    precision=precision,
                    engine=family,
                    films="films of the site",
                )
            )
    return found


def _passed(running: Running, answers: list[Answer]) -> NDArray[np.bool_]:
    """(N,) films that the model's gate lets through: the others get no decision, so no threshold is for them."""
    embeddings = [answer.embedding for answer in answers if answer.embedding is not None]
    if running.gate is None or not embeddings:
        return np.ones(len(answers), bool)
    return np.asarray(running.gate.distance(np.stack(embeddings)) <= running.gate.threshold)


def _check_count(finding: str, truth: NDArray[np.floating], rule: "OperatingRule") -> None:
    """A share of 98 % of 20 films is all of them: the rule would say nothing."""
    of_sick = rule.sensitivity is not None
    target = rule.sensitivity if rule.sensitivity is not None else rule.specificity or 0.0
    wanted = max(LEAST, math.ceil(round(1 / (1 - target), 6)))
    number = int((truth == (1 if of_sick else 0)).sum())
    other = len(truth) - number
    if number < wanted or other < LEAST:
        kinds = ("positive", "negative") if of_sick else ("negative", "positive")
        raise DatasetError(
            [
                f"{finding}: {number} {kinds[0]} and {other} {kinds[1]} films; {rule} wants at least {wanted} "
                f"{kinds[0]} and {LEAST} {kinds[1]} ones that the bundle does not refuse"
            ]
        )


def _tell(written: "Bundle", points: "list[OperatingPoint]", films: tuple[int, list[Json]], *, as_json: bool) -> None:
    from edgecxr.bundle.recalibrated import SITE

    asked, refused = films
    if as_json:
        rows = [item.model_dump(mode="json") for item in points]
        told = {"bundle": written.source, "digest": written.digest, "points": rows}
        print_json({**told, SITE: written.manifest.provenance[SITE], "refused": refused})
        return
    print(
        f"{written.source}: digest {written.digest[:12]}, set on {counted(asked)}, {len(refused)} refused as unreadable"
    )
    for item in points:
        reached = f"sensitivity {item.sensitivity:.3f}, specificity {item.specificity:.3f}"
        print(
            f"  {item.finding}, {item.name}, {item.precision} on {item.engine}: {item.threshold:.3f}; {reached} there"
        )
    print("reached on the films it was set on, which is no measure of accuracy: evaluate it on others")
    print("not signed: edgecxr sign, then edgecxr install")

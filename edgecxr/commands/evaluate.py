"""``edgecxr evaluate``: every metric of a model on labelled films; of a bundle through the whole screening line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from edgecxr.commands.choices import ENGINE_HELP, PRECISION_HELP, check_page, writing
from edgecxr.commands.evaluated import Evaluated, Running, open_evaluated
from edgecxr.commands.labelled import Asked, ask_films, fold_numbers, labelled, test_folds, warnings_of_seen
from edgecxr.commands.terminal import ExitCode, counted, note, print_json

if TYPE_CHECKING:
    from edgecxr.dataset import Dataset, HeadColumns

__all__ = ["evaluate"]


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of films with labels.csv.", show_default=False)],
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="A bundle, the folder of a trained teacher, or a recipe with --teacher.  [default: the bundle shipped]"
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Which teacher that a recipe brings from elsewhere.", show_default=False)
    ] = None,
    folds: Annotated[
        str,
        typer.Option(help="Folds to evaluate on, such as 4 or 3,4.  [default: all; of its own data the test folds]"),
    ] = "",
    labels: Annotated[str, typer.Option(help="The table in the folder.")] = "labels.csv",
    engine: Annotated[str, typer.Option(help=ENGINE_HELP)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION_HELP)] = "auto",
    at_specificity: Annotated[
        float, typer.Option(min=0, max=1, help="Tell the sensitivity that goes with this specificity.")
    ] = 0.9,
    at_sensitivity: Annotated[
        float, typer.Option(min=0, max=1, help="Tell the specificity that goes with this sensitivity.")
    ] = 0.98,
    html: Annotated[Path | None, typer.Option(help="Write a page with every figure and plot to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure a bundle or a teacher on labelled films, with confidence intervals and plots.

    Ends with 1 when some films were refused.

    Example: `edgecxr evaluate covid3.cxr --data films --folds 4 --html covid3.html`
    """
    from edgecxr.dataset import load_dataset

    wanted = fold_numbers(folds)
    opened = open_evaluated(bundle, engine, precision, teacher)
    if html is not None:
        check_page(html)
    dataset = load_dataset(data, labels=labels, heads=opened.heads)
    wanted = wanted or test_folds(opened, dataset)
    chosen = dataset.select(wanted) if wanted else dataset
    warnings = _warnings(opened, dataset, chosen, wanted)
    for warning in warnings:
        note(f"warning: {warning}")
    dataset = chosen
    with opened.running() as running:
        for warning in running.warnings:
            note(f"warning: {warning}")
        warnings += running.warnings
        answers, refused = ask_films([running], labelled(dataset, opened.heads), quiet=as_json)
        figures = _figures(running, answers, opened.heads, (at_specificity, at_sensitivity))
    if html is not None:
        _write_page(html, opened, running, figures, (counted(len(answers)), warnings))
    if as_json:
        used = sorted({film.fold for film in dataset.films})
        told = {"bundle": opened.digest, "engine": running.engine, "folds": used, "warnings": warnings}
        print_json({**told, "refused": refused, **figures})
    else:
        _print(figures, refused)
    if refused:
        raise typer.Exit(ExitCode.SOME_REFUSED)


def _warnings(model: Evaluated, dataset: "Dataset", chosen: "Dataset", wanted: list[int]) -> list[str]:
    """Why figures on the `chosen` films of `dataset`, those of the folds `wanted`, may be too good."""
    if chosen.digest in model.site_digests:
        return ["a site set the thresholds of the bundle on exactly these films; what they reach here is too good"]
    return warnings_of_seen(model, dataset, wanted, "figures are too good")


def _figures(
    running: Running,
    rows: list[Asked],
    placed: tuple["HeadColumns", ...],
    chosen: tuple[float, float],
) -> dict[str, Any]:
    from edgecxr.export.evaluation import evaluate as measure
    from edgecxr.export.plotted import plotted
    from edgecxr.export.scored import Scored
    from edgecxr.scores import probabilities

    heads = [item.head for item in placed]
    logits = np.stack([row.answers[0].logits for row in rows])
    embeddings = [row.answers[0].embedding for row in rows if row.answers[0].embedding is not None]
    scored = Scored(
        running.name,
        logits,
        probabilities(logits, heads, running.temperatures),
        embeddings=np.stack(embeddings) if embeddings else None,
        points=running.points,
        refusal=running.gate,
    )
    targets = {head.name: np.stack([row.targets[head.name] for row in rows]) for head in heads}
    figures = measure(scored, targets, heads)
    return plotted(figures, scored, targets, heads, specificity=chosen[0], sensitivity=chosen[1])


def _write_page(
    path: Path, opened: Evaluated, running: Running, figures: dict[str, Any], told: tuple[str, list[str]]
) -> None:
    from edgecxr.report import write_report

    films, warnings = told
    with writing(path):
        write_report(
            path,
            title=f"{running.name} on {films}",
            evaluation=figures,
            engines=[running.described],
            manifest=opened.manifest,
            history=opened.history,
            warnings=warnings,
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

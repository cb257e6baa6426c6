"""The model card that travels in a bundle: what it is for, what it must not be used for, what it reached."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgecxr.export.bench import Bench
from edgecxr.export.recipe import Refusal
from edgecxr.report.content import shipped_models

__all__ = ["write_card"]

WARNING = "**Research software. Not a medical device; not for diagnosis.**"


def write_card(bench: Bench, origin: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """Markdown; every figure has its interval."""
    recipe = bench.recipe
    parts = [
        f"# {recipe.name} {recipe.version}\n\n{recipe.description}\n\n{WARNING}",
        f"## What it is for\n\n{recipe.card.intended_use}",
        f"## What it must not be used for\n\n{recipe.card.limits}",
        f"## What it was made from\n\n{recipe.card.data}\n\n{_films(origin)}",
        f"## What it reached on the test films\n\n{_figures(evaluation['models'])}",
        f"At the threshold of each operating point:\n\n{_points(evaluation)}",
        f"## The gate\n\n{_verdicts(evaluation['gate'])}",
        f"## How it refuses\n\n{_refusal(recipe.refusal)}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _refusal(refusal: Refusal) -> str:
    """What `edgecxr.refusal.EmbeddingGate` does, in one sentence."""
    return (
        "A film is refused as not a frontal chest film, and no score is shown for it, where its embedding lies further "
        "from the training films, or looks more like a misfit to a classifier of misfits, than a limit of "
        f"{refusal.slack:g} times what validation films reach, set so that about {refusal.quantile:.1%} of them pass."
    )


def _films(origin: Mapping[str, Any]) -> str:
    rows = [f"| {purpose} | {count} | {_classes(origin, purpose)} |" for purpose, count in origin["films"].items()]
    return "\n".join(["| purpose | films | labels |", "|---|---|---|", *rows])


def _classes(origin: Mapping[str, Any], purpose: str) -> str:
    return "; ".join(
        ", ".join(f"{count} {name}" for name, count in purposes[purpose].items())
        for purposes in origin["labels"].values()
    )


def _figures(models: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"| {model['name']} | {head['name']} | {_interval(head['macro_auroc'])} | {_interval(head['accuracy'])} |"
        for model in models
        for head in model["heads"]
    ]
    return "\n".join(["| model | head | macro AUROC | accuracy |", "|---|---|---|---|", *rows])


def _points(evaluation: Mapping[str, Any]) -> str:
    """Sensitivity and specificity of every packed precision, on each engine."""
    shipped, _ = shipped_models(evaluation["models"], evaluation)
    rows = [
        f"| {model['name']} | {item['name']} | {point['name']} | {_interval(point['sensitivity'])} "
        f"| {_interval(point['specificity'])} |"
        for model in shipped
        for item in model["classes"]
        for point in item["operating_points"]
    ]
    return "\n".join(["| model | finding | point | sensitivity | specificity |", "|---|---|---|---|---|", *rows])


def _interval(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _verdicts(gate: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"- {row['comparison']}: {'passed' if row['passed'] else 'not passed'}, {row['reason']}" for row in gate
    )

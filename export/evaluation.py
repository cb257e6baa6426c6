"""Every figure of one model on held-out films, with its interval, as the JSON of a bundle's `evaluation.json`.

`evaluate(...)` returns (an *interval* is ``{"value", "low", "high", "level"}``, or ``null`` where it cannot be
computed; `problem` then says why, and is ``null`` otherwise):

    name        what was evaluated
    films       N
    level       confidence level of every interval
    bootstrap   {"samples", "seed"}
    heads       [ one per head
      name, kind
      classes       names, in the order of the matrix
      films         labelled films of this head (softmax), or films with any known label (sigmoid)
      problem       why macro_auroc is null, or null
      macro_auroc   interval: mean one-vs-rest AUROC over `macro_classes`; bootstrap, stratified by class (softmax);
                    where no pair is out of order, Wilson of the fewest films that a class or its complement has
      macro_classes classes that had both positive and negative films
      accuracy      interval (Wilson)                      softmax only, else null
      confusion     [[int]], rows truth, columns answer    softmax only, else null
      ece           interval, of the top label             softmax only, else null
      brier         interval, summed over classes, 0 … 2   softmax only, else null
      reliability   [bin] of the top label                 softmax only, else null
    ]
    classes     [ one per class of `logits`, reference class included
      name, head, is_finding, films, positives, problem
      auroc               interval (DeLong, logit scale)
      average_precision   interval (stratified bootstrap); chance level is positives / films
      ece, brier          interval (`statistics.calibration.ece_interval`; bootstrap)
      reliability         [bin]: {"count", "mean_probability", "observed": interval}
      roc                 {"false_positive_rate": [float], "sensitivity": [float]}, at most 200 points, or null
      precision_recall    {"recall": [float], "precision": [float]}, at most 200 points, or null
      operating_points    [{"name", "rule", "threshold", "sensitivity": interval, "specificity": interval,
                            "called_positive": interval}]   Wilson; [] for the reference class
    ]
    refusal     {"films", "refused", "rate": interval} of these (real, frontal) films, or null without a gate

Intervals treat films as independent; films of one patient are not quite, so intervals are slightly too narrow where
patients have several films. Refused films are not taken out of the other figures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.errors import StageError, StatisticsError
from edgecxr.export.scored import Scored
from edgecxr.scores import class_labels, columns, predicted
from edgecxr.spec import Head, OperatingPoint
from edgecxr.statistics.auroc import delong, weighted_auroc
from edgecxr.statistics.bootstrap import paired_bootstrap, weighted_mean
from edgecxr.statistics.calibration import ece_interval
from edgecxr.statistics.curves import confusion, precision_recall, reliability, roc, thin, weighted_average_precision
from edgecxr.statistics.proportion import sensitivity, specificity, wilson

__all__ = ["evaluate"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    samples: int
    seed: int
    level: float

    def __call__(self, statistic: Callable[..., NDArray[np.float64]], *arrays: NDArray[Any], **options: Any) -> Json:
        drawn = paired_bootstrap(statistic, *arrays, samples=self.samples, seed=self.seed, level=self.level, **options)
        return drawn.to_json()


def evaluate(
    scored: Scored,
    targets: Mapping[str, ArrayLike],
    heads: Sequence[Head],
    *,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Json:
    """All figures of `scored` against `targets` (per head name, as `Dataset.targets` gives them); keys as above.

    A class without positive or without negative films gets ``null`` for what needs both, and `problem` says so.
    """
    labels = class_labels(heads, targets)
    if labels.shape != scored.probabilities.shape:
        raise StageError(f"{scored.name}: probabilities {scored.probabilities.shape}, but labels {labels.shape}")
    draw = Resampling(samples, seed, level)
    return {
        "name": scored.name,
        "films": scored.films,
        "level": level,
        "bootstrap": {"samples": samples, "seed": seed},
        "heads": [
            _head(head, scored.probabilities[:, part], labels[:, part], draw)
            for head, part in zip(heads, columns(heads), strict=True)
        ],
        "classes": [
            {"name": name, "head": head.name, "is_finding": name in head.findings}
            | _class(scored, part.start + index, labels, name, draw)
            for head, part in zip(heads, columns(heads), strict=True)
            for index, name in enumerate(head.classes)
        ],
        "refusal": _refusal(scored, level),
    }


def _head(head: Head, scores: NDArray[np.floating], labels: NDArray[np.float32], draw: Resampling) -> Json:
    use = ~np.isnan(labels).all(axis=1)
    said, labels = np.asarray(scores[use], np.float64), labels[use]
    out: Json = {"name": head.name, "kind": head.kind, "classes": list(head.classes), "films": int(use.sum())}
    macro: Json = {"problem": None, "macro_auroc": None, "macro_classes": []}
    both = [i for i in range(len(head.classes)) if (labels[:, i] == 1).any() and (labels[:, i] == 0).any()]
    macro["macro_classes"] = [head.classes[i] for i in both]
    if both:
        strata = labels.argmax(axis=1) if head.kind == "softmax" else None
        macro |= _try("macro_auroc", lambda: _macro(said[:, both], labels[:, both], strata, draw))
    else:
        macro["problem"] = f"no class has both positive and negative films among {int(use.sum())}"
    answer: Json = dict.fromkeys(("accuracy", "confusion", "ece", "brier", "reliability"))
    if head.kind == "softmax" and use.any():
        answer = _answers(head, said, labels, draw)
    return out | macro | answer


def _answers(head: Head, scores: NDArray[np.float64], labels: NDArray[np.float32], draw: Resampling) -> Json:
    truth, answer = labels.argmax(axis=1), predicted(scores, head)
    right, confidence = answer == truth, scores.max(axis=1)
    squares = ((scores - labels) ** 2).sum(axis=1)
    return {
        "accuracy": wilson(int(right.sum()), len(right), level=draw.level).to_json(),
        "confusion": confusion(truth, answer, len(head.classes)).tolist(),
        "ece": _ece(confidence, right, draw),
        "brier": draw(weighted_mean, squares),
        "reliability": _bins(confidence, right),
    }


def _class(scored: Scored, column: int, labels: NDArray[np.float32], name: str, draw: Resampling) -> Json:
    use = ~np.isnan(labels[:, column])
    truth, scores = labels[use, column] == 1, np.asarray(scored.probabilities[use, column], np.float64)
    positives, films = int(truth.sum()), len(truth)
    out: Json = {"films": films, "positives": positives, "problem": None, "roc": None, "precision_recall": None}
    out |= _try("auroc", lambda: delong(truth, scores, level=draw.level).to_json())
    if films == 0:
        return out | dict.fromkeys(("average_precision", "ece", "brier")) | {"reliability": [], "operating_points": []}
    out |= {"ece": _ece(scores, truth, draw), "brier": draw(weighted_mean, (scores - truth) ** 2)}
    out |= {"reliability": _bins(scores, truth), "average_precision": None}
    out["operating_points"] = [
        _operating_point(point, truth, scores, draw.level) for point in scored.points if point.finding == name
    ]
    if 0 < positives < films:
        out["average_precision"] = draw(weighted_average_precision, truth, scores, strata=truth)
        out["roc"] = _curve(("false_positive_rate", "sensitivity"), thin(roc(truth, scores)))
        out["precision_recall"] = _curve(("recall", "precision"), thin(precision_recall(truth, scores)))
    return out


def _operating_point(
    point: OperatingPoint, truth: NDArray[np.bool_], scores: NDArray[np.float64], level: float
) -> Json:
    called = int((scores >= point.threshold).sum())
    return {
        "name": point.name,
        "rule": point.rule,
        "threshold": point.threshold,
        "sensitivity": sensitivity(truth, scores, point.threshold, level=level).to_json() if truth.any() else None,
        "specificity": None if truth.all() else specificity(truth, scores, point.threshold, level=level).to_json(),
        "called_positive": wilson(called, len(truth), level=level).to_json(),
    }


def _macro(
    said: NDArray[np.float64], labels: NDArray[np.float32], strata: NDArray[np.intp] | None, draw: Resampling
) -> Json:
    """Resamples of films that are separated without error all are: that says nothing about the next film."""
    found = draw(_macro_auroc, said, labels, strata=strata)
    if found["value"] != 1:
        return found
    few = int(min((labels == 0).sum(axis=0).min(), (labels == 1).sum(axis=0).min()))
    return wilson(few, few, level=draw.level).to_json()


def _macro_auroc(
    weights: NDArray[np.float64], scores: NDArray[np.float64], labels: NDArray[np.float32]
) -> NDArray[np.float64]:
    areas = [weighted_auroc(labels[:, i], scores[:, i], weights) for i in range(labels.shape[1])]
    return np.asarray(np.mean(areas, axis=0))


def _ece(scores: NDArray[np.float64], truth: NDArray[np.bool_], draw: Resampling) -> Json:
    return ece_interval(scores, truth, samples=draw.samples, seed=draw.seed, level=draw.level).to_json()


def _bins(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> list[Json]:
    return [
        {"count": bin.count, "mean_probability": bin.mean_probability, "observed": bin.observed.to_json()}
        for bin in reliability(scores, truth)
    ]


def _curve(names: tuple[str, str], points: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Json:
    return {name: values.tolist() for name, values in zip(names, points, strict=True)}


def _try(key: str, figure: Callable[[], Json]) -> Json:
    """The figure, or null and the reason why these films do not give it."""
    try:
        return {key: figure()}
    except StatisticsError as error:
        return {key: None, "problem": str(error)}


def _refusal(scored: Scored, level: float) -> Json | None:
    refused = scored.refused
    if refused is None:
        return None
    rate = wilson(int(refused.sum()), scored.films, level=level)
    return {"films": scored.films, "refused": int(refused.sum()), "rate": rate.to_json()}

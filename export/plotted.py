"""What a page of one evaluation draws beyond its figures: score histograms, rates at a chosen rate, and a map.

`plotted(…)` gives the figures of `evaluation.evaluate` with, for each class,

    histogram   {"edges": [21 floats], "counts": {true class, or "positive" and "negative": [20 ints]}}
    chosen      [{"of": "sensitivity" | "specificity", "given": the other, "at", "threshold", "interval"}]

and `maps`: for each head {"head", "classes", "points": [[x, y, index of the class]], "perplexity", "seed", "films"}
where there are embeddings, at most MAPPED of the labelled films.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecxr.errors import StatisticsError
from edgecxr.export.scored import Scored
from edgecxr.scores import class_labels, columns
from edgecxr.spec import Head
from edgecxr.statistics.chosen import ChosenRate, sensitivity_at, specificity_at
from edgecxr.statistics.neighbours import tsne

__all__ = ["MAPPED", "plotted"]

BINS = 20
MAPPED = 2000
SEED = 0

Json = dict[str, Any]


def plotted(
    figures: Json,
    scored: Scored,
    targets: Mapping[str, ArrayLike],
    heads: Sequence[Head],
    *,
    specificity: float,
    sensitivity: float,
) -> Json:
    """`figures` with histograms, the rates at `specificity` and at `sensitivity`, and maps; keys as above."""
    labels = class_labels(heads, targets)
    classes = []
    for head, part in zip(heads, columns(heads), strict=True):
        for column in range(part.start, part.stop):
            scores = np.asarray(scored.probabilities[:, column], np.float64)
            entry = {"histogram": _histogram(head, column - part.start, labels[:, part], scores)}
            known = ~np.isnan(labels[:, column])
            chosen = _chosen(labels[known, column] == 1, scores[known], specificity, sensitivity)
            classes.append({**figures["classes"][column], **entry, "chosen": chosen})
    return {**figures, "classes": classes, "maps": _maps(scored, labels, heads)}


def _histogram(head: Head, column: int, labels: NDArray[np.float32], scores: NDArray[np.float64]) -> Json:
    """Counts of a class's scores, by the true class of the film."""
    edges = np.linspace(0, 1, BINS + 1)
    if head.kind == "softmax":
        groups = {name: labels[:, index] == 1 for index, name in enumerate(head.classes)}
    else:
        groups = {"positive": labels[:, column] == 1, "negative": labels[:, column] == 0}
    counts = {name: np.histogram(scores[films], edges)[0].tolist() for name, films in groups.items()}
    return {"edges": edges.round(6).tolist(), "counts": counts}


def _chosen(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], specificity: float, sensitivity: float
) -> list[Json]:
    """Both rates; none where a class is absent."""
    try:
        pairs = (
            ("sensitivity", "specificity", specificity, sensitivity_at(truth, scores, specificity)),
            ("specificity", "sensitivity", sensitivity, specificity_at(truth, scores, sensitivity)),
        )
    except StatisticsError:
        return []
    return [_rate(*pair) for pair in pairs]


def _rate(of: str, given: str, at: float, rate: ChosenRate) -> Json:
    threshold = rate.threshold if np.isfinite(rate.threshold) else None  # None: nothing may be called positive
    return {"of": of, "given": given, "at": at, "threshold": threshold, "interval": rate.interval.to_json()}


def _maps(scored: Scored, labels: NDArray[np.float32], heads: Sequence[Head]) -> list[Json]:
    if scored.embeddings is None:
        return []
    found = []
    for head, part in zip(heads, columns(heads), strict=True):
        own = labels[:, part]
        films = np.flatnonzero(~np.isnan(own).all(axis=1))
        films = np.sort(np.random.default_rng(SEED).permutation(films)[:MAPPED])
        softmax = head.kind == "softmax"
        shown = own[films].argmax(axis=1) if softmax else (own[films] == 1).any(axis=1).astype(int)
        try:
            places, perplexity = tsne(scored.embeddings[films], seed=SEED)
        except StatisticsError:
            continue
        points = [[round(float(x), 2), round(float(y), 2), int(c)] for (x, y), c in zip(places, shown, strict=True)]
        names = list(head.classes) if softmax else ["no finding", "some finding"]
        told = {"perplexity": round(perplexity, 1), "seed": SEED, "films": len(films)}
        found.append({"head": head.name, "classes": names, "points": points, **told})
    return found

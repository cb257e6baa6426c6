"""The gate (DESIGN 6): is the candidate as good as the reference, finding by finding, on films neither was made from?

Every row is a paired comparison on the same held-out films, against a margin that the recipe states:

    auroc            DeLong's paired interval of the difference
    ece              difference of calibration errors, with what the change of the probabilities allows at most
                     (`statistics.calibration.ece_change`)
    sensitivity      Tango's paired score interval of the difference, each side at its own threshold
    specificity      the same. Not the bootstrap: where no film changes it gives [0, 0] however few the films are
    flip_rate        share of films decided differently, Wilson
    cam_correlation  median over films of the correlation of the two maps, bootstrap; against 1
    cam_pointing     share of films whose maps peak in the same place (within one cell), Wilson; against 1
                     (of maps of 2×2 cells all do, of noise on 3×3 more than half)
    refusal_flips    share of films that one side refuses and the other does not, Wilson

`non_inferior`: the interval excludes a loss beyond the margin. `inferior`: the estimate itself is beyond it.
`inconclusive`: neither, too few films to tell. `not_judged`: fewer than `minimum_films` of a class that is needed.
`told`: the figure alone, where the recipe states no margin for it.
Sensitivity, specificity and flip rate have a row for each operating point, for any of them can be screened with; points
whose thresholds are the same on both sides share one. Rows for maps and refusals are there only where the reference has
them: an ensemble has maps where its teachers do, and no refusal gate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from edgecxr.errors import StageError
from edgecxr.export.scored import Scored
from edgecxr.heatmap import Fidelity, fidelity
from edgecxr.scores import class_labels
from edgecxr.spec import Head, Strict, class_names
from edgecxr.statistics.auroc import auroc, delong_difference
from edgecxr.statistics.bootstrap import paired_bootstrap, weighted_median
from edgecxr.statistics.calibration import ece, ece_change
from edgecxr.statistics.interval import Interval
from edgecxr.statistics.proportion import films_needed, paired_difference, wilson

__all__ = ["GateMargins", "GateReport", "GateRow", "StudentMargins", "compare"]

Verdict = Literal["non_inferior", "inferior", "inconclusive", "not_judged", "told"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Share = Annotated[float, Field(gt=0, lt=1)]


class GateMargins(Strict):
    """The largest losses that are accepted, as absolute differences; part of a recipe."""

    auroc: Annotated[Share, Field(description="loss of AUROC")] = 0.01
    sensitivity: Annotated[Share, Field(description="loss of sensitivity at the shipped threshold")] = 0.02
    specificity: Annotated[Share, Field(description="loss of specificity at the shipped threshold")] = 0.05
    flip_rate: Annotated[Share, Field(description="share of films decided differently")] = 0.05
    ece: Annotated[Share, Field(description="gain of expected calibration error")] = 0.03
    # null: told, not judged
    cam_correlation: Annotated[Share | None, Field(description="smallest median correlation of the heatmaps")] = 0.90
    cam_pointing: Annotated[Share | None, Field(description="smallest share of heatmaps with one peak")] = 0.80
    refusal_flips: Annotated[Share, Field(description="share of films that only one side refuses")] = 0.02
    minimum_films: Annotated[int, Field(ge=2, description="fewest films of a class on which anything is judged")] = 10
    accept_inconclusive: Annotated[
        bool, Field(description="let a candidate pass with rows that the films are too few to decide")
    ] = False


class StudentMargins(GateMargins):
    """The same of a student against its ensemble.

    How alike maps of two networks must be no one can say beforehand: that is told, unless the recipe states a margin.
    """

    cam_correlation: Share | None = None
    cam_pointing: Share | None = None


@dataclass(frozen=True)
class GateRow:
    """One comparison. `difference` is candidate minus reference, in the metric's own units."""

    metric: str
    finding: str  # "" for the film as a whole
    films: int  # on which the row rests: of the class that it needs, or all
    reference: float | None
    candidate: float | None
    difference: Interval | None
    margin: float | None  # the loss that is accepted, > 0; None of what is told and not judged
    verdict: Verdict
    detail: str
    point: str = ""  # names of the operating points that the row is about, joined by " and "; "" for none

    def to_json(self) -> dict[str, Any]:
        """The fields by name; `difference` as ``{"value", "low", "high", "level"}`` or null."""
        return {**self.__dict__, "difference": self.difference.to_json() if self.difference else None}


@dataclass(frozen=True)
class GateReport:
    """All rows of one comparison and what follows from them."""

    comparison: str
    rows: tuple[GateRow, ...]
    passed: bool
    reason: str  # one sentence

    def to_json(self) -> dict[str, Any]:
        """``{"comparison", "passed", "reason", "rows": [...]}``."""
        rows = [row.to_json() for row in self.rows]
        return {"comparison": self.comparison, "passed": self.passed, "reason": self.reason, "rows": rows}


def compare(
    reference: Scored,
    candidate: Scored,
    targets: Mapping[str, ArrayLike],
    heads: Sequence[Head],
    margins: GateMargins | None = None,
    *,
    points: Sequence[str] = ("screening",),
    samples: int = 2000,
    seed: int = 0,
) -> GateReport:
    """Hold `candidate` against `reference` on the same films; `targets` per head name, as `Dataset.targets` gives them.

    `points` names the operating points at which decisions are compared. Raises StageError when the two were not scored
    on the same films and classes, when a finding lacks a threshold of one of these names on either side, or when the
    candidate lacks maps or a refusal gate that the reference has.
    """
    limits = margins or GateMargins()
    labels = class_labels(heads, targets)
    _check(reference, candidate, labels)
    names = class_names(heads)
    maps = None if reference.cam is None or candidate.cam is None else fidelity(reference.cam, candidate.cam)
    rows: list[GateRow] = []
    for head in heads:
        for name in head.findings:
            column = names.index(name)
            judge = _Judge(name, limits, samples, seed)
            a, b = (np.asarray(side.probabilities[:, column], np.float64) for side in (reference, candidate))
            rows += judge.scores(labels[:, column], a, b)
            for point, (here, there) in _thresholds(reference, candidate, name, points).items():
                rows += judge.decisions(point, labels[:, column], a >= here, b >= there)
            rows += judge.maps(maps, column)
    rows += _refusals(reference, candidate, limits)
    passed, reason = _conclude(rows, limits)
    return GateReport(f"{candidate.name} against {reference.name}", tuple(rows), passed, reason)


def _thresholds(
    reference: Scored, candidate: Scored, finding: str, points: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """The two sides' thresholds by operating point; points that decide every film alike under one joined name."""
    named: dict[tuple[float, float], list[str]] = {}
    for point in points:
        named.setdefault((reference.threshold(finding, point), candidate.threshold(finding, point)), []).append(point)
    return {" and ".join(names): pair for pair, names in named.items()}


@dataclass(frozen=True)
class _Judge:
    """Makes the rows of one finding."""

    finding: str
    margins: GateMargins
    samples: int
    seed: int

    def scores(self, labels: NDArray[np.float32], a: NDArray[np.float64], b: NDArray[np.float64]) -> Iterator[GateRow]:
        """Rows on scores (N,), which no threshold touches; `labels` (N,) in {0, 1, NaN}."""
        known = ~np.isnan(labels)
        truth = labels[known] == 1
        yield self._auroc(truth, a[known], b[known])
        yield self._ece(truth, a[known], b[known])

    def decisions(
        self, point: str, labels: NDArray[np.float32], a: NDArray[np.bool_], b: NDArray[np.bool_]
    ) -> Iterator[GateRow]:
        """Rows on the decisions (N,) at one operating point; `labels` as above."""
        positive, negative = labels == 1, labels == 0
        yield replace(self._share("sensitivity", "positive", a[positive], b[positive]), point=point)
        yield replace(self._share("specificity", "negative", ~a[negative], ~b[negative]), point=point)
        yield replace(_agreement("flip_rate", self.finding, a != b, self.margins), point=point)

    def maps(self, maps: Fidelity | None, column: int) -> Iterator[GateRow]:
        """Rows on heatmaps; none where the reference has no maps."""
        if maps is None:
            return
        use = maps.judged[:, column]
        films = int(use.sum())
        wanted = {metric: getattr(self.margins, metric) for metric in ("cam_correlation", "cam_pointing")}
        margins = {metric: None if least is None else round(1 - least, 9) for metric, least in wanted.items()}
        if films < self.margins.minimum_films:
            asked = [(metric, margin) for metric, margin in margins.items() if margin is not None]
            yield from (self._unjudged(*pair, f"{films} films with a map") for pair in asked[:1])
            return
        median = paired_bootstrap(weighted_median, maps.correlation[use, column], samples=self.samples, seed=self.seed)
        pointing = wilson(int(maps.pointing[use, column].sum()), films)
        for metric, share in (("cam_correlation", median), ("cam_pointing", pointing)):
            loss = Interval(share.value - 1, share.low - 1, share.high - 1, share.level)
            margin = margins[metric]
            verdict = "told" if margin is None else _verdict(loss.value, loss.low, margin)
            yield GateRow(metric, self.finding, films, 1.0, share.value, loss, margin, verdict, f"on {films} films")

    def _auroc(self, truth: NDArray[np.bool_], a: NDArray[np.float64], b: NDArray[np.float64]) -> GateRow:
        positives, negatives = int(truth.sum()), int((~truth).sum())
        counts, margin = f"{positives} positive and {negatives} negative films", self.margins.auroc
        if min(positives, negatives) < self.margins.minimum_films:
            return self._unjudged("auroc", margin, counts)
        found = delong_difference(truth, a, b)
        verdict = _verdict(found.interval.value, found.interval.low, margin)
        detail, areas = f"on {counts}; p = {found.p_value:.3g}", (auroc(truth, a), auroc(truth, b))
        if verdict == "inconclusive" and areas == (1, 1):
            detail += f"; without any error {margin:g} can be shown from {films_needed(margin)} of each on"
        return GateRow("auroc", self.finding, len(truth), *areas, found.interval, margin, verdict, detail)

    def _share(self, metric: str, kind: str, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> GateRow:
        margin, films = getattr(self.margins, metric), len(a)
        if films < self.margins.minimum_films:
            return self._unjudged(metric, margin, f"{films} {kind} films")
        found = paired_difference(a, b)
        verdict = _verdict(found.value, found.low, margin)
        detail = f"{int((a & ~b).sum())} of {films} {kind} films lost, {int((b & ~a).sum())} gained"
        if verdict == "inconclusive":
            detail += f"; {margin:g} can be shown from {films_needed(margin)} {kind} films on, if none changes"
        shares = float(a.mean()), float(b.mean())
        return GateRow(metric, self.finding, films, *shares, found, margin, verdict, detail)

    def _ece(self, truth: NDArray[np.bool_], a: NDArray[np.float64], b: NDArray[np.float64]) -> GateRow:
        margin, films = self.margins.ece, len(truth)
        if films < self.margins.minimum_films:
            return self._unjudged("ece", margin, f"{films} labelled films")
        found = ece_change(a, b, truth, samples=self.samples, seed=self.seed)
        verdict = _verdict(-found.value, -found.high, margin)
        errors = ece(a, truth), ece(b, truth)
        detail = f"on {films} films, whose probabilities differ by {np.abs(b - a).mean():.3g} in the mean"
        return GateRow("ece", self.finding, films, *errors, found, margin, verdict, detail)

    def _unjudged(self, metric: str, margin: float, counts: str) -> GateRow:
        detail = f"not judged: {counts}, of which at least {self.margins.minimum_films} are needed"
        return GateRow(metric, self.finding, 0, None, None, None, margin, "not_judged", detail)


def _verdict(gain: float, worst: float, margin: float) -> Verdict:
    """From the estimated gain (negative: a loss) and its lower confidence limit."""
    slack = 1e-12
    if gain < -margin - slack:
        return "inferior"
    return "non_inferior" if worst >= -margin - slack else "inconclusive"


def _agreement(metric: str, finding: str, differs: NDArray[np.bool_], margins: GateMargins) -> GateRow:
    """The share of films on which the two sides differ, against the margin of that name."""
    margin, films = getattr(margins, metric), len(differs)
    rate = wilson(int(differs.sum()), films)
    verdict = _verdict(-rate.value, -rate.high, margin)
    detail = f"{int(differs.sum())} of {films} films differ"
    return GateRow(metric, finding, films, 0.0, rate.value, rate, margin, verdict, detail)


def _refusals(reference: Scored, candidate: Scored, margins: GateMargins) -> Iterator[GateRow]:
    if reference.refused is not None and candidate.refused is not None:
        yield _agreement("refusal_flips", "", reference.refused != candidate.refused, margins)


def _check(reference: Scored, candidate: Scored, labels: NDArray[np.float32]) -> None:
    shapes = [reference.probabilities.shape, candidate.probabilities.shape, labels.shape]
    if len(set(shapes)) != 1 or reference.films == 0:
        raise StageError(
            f"{reference.name} scored {shapes[0]}, {candidate.name} {shapes[1]}, the labels are {shapes[2]}: "
            "the gate wants the same films and classes, at least one film"
        )
    for what in ("cam", "refusal"):
        if getattr(reference, what) is not None and getattr(candidate, what) is None:
            raise StageError(f"{reference.name} has {what} and {candidate.name} has none: nothing to compare it with")


def _conclude(rows: Sequence[GateRow], margins: GateMargins) -> tuple[bool, str]:
    found: dict[Verdict, list[GateRow]] = {verdict: [] for verdict in VERDICTS}
    for row in rows:
        found[row.verdict].append(row)
    open_rows = _named(found["inconclusive"] + found["not_judged"])
    if found["inferior"]:
        return False, f"inferior beyond the margin: {_named(found['inferior'])}"
    if not found["non_inferior"]:
        return False, "nothing could be shown on these films: every row is inconclusive or not judged"
    if open_rows and not margins.accept_inconclusive:
        advice = "add films, or set accept_inconclusive: true in the recipe"
        return False, f"too few films to tell: {open_rows} ({advice})"
    if open_rows:
        return True, f"within the margins where the films can tell; accepted undecided: {open_rows}"
    return True, "within every margin"


def _named(rows: Sequence[GateRow]) -> str:
    """Rows as a list in words, each metric of a finding once, with its operating points."""
    points: dict[str, list[str]] = {}
    for row in rows:
        points.setdefault(f"{row.metric} {row.finding}".strip(), []).extend([row.point] if row.point else [])
    return ", ".join(f"{name} at {' and '.join(at)}" if at else name for name, at in points.items())

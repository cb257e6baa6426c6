"""A judge: one engine with what its decisions need, and no other engine's: gate, thresholds, names in the result."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from edgecxr.bundle import Bundle
from edgecxr.decision import FindingResult, decide
from edgecxr.errors import EngineError, Refusal
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.engine import Engine, Output, check_size
from edgecxr.runtimes.lending import Watch
from edgecxr.runtimes.screening import Screening
from edgecxr.scores import probabilities

__all__ = ["Judge", "Milliseconds"]

Milliseconds = dict[str, float | None]


class Opinion(NamedTuple):
    """What one engine says of one film; without output where preprocessing refused it."""

    screening: Screening
    findings: tuple[FindingResult, ...]  # also of a film that the gate refuses
    distance: float | None  # of the gate; None where it is refused
    output: Output | None


class Judge:
    """Radiograph in, decision or refusal out, by one engine at one operating point."""

    def __init__(self, bundle: Bundle, engine: Engine, point: str) -> None:
        """An engine that borrows thresholds brings the `reference` that they belong to."""
        self.engine = engine
        self._spec, self._point = bundle.spec, point
        self._gate = bundle.gate(engine.precision)
        self._origin: dict[str, Any] = {
            "engine": engine.family,
            "precision": engine.precision,
            "kernel": engine.kernel,
            "bundle": bundle.digest,
        }
        reference = engine.reference
        self._lender = None if reference is None else Judge(bundle, reference, point)
        self._family = engine.family if reference is None else reference.family  # that the thresholds belong to
        self._watch = Watch(engine.family, self._family)

    def screen(self, film: Radiograph, file: str, spent: Milliseconds) -> Screening:
        """`spent` holds the stages so far, in ms. Raises EngineError, KernelError: there is no result."""
        ours = self._opinion(film, file, spent)
        if self._lender is None:
            return ours.screening
        if not self._watch.asks(ours.findings, ours.distance):
            return replace(ours.screening, notes=(*ours.screening.notes, self._watch.note))
        theirs = self._lender._opinion(film, file, spent)
        try:
            self._watch.compare((ours.output, ours.findings), (theirs.output, theirs.findings))
        except EngineError:
            self.engine.close()  # for good, also where nothing takes over
            raise
        return theirs.screening

    def _opinion(self, film: Radiograph, file: str, spent: Milliseconds) -> Opinion:
        try:
            check_size(film, self._spec.preprocess)
            output = self.engine.run([film])[0]
        except Refusal as error:
            return Opinion(self.refused(file, error, spent, film.notes), (), None, None)
        spent = {**spent, "preprocess": output.preprocess_ms, "infer": output.infer_ms}
        findings = self._findings(output)
        try:
            distance = self._gate.check(output.embedding)
        except Refusal as error:
            return Opinion(self.refused(file, error, spent, film.notes), findings, None, output)
        decided = Screening(
            file, "ok", **self._origin, findings=findings, milliseconds=spent, cam=output.cam, notes=film.notes
        )
        return Opinion(decided, findings, distance, output)

    def _findings(self, output: Output) -> tuple[FindingResult, ...]:
        precision = self.engine.precision
        scores = probabilities(output.logits[np.newaxis], self._spec.heads, self._spec.temperatures[precision])[0]
        return decide(self._spec, scores, precision, self._family, point=self._point)

    def refused(self, file: str, error: Refusal, spent: Milliseconds, notes: tuple[str, ...] = ()) -> Screening:
        """The record of a film that cannot be judged."""
        return Screening(
            file,
            "refused",
            **self._origin,
            reason=error.reason,
            detail=error.detail,
            milliseconds=spent,
            notes=notes,
        )

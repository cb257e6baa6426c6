"""A judge: one engine with what its decisions need, and no other engine's: gate, thresholds, names in the result."""

from typing import Any

import numpy as np

from edgecxr.bundle import Bundle
from edgecxr.decision import FindingResult, decide
from edgecxr.errors import Refusal
from edgecxr.radiograph import Radiograph
from edgecxr.runtimes.engine import Engine, Output
from edgecxr.runtimes.lending import Watch
from edgecxr.runtimes.screening import Screening
from edgecxr.scores import probabilities

__all__ = ["Judge", "Milliseconds"]

Milliseconds = dict[str, float | None]


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
        spent = dict(spent)
        try:
            output = self.engine.run([film])[0]
            spent.update(preprocess=output.preprocess_ms, infer=output.infer_ms)
            self._gate.check(output.embedding)
        except Refusal as error:
            return self.refused(file, error, spent, film.notes)
        findings, notes = self._findings(output), film.notes
        if self._lender is not None:
            if self._watch.asks(findings):
                theirs = self._lender.screen(film, file, spent)
                if theirs.status == "ok":
                    self._watch.compare(findings, theirs.findings)
                return theirs
            notes = (*notes, self._watch.note)
        return Screening(file, "ok", **self._origin, findings=findings, milliseconds=spent, cam=output.cam, notes=notes)

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

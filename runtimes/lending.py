"""Thresholds for an engine that a bundle holds none for: those of a reference engine, where they cannot mislead.

A threshold belongs to one precision on one engine family, because another engine gives slightly other scores. A build
on a machine without a GPU derives none for a GPU. There an FP16 or FP32 engine may borrow those of a CPU engine in the
same precision, the reference, under four conditions that are checked here, on this machine:

1. on every golden film it agrees with the stored scores within AGREED;
2. a film with a score within NEAR of a threshold, and one that the refusal gate refuses or nearly does, is decided by
   the reference itself;
3. so is each of the first WATCHED films and every WATCHED-th after them; wherever both have looked at a film they must
   agree, scores within AGREED and embeddings as on the golden set; an engine that does not is closed;
4. the result says whose thresholds they are.

While two engines differ by less than NEAR in a score and by less than NEAR_GATE in the gate's distance, every decision
and every refusal is therefore the one that the reference would have made.
INT8 is left out: libraries round it differently (OpenVINO and ONNX Runtime differ by up to 0.005, in FP16 by 2e-7).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from edgecxr.bundle import Bundle
from edgecxr.decision import FindingResult
from edgecxr.errors import EngineError
from edgecxr.runtimes.engine import Engine, Output, gathered
from edgecxr.runtimes.proof import LEAST_AGREEMENT, cosine, prove
from edgecxr.spec import ModelSpec, Precision

__all__ = [
    "AGREED",
    "NEAR",
    "NEAR_GATE",
    "WATCHED",
    "Watch",
    "check_agreement",
    "lenders",
    "missing_thresholds",
    "prove_in_use",
]

AGREED = 0.01  # largest difference of a calibrated probability on a film that both engines saw
NEAR = 0.02  # this close to a threshold the reference decides; twice what is tolerated
NEAR_GATE = 0.1  # so does it where the distance of a film is above 1 less this, in units of the gate's limit
WATCHED = 32
BORROWED: tuple[Precision, ...] = ("fp16", "fp32")


def missing_thresholds(spec: ModelSpec, precision: Precision, family: str, point: str | None) -> str:
    """Why nothing can be decided with an engine at an operating point; empty where it can, or `point` is None."""
    if point is None:
        return ""
    decided = {
        p.finding for p in spec.operating_points if (p.name, p.precision, p.engine) == (point, precision, family)
    }
    missing = [finding for finding in spec.findings if finding not in decided]
    if not missing:
        return ""
    return (
        f"no {point!r} threshold of {', '.join(missing)} for {precision} on {family}; "
        "thresholds hold for one precision on one engine: choose another, or build again with this point"
    )


def lenders(
    spec: ModelSpec, engine: type[Engine], precision: Precision, point: str | None, references: Sequence[type[Engine]]
) -> tuple[type[Engine], ...]:
    """Of `references`, those whose thresholds an engine may borrow; () where it has its own, or `point` is None.

    Raises EngineError with the reason where it has none of its own and there is none to borrow.
    """
    reason = missing_thresholds(spec, precision, engine.family, point)
    if not reason:
        return ()
    if engine.borrows and precision not in BORROWED:
        raise EngineError(f"{reason}. Libraries round {precision} differently, so none are borrowed; take fp16 or fp32")
    able = [item for item in references if not missing_thresholds(spec, precision, item.family, point)]
    if not engine.borrows or not able:
        raise EngineError(reason)
    return tuple(able)


def check_agreement(bundle: Bundle, engine: Engine) -> None:
    """Condition 1, with whatever preprocesses for this engine. Raises EngineError."""
    films = bundle.golden().frames
    name = f"{engine.family} (to borrow thresholds)"
    prove(name, bundle, engine.precision, lambda _: gathered(engine.run(films)), tolerance=AGREED)


def prove_in_use(bundle: Bundle, engine: Engine) -> None:
    """An engine as it decides: with the reference whose thresholds it borrows, and condition 1. Raises EngineError."""
    engine.prove(bundle)
    if engine.reference is not None:
        check_agreement(bundle, engine)
        engine.reference.prove(bundle)


class Watch:
    """Conditions 2 and 3 for one engine, film after film. Any thread."""

    def __init__(self, borrower: str, reference: str) -> None:
        """Families, for messages."""
        self._names = borrower, reference
        self._films = itertools.count()

    def asks(self, findings: Sequence[FindingResult], distance: float | None) -> bool:
        """Whether the reference has to decide this film; `distance` of the gate, None where it is refused."""
        number = next(self._films)
        watched = number < WATCHED or number % WATCHED == 0
        doubtful = distance is None or not distance <= 1 - NEAR_GATE
        return watched or doubtful or any(abs(item.probability - item.threshold) <= NEAR for item in findings)

    def compare(
        self,
        borrower: tuple[Output | None, Sequence[FindingResult]],
        reference: tuple[Output | None, Sequence[FindingResult]],
    ) -> None:
        """What both said of one film; no output where preprocessing refused it. Raises EngineError where they differ
        by more than condition 3 allows."""
        (ours, our_findings), (theirs, their_findings) = borrower, reference
        if (ours is None) != (theirs is None):
            names = self._names if ours is None else self._names[::-1]
            raise self._unequal(
                f"one film is refused before the network on {names[0]} and not on {names[1]}", "the same"
            )
        if ours is None or theirs is None:
            return
        for one, other in zip(our_findings, their_findings, strict=True):
            if not abs(one.probability - other.probability) <= AGREED:
                raise self._unequal(
                    f"{one.name} of one film is {one.probability:.4f} on {self._names[0]} and "
                    f"{other.probability:.4f} on {self._names[1]}",
                    f"within {AGREED:g}",
                )
        alike = float(cosine(theirs.embedding[np.newaxis], ours.embedding[np.newaxis])[0])
        if not alike >= LEAST_AGREEMENT:
            raise self._unequal(
                f"embeddings of one film on {self._names[0]} and on {self._names[1]} agree {alike:.4f}",
                f"{LEAST_AGREEMENT:g}",
            )

    def _unequal(self, what: str, wanted: str) -> EngineError:
        return EngineError(
            f"{what}; {self._names[0]} borrows the thresholds of {self._names[1]}; wanted {wanted}: "
            f"{self._names[0]} is not used any more"
        )

    @property
    def note(self) -> str:
        """Condition 4."""
        return f"thresholds are those of {self._names[1]}; no score is within {NEAR:g} of one"

"""The build: films, teachers, fusion, student, precisions, gate, bundle; each a cached stage (docs/recipe.md)."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import StageError
from edgecxr.export.bench import Bench
from edgecxr.export.curves import draw_curves
from edgecxr.export.films import gather_films
from edgecxr.export.finetuning import make_qat
from edgecxr.export.fusion import fuse_members
from edgecxr.export.judgement import Verdict, judge_precision, judge_student, score_ensemble
from edgecxr.export.members import check_files
from edgecxr.export.networks import check_networks
from edgecxr.export.outputs import Artefact
from edgecxr.export.pack import pack, verify
from edgecxr.export.precisions import make_fp16, make_int8
from edgecxr.export.provenance import provenance
from edgecxr.export.recipe import Recipe
from edgecxr.export.record import evaluation_record
from edgecxr.export.scoring import Fitted, fit_artefact
from edgecxr.export.stages import Outcome, Workshop, sole_user
from edgecxr.export.students import choose_student
from edgecxr.spec import Precision
from edgecxr.teachers.progress import Progress, Silent, bar

__all__ = ["Build", "Built", "Candidate"]


@dataclass(frozen=True)
class Candidate:
    """A precision that may be packed, and what the gate says of it."""

    fitted: Fitted
    verdict: Verdict


@dataclass(frozen=True)
class Built:
    """A finished build."""

    path: Path
    student: str
    candidates: tuple[Candidate, ...]
    stages: tuple[Outcome, ...]
    verified: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "bundle": str(self.path),
            "bytes": self.path.stat().st_size,
            "student": self.student,
            "candidates": [
                {"name": item.fitted.artefact.name, "packed": item.verdict.passed, "reason": item.verdict.reason}
                for item in self.candidates
            ],
            "stages": [{"name": item.name, "how": item.how, "seconds": round(item.seconds, 1)} for item in self.stages],
            "verified": list(self.verified),
        }

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.path}: {self.path.stat().st_size / 1e6:.2f} MB, student {self.student}"]
        for item in self.candidates:
            outcome = "packed" if item.verdict.passed else "LEFT OUT"
            lines.append(f"  {item.fitted.artefact.name}: {outcome}; {item.verdict.reason}")
        return "\n".join([*lines, *(f"  {line}" for line in self.verified)])


class Build:
    """One build of one recipe below a work folder; `tell` gets a line per stage, `silent` hides progress bars."""

    def __init__(
        self, recipe: Recipe, source: Path, work: Path, *, tell: Callable[[str], None] = print, silent: bool = False
    ) -> None:
        self.recipe, self.source, self.tell = recipe, source, tell
        self.silent = silent or not sys.stderr.isatty()
        self.folder = work / recipe.name

    def run(self, out: Path | None = None) -> Built:
        """Every stage that is not cached, then the bundle at `out` (default: in the work folder).

        Raises:
            DatasetError: films or labels are wrong; nothing was trained.
            StageError: a stage failed, or nothing passes the gate.
        """
        with sole_user(self.folder):
            return self._run(out)

    def _run(self, out: Path | None) -> Built:
        target = out or self.folder / f"{self.recipe.name}.cxr"
        _check_target(target)
        check_files(self.recipe, self.source.parent)
        self.tell(self.recipe.data.told)
        workshop = Workshop(self.folder, lambda outcome: self.tell(str(outcome)))
        films = gather_films(self.recipe, workshop)
        check_networks(self.recipe, self.source.parent)
        bench = Bench(self.recipe, workshop, films, self.source.parent, self._watch)
        fused = fuse_members(bench)
        draw_curves(bench)
        architecture, fp32 = choose_student(bench, fused)
        ensemble, reference = score_ensemble(bench, fused), fit_artefact(bench, fp32)
        student = judge_student(bench, ensemble, reference)
        if not student.passed:
            raise StageError(
                f"the student fell behind the ensemble: {student.reason}; distill it longer, or widen student_gate"
            )
        candidates = self._candidates(bench, reference, fused)
        record = evaluation_record(bench, ensemble, reference, student, candidates)
        packed = {item.fitted.artefact.precision: item.fitted for item in candidates if item.verdict.passed}
        if not packed:
            reasons = "; ".join(f"{item.fitted.artefact.name}: {item.verdict.reason}" for item in candidates)
            raise StageError(f"no precision passes the gate, so nothing is packed: {reasons}")
        origin = provenance(bench, self.source.read_text(encoding="utf-8")) | {"student": architecture}
        with _replacing(target) as place:
            pack(bench, place, (reference, packed), record, origin)
            verified = tuple(verify(place))
        return Built(target, architecture, candidates, tuple(workshop.outcomes.values()), verified)

    def _candidates(self, bench: Bench, reference: Fitted, fused: NDArray[np.float32]) -> tuple[Candidate, ...]:
        """Each precision of the recipe with its verdict; after an INT8 that failed, the one that was trained for it."""
        found: list[Candidate] = []
        plan = bench.recipe.quantize
        for precision in plan.precisions:
            if precision != "int8" or plan.qat != "always":
                found.append(self._judged(bench, reference, self._made(bench, precision, reference.artefact)))
            if precision == "int8" and (plan.qat == "always" or (plan.qat == "auto" and not found[-1].verdict.passed)):
                found.append(self._judged(bench, reference, make_qat(bench, reference.artefact, fused)))
        return tuple(found)

    def _made(self, bench: Bench, precision: Precision, fp32: Artefact) -> Artefact:
        if precision == "fp32":
            return fp32
        return make_fp16(bench, fp32) if precision == "fp16" else make_int8(bench, fp32)

    def _judged(self, bench: Bench, reference: Fitted, artefact: Artefact) -> Candidate:
        fitted = reference if artefact.precision == "fp32" else fit_artefact(bench, artefact)
        verdict = judge_precision(bench, reference, fitted)
        self.tell(f"gate {artefact.name}: {'passed' if verdict.passed else 'not passed'}; {verdict.reason}")
        return Candidate(fitted, verdict)

    def _watch(self, title: str) -> AbstractContextManager[Progress]:
        return nullcontext(Silent()) if self.silent else bar(title)


def _check_target(path: Path) -> None:
    """Raises StageError when no bundle could be written at `path` in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StageError(f"cannot write a bundle in {path.parent}: {error.strerror}; choose another --out") from error
    if path.is_dir():
        raise StageError(f"{path} is a folder; --out wants the name of a file, such as {path / 'model.cxr'}")
    if path.exists() and not path.is_file():
        raise StageError(f"{path} is no file but a device, a pipe or a socket; --out wants the name of a file")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`, of which the file takes the place of `path` when all went well and is gone otherwise."""
    path = Path(os.path.realpath(path))  # a link stays
    place = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield place
        os.replace(place, path)
    except OSError as error:
        raise StageError(f"{path}: cannot be written: {error.strerror or error}; make room, and build again") from error
    finally:
        place.unlink(missing_ok=True)

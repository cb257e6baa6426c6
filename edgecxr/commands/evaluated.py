"""What `edgecxr evaluate` measures: a bundle on an engine, a teacher that was trained here, or one from elsewhere."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from edgecxr.commands.choices import check_choices, misuse
from edgecxr.commands.terminal import require_train
from edgecxr.errors import EngineError
from edgecxr.teachers.names import HISTORY, RECIPES, RECORD

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle, Manifest
    from edgecxr.dataset import HeadColumns
    from edgecxr.radiograph import Radiograph
    from edgecxr.refusal import EmbeddingGate
    from edgecxr.runtimes.engine import Engine
    from edgecxr.spec import OperatingPoint, PreprocessSpec

__all__ = ["Answer", "Evaluated", "Running", "open_evaluated"]


FOREIGN = "as the recipe opens it"  # the engine of a teacher from elsewhere


class Answer(NamedTuple):
    """What is said of one film."""

    logits: NDArray[np.floating]  # (C,)
    embedding: NDArray[np.floating] | None  # (D,); None of a teacher from elsewhere


@dataclass(frozen=True)
class Running:
    """An opened model; `ask` raises Refusal for a film that the chain does not define."""

    name: str
    engine: str
    ask: "Callable[[Radiograph], Answer]"
    temperatures: tuple[float, ...]
    points: "tuple[OperatingPoint, ...]"
    gate: "EmbeddingGate | None"
    reduced_for: "PreprocessSpec | None"  # what `read_radiograph` may decode JPEG 2000 for
    described: Mapping[str, Any]
    warnings: tuple[str, ...] = ()  # sentences without a full stop


class Evaluated(ABC):
    """A model before it is opened: what is known of it without running it."""

    digest: str
    heads: "tuple[HeadColumns, ...]"
    kind: str  # "bundle" or "teacher", for people
    data_digest: str = ""  # of the films that it was built from, where it says so
    folds: Mapping[str, Sequence[int]] = {}  # what they served to: train, validate, test
    site_digests: frozenset[str] = frozenset()  # of films on which a site set its thresholds
    manifest: "Manifest | None" = None  # None for a teacher
    history: Mapping[str, Sequence[Mapping[str, float]]] = {}  # records of its training by name, where they are there

    @abstractmethod
    def running(self) -> AbstractContextManager[Running]:
        """The model, open."""


class EvaluatedBundle(Evaluated):
    """A bundle, on one engine at one precision."""

    kind = "bundle"

    def __init__(self, bundle: "Bundle", engine: str, precision: str) -> None:
        from edgecxr.bundle.recalibrated import site_of

        self._bundle = bundle
        self._choice = (engine, precision)
        check_choices(self._bundle, engine, precision)
        self.digest, self.manifest = self._bundle.digest, self._bundle.manifest
        provenance = self._bundle.manifest.provenance
        self.data_digest = str(provenance.get("data_digest", ""))
        self.folds = _folds(str(provenance.get("recipe_text", "")))
        self.site_digests = frozenset(str(told.get("data_digest")) for told in site_of(provenance).values())
        self.heads = _placed(self._bundle.spec.heads, provenance.get("columns", {}))

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The bundle on its engine."""
        from edgecxr.runtimes.engine import check_size

        spec = self._bundle.spec
        opened, warnings = self._open()
        with opened as engine:
            precision, family = engine.precision, engine.family

            def ask(film: "Radiograph") -> Answer:
                check_size(film, spec.preprocess)
                output = engine.run([film])[0]
                return Answer(output.logits, output.embedding)

            yield Running(
                f"{spec.name} {precision} {family}",
                family,
                ask,
                spec.temperatures[precision],
                tuple(p for p in spec.operating_points if (p.precision, p.engine) == (precision, family)),
                self._bundle.gate(precision),
                spec.reduced_for,
                engine.describe(),
                warnings,
            )

    def _open(self) -> tuple["Engine", tuple[str, ...]]:
        """What `screen` opens, so that its figures are told: `auto` passes over an engine that has no thresholds.

        Where nothing here has thresholds, an engine is measured all the same, and a warning says so.
        """
        from edgecxr.runtimes.registry import open_engine

        points = self._bundle.spec.operating_points
        if not points or "auto" not in self._choice:
            return open_engine(self._bundle, *self._choice, point=None), ()
        try:
            return open_engine(self._bundle, *self._choice, point=points[0].name), ()
        except EngineError:
            engine = open_engine(self._bundle, *self._choice, point=None)
        told = f"no engine here can decide at {points[0].name!r}, so screen has none; figures are of"
        return engine, (f"{told} {engine.family} {engine.precision}",)


class EvaluatedTeacher(Evaluated):
    """A network that was trained here, as it is: no temperature, no operating point, no refusal."""

    kind = "teacher"

    def __init__(self, folder: Path) -> None:
        from edgecxr.teachers.teacher import open_member

        self._teacher = open_member(folder)
        self.digest = self._teacher.member.weights_sha256
        self.data_digest, self.folds = self._teacher.member.data_digest, self._teacher.member.folds
        self.heads = _placed(self._teacher.heads, self._teacher.member.columns)
        if (folder / HISTORY).is_file():
            self.history = {self._teacher.name: json.loads((folder / HISTORY).read_text(encoding="utf-8"))}

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The network in PyTorch, on a GPU where there is one."""
        from edgecxr.kernels import preprocess
        from edgecxr.teachers.features import FeatureTap

        teacher = self._teacher
        with FeatureTap(teacher.module) as tap:

            def ask(film: "Radiograph") -> Answer:
                logits = teacher.logits(preprocess([film], teacher.preprocess))[0]
                return Answer(logits, tap.take().mean(axis=0))

            told = {"engine": "pytorch", "architecture": teacher.member.architecture, "weights": self.digest}
            yield Running(
                f"{teacher.name} pytorch",
                "pytorch",
                ask,
                (1.0,) * len(self.heads),
                (),
                None,
                teacher.member.reading.reduced_for(teacher.preprocess),
                told,
            )


class EvaluatedForeign(Evaluated):
    """A teacher that a recipe brings from elsewhere: its logits are all that is known of it."""

    kind = "teacher"

    def __init__(self, recipe_file: Path, name: str | None) -> None:
        from edgecxr.commands.subjects import open_foreign

        self._teacher, self.digest, self._recipe = open_foreign(recipe_file, name)
        self.heads = tuple(item for item in self._recipe.heads if item.head in self._teacher.heads)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The network, as the recipe opens it."""
        from edgecxr.kernels import preprocess

        teacher = self._teacher

        def ask(film: "Radiograph") -> Answer:
            return Answer(teacher.logits(preprocess([film], teacher.preprocess))[0], None)

        yield Running(
            f"{teacher.name} from elsewhere",
            FOREIGN,
            ask,
            (1.0,) * len(self.heads),
            (),
            None,
            self._recipe.reading.reduced_for(teacher.preprocess),
            {"engine": FOREIGN, "files": ", ".join(teacher.source.files), "digest": self.digest},
        )


def open_evaluated(path: Path | None, engine: str, precision: str, teacher: str | None = None) -> Evaluated:
    """The model in `path`: a bundle (the one shipped where None), a folder with teacher.json, a recipe's `teacher`."""
    from edgecxr.bundle import Bundle, default_bundle_path

    of_recipe = path is not None and path.suffix in RECIPES
    if teacher is not None and not of_recipe:
        misuse(f"--teacher {teacher} chooses from a recipe, and {path or 'the shipped bundle'} is none")
    if path is None or not (path.is_dir() or of_recipe):
        return EvaluatedBundle(Bundle.open(path or default_bundle_path()), engine, precision)
    if path.is_dir() and not (path / RECORD).is_file():
        misuse(f"{path} has no {RECORD}; give a bundle (.cxr), or the folder in which a build trained a teacher")
    if (engine, precision) != ("auto", "auto"):
        misuse("--engine and --precision are for bundles; a teacher runs in PyTorch, or as the recipe opens it")
    require_train()
    return EvaluatedForeign(path, teacher) if of_recipe else EvaluatedTeacher(path)


def _folds(recipe: str) -> dict[str, list[int]]:
    """Folds of a build's data by purpose (train, validate, test), none where its recipe's text does not say.

    Those of its `pretrain` taught it too.
    """
    try:
        told = yaml.safe_load(recipe)
        folds = told["data"]["folds"]
        found = {purpose: [int(fold) for fold in folds[purpose]] for purpose in ("train", "validate", "test")}
        earlier = (told.get("pretrain") or {}).get("folds") or ()
        return found | {"train": sorted({*found["train"], *map(int, earlier)})}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _placed(heads: Any, columns: Any) -> "tuple[HeadColumns, ...]":
    """The heads with the columns that the model was trained on."""
    from edgecxr.dataset import HeadColumns

    placed = columns if isinstance(columns, dict) else {}
    return tuple(
        HeadColumns.model_validate({"head": head, **(own if isinstance(own := placed.get(head.name), dict) else {})})
        for head in heads
    )

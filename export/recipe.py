"""The recipe of a build: a YAML file, checked key by key before anything is trained (docs/recipe.md).

Teachers, fusion weights, temperatures, thresholds and the refusal gate see the `train` and `validate` folds only; the
`test` folds are for the gate and the evaluation. Folds that share a number are an error.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from edgecxr.dataset import HeadColumns
from edgecxr.decision import OperatingRule
from edgecxr.errors import RecipeError
from edgecxr.export.calibration import RANGE_METHODS, RangeMethod
from edgecxr.export.distillation import DistillSettings, QatSettings
from edgecxr.export.gate import GateMargins, StudentMargins
from edgecxr.export.late_faults import late_faults
from edgecxr.export.teacher_plans import (
    Architecture,
    FoldNumbers,
    Name,
    Pretrain,
    TeacherSource,
    TrainedGroup,
    TrainedMember,
    inherited,
    live_problems,
    plan_problems,
)
from edgecxr.repeats import repeated
from edgecxr.settings import read_settings
from edgecxr.sparse import Sparse
from edgecxr.spec import IN_FULL, Head, Precision, PreprocessSpec, ReadingSpec, Strict
from edgecxr.teachers.training import TrainSettings

__all__ = [
    "Card",
    "Data",
    "Folds",
    "Golden",
    "PhantomFilms",
    "Pretrain",
    "Quantize",
    "Recipe",
    "StudentPlan",
    "TeacherSource",
    "TrainedGroup",
    "TrainedMember",
    "load_recipe",
]


class Folds(Strict):
    """Which folds of labels.csv (by patient) are for what."""

    train: FoldNumbers
    validate_: Annotated[FoldNumbers, Field(alias="validate")]
    test: FoldNumbers

    @model_validator(mode="after")
    def _disjoint(self) -> "Folds":
        for one, other in (("train", "validate"), ("train", "test"), ("validate", "test")):
            shared = sorted(set(self.of(one)) & set(self.of(other)))
            if shared:
                raise ValueError(f"fold {shared[0]} is in {one} and in {other}; a film may serve one purpose only")
        return self

    def of(self, purpose: str) -> tuple[int, ...]:
        """The fold numbers of `train`, `validate` or `test`."""
        return {"train": self.train, "validate": self.validate_, "test": self.test}[purpose]


class PhantomFilms(Sparse):
    """Films that are drawn instead of read."""

    later: ClassVar[frozenset[str]] = frozenset({"columns"})

    films_per_finding: Annotated[int, Field(ge=10, le=5000)] = 60
    size: Annotated[int, Field(ge=64, le=2048)] = 256
    seed: Annotated[int, Field(ge=0)] = 0
    columns: tuple[str, ...] = ()  # of 0 and 1, beside the label: `write_dataset`


class Data(Strict):
    """Where the films are: a folder with labels.csv, or phantoms."""

    folder: str | None = None
    labels: str = "labels.csv"
    folds: Folds
    phantom: PhantomFilms | None = None
    _unset: str = PrivateAttr("")  # the variable in `folder` that was not set

    @property
    def told(self) -> str:
        """Which films are used, in words."""
        if self.folder is not None:
            return f"films: {self.folder}"
        return f"films: drawn (phantoms), {self._unset + ' is not set' if self._unset else 'no folder is given'}"

    def placed(self, folder: str | None, unset: str) -> "Data":
        """The same films of `folder`, or drawn because the variable `unset` is not set."""
        data = self.model_copy(update={"folder": folder})
        data._unset = unset
        return data


class Fusion(Strict):
    """How the members' votes are weighed."""

    kind: Literal["learned", "equal"] = "learned"


class StudentPlan(Strict):
    """One architecture, or candidates of which measurement chooses one.

    Of the candidates whose INT8 validation loss is within `loss_slack` (nats) of the smallest, the fastest is taken.
    """

    architecture: Architecture | None = None
    candidates: tuple[Architecture, ...] = ()
    options: dict[str, int | float | str | tuple[int, ...]] = Field(
        default={}, description="for timm, such as the channels of a ResNet's four stages"
    )
    loss_slack: Annotated[float, Field(ge=0)] = 0.02
    pretrain: bool = True  # take part in the recipe's `pretrain`, where there is one
    teaching: Annotated[
        Literal["fixed", "live"], Field(description="teachers answer a film once as it is, or anew as it is augmented")
    ] = "fixed"
    distillation: DistillSettings = DistillSettings()

    @model_validator(mode="after")
    def _one_or_many(self) -> "StudentPlan":
        if bool(self.architecture) == bool(self.candidates):
            raise ValueError("give either `architecture` or `candidates`")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The architectures to distill."""
        return self.candidates or (str(self.architecture),)


class Quantize(Strict):
    """Precisions to pack, and how INT8 is reached."""

    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp16", "int8")
    methods: Annotated[tuple[RangeMethod, ...], Field(min_length=1)] = RANGE_METHODS
    calibration_films: Annotated[int, Field(ge=8, le=5000)] = 200
    qat: Literal["auto", "never", "always"] = "auto"  # auto: where calibration alone does not pass the gate
    qat_training: QatSettings = QatSettings()
    tolerance: Annotated[
        float, Field(gt=0, le=0.2, description="largest change of a probability on the golden set")
    ] = 0.02


class Refusal(Strict):
    """The gate that refuses what is not a frontal chest film."""

    quantile: Annotated[float, Field(gt=0.5, lt=1, description="share of validation films that pass")] = 0.995
    slack: Annotated[float, Field(ge=1, le=10, description="factor on the distance at that quantile")] = 1.05


class Golden(Strict):
    """Phantom films that travel in the bundle, with the outputs that every machine must reproduce."""

    frames: Annotated[int, Field(ge=3, le=64)] = 8
    size: Annotated[int, Field(ge=64, le=1024)] = 256


class Card(Strict):
    """What a reader of the bundle must know, in plain sentences."""

    intended_use: str
    limits: str
    data: str


class Recipe(Strict):
    """Everything that decides what a build produces."""

    name: Name
    version: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data
    heads: Annotated[tuple[HeadColumns, ...], Field(min_length=1)]
    preprocess: PreprocessSpec = PreprocessSpec()
    reading: ReadingSpec = IN_FULL  # of the films, for students and teachers alike
    training: TrainSettings = TrainSettings()  # defaults of every member
    pretrain: Pretrain | None = None
    teachers: Annotated[tuple[TeacherSource, ...], Field(min_length=1)]
    fusion: Fusion = Fusion()
    student: StudentPlan
    quantize: Quantize = Quantize()
    gate: GateMargins = GateMargins()  # each precision against FP32
    student_gate: StudentMargins | None = None  # the student against the ensemble; default: `gate`, but for the maps
    operating_points: Annotated[tuple[OperatingRule, ...], Field(min_length=1)] = (OperatingRule(sensitivity=0.9),)
    refusal: Refusal = Refusal()
    golden: Golden = Golden()
    card: Card

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, raw: Any) -> Any:
        """Members take `training` and `preprocess` of the recipe, and override single keys."""
        if not isinstance(raw, dict) or not isinstance(raw.get("teachers"), list):
            return raw
        shared = {key: raw[key] for key in ("training", "preprocess") if isinstance(raw.get(key), dict)}
        return {**raw, "teachers": [inherited(teacher, shared) for teacher in raw["teachers"]]}

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        groups = [teacher.member_names for teacher in self.teachers if isinstance(teacher, TrainedGroup)]
        names = [*(teacher.name for teacher in self.teachers), *(name for group in groups for name in group)]
        if twice := repeated(names):
            raise ValueError(f"two teachers are called {twice[0]!r}")
        folds = set(self.pretrain.folds or ()) if self.pretrain else set()
        shared = sorted(folds & {*self.data.folds.test, *self.data.folds.validate_})
        if shared:
            raise ValueError(
                f"pretrain.folds has fold {shared[0]}, which is for validation or test; use the train folds"
            )
        problems = plan_problems(self.teachers, self.model_heads, self.pretrain) + late_faults(self)
        if self.student.teaching == "live":
            problems += live_problems(self.teachers, self.preprocess)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def student_margins(self) -> StudentMargins:
        """What the student may lose against the ensemble."""
        shared = self.gate.model_dump(exclude={"cam_correlation", "cam_pointing"})
        return self.student_gate or StudentMargins(**shared)

    @property
    def model_heads(self) -> tuple[Head, ...]:
        """The heads without their columns."""
        return tuple(item.head for item in self.heads)


def load_recipe(path: str | Path, *, data: str | Path | None = None) -> Recipe:
    """The recipe in the file, with `data` (or the variables in ``data.folder``) put in place of its folder.

    Raises:
        RecipeError: every problem as one sentence ``<file>:<line>: …``, in the order of the lines.
    """
    recipe = read_settings(path, Recipe, RecipeError, "recipe")
    return _placed(recipe, Path(path), data)


def _placed(recipe: Recipe, path: Path, data: str | Path | None) -> Recipe:
    """With the folder of films settled: the argument, else the recipe's own, else its phantoms."""
    written = recipe.data.folder or ""
    unset = [name for name in _variables(written) if not os.environ.get(name)] if data is None else []
    alone = written in (f"${unset[0]}", f"${{{unset[0]}}}") if unset else False
    folder = str(data) if data is not None else os.path.expanduser(os.path.expandvars(written))
    if recipe.data.phantom is None and (alone or not folder):
        raise RecipeError(f"{path}: no films: data.folder is {written!r}; set it, the variable in it, or --data FOLDER")
    if unset and not alone:
        raise RecipeError(
            f"{path}: data.folder is {written!r}, but {unset[0]} is not set; set it, or give --data FOLDER"
        )
    settled = recipe.data.placed(None if unset else folder or None, "".join(unset))
    return recipe.model_copy(update={"data": settled})


def _variables(text: str) -> list[str]:
    """Names of the environment variables in `text`: ``$NAME`` and ``${NAME}``."""
    return [plain or braced for plain, braced in re.findall(r"\$(?:(\w+)|\{([^}]*)\})", text)]

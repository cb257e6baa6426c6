"""What a recipe says of its teachers: trained here, chosen among candidates and joined, or brought by the user."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from edgecxr.dataset import HeadColumns
from edgecxr.repeats import repeated
from edgecxr.sparse import Sparse
from edgecxr.spec import Head, PreprocessSpec, Strict, class_names
from edgecxr.teachers.architecture import known_architecture
from edgecxr.teachers.foreign import ForeignSource
from edgecxr.teachers.sampling import sampling_problem
from edgecxr.teachers.training import TrainSettings

__all__ = [
    "Architecture",
    "FoldNumbers",
    "JointPlan",
    "Name",
    "Pretrain",
    "TeacherSource",
    "TrainedGroup",
    "TrainedMember",
    "inherited",
    "live_problems",
    "plan_problems",
]

LONGEST = 40
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$", description="lower case, digits, '_', '.', '-'")]
Zoom = Annotated[float, Field(gt=0)]
FoldNumbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Architecture = Annotated[str, AfterValidator(known_architecture)]


class Pretrain(Strict):
    """Labels on which trained members and the student learn before they are transferred to the heads of the recipe."""

    heads: Annotated[tuple[HeadColumns, ...], Field(min_length=1)]
    folds: FoldNumbers | None = None  # default: the train folds
    training: TrainSettings = TrainSettings()


class _Trained(Sparse):
    """What all teachers that are trained here have."""

    later: ClassVar[frozenset[str]] = frozenset({"keep"})

    name: Name
    preprocess: PreprocessSpec = PreprocessSpec()
    training: TrainSettings = TrainSettings()
    zooms: Annotated[tuple[Zoom, ...], Field(min_length=1)] = (1.0,)  # its logits are averaged over these views
    pretrain: bool | str = True  # take part in the recipe's `pretrain`, where there is one; a name: with that teacher
    keep: dict[str, str] = Field(
        default={}, description="class to the class of `pretrain` whose output neuron it takes"
    )


class TrainedMember(_Trained):
    """A teacher that is trained here: any timm or torchvision architecture by name."""

    architecture: Architecture
    pretrained: str | None = None  # "imagenet", or a file of weights


class JointPlan(Strict):
    """How networks go on as one, by weights that move while they are trained together (`teachers.joint`)."""

    weight_rate: Annotated[float, Field(gt=0, description="factor on the learning rate of the weights")] = 10.0
    training: TrainSettings = TrainSettings()  # the entry's own, where it overrides nothing


class TrainedGroup(_Trained):
    """Candidates that are trained alike, of which the best on the validation films go on: as members, or as one."""

    candidates: Annotated[tuple[Architecture, ...], Field(min_length=2)]
    select: Annotated[int, Field(ge=1)]
    joint: JointPlan | None = None
    pretrained: Literal["imagenet"] | None = None  # a file fits one architecture

    @model_validator(mode="after")
    def _check(self) -> "TrainedGroup":
        names = self.member_names
        long = [name for name in names if len(name) > LONGEST]
        if twice := repeated(names):
            raise ValueError(f"two candidates are called {twice[0]!r}; name an architecture once")
        if long:
            raise ValueError(f"{long[0]!r} is longer than {LONGEST} characters; give the group a shorter name")
        if self.select > len(names):
            raise ValueError(f"select is {self.select}, of {len(names)} candidates")
        if self.joint and self.select < 2:
            raise ValueError("joint wants at least two networks; let `select` be 2 or more")
        return self

    @property
    def member_names(self) -> tuple[str, ...]:
        """Of each candidate: the group's name and the architecture's, without its library."""
        return tuple(f"{self.name}-{name.rpartition(':')[2].lower()}" for name in self.candidates)

    @property
    def members(self) -> tuple[TrainedMember, ...]:
        """Each candidate as a teacher of its own."""
        shared = {key: getattr(self, key) for key in (*_Trained.model_fields, "pretrained") if key != "name"}
        pairs = zip(self.member_names, self.candidates, strict=True)
        return tuple(TrainedMember(name=name, architecture=architecture, **shared) for name, architecture in pairs)


def _kind(value: Any) -> str:
    """Which kind of teacher a mapping (or a built one) describes."""
    if isinstance(value, Mapping):
        return "foreign" if "kind" in value else "group" if "candidates" in value else "trained"
    if isinstance(value, TrainedGroup):
        return "group"
    return "trained" if isinstance(value, TrainedMember) else "foreign"


TeacherSource = Annotated[
    Annotated[TrainedMember, Tag("trained")]
    | Annotated[TrainedGroup, Tag("group")]
    | Annotated[ForeignSource, Tag("foreign")],
    Discriminator(_kind),
]


def inherited(teacher: Any, shared: Mapping[str, dict[str, Any]]) -> Any:
    """The raw entry with what it does not say taken from `shared`, key by key; its joint training from its own."""
    if not isinstance(teacher, dict) or _kind(teacher) == "foreign":
        return teacher
    merged = {key: {**default, **_mapping(teacher.get(key))} for key, default in shared.items()}
    kept = {key: value for key, value in merged.items() if isinstance(teacher.get(key, {}), dict)}
    whole = {**teacher, **kept}
    joint = whole.get("joint")
    if not isinstance(joint, dict) or not isinstance(joint.get("training", {}), dict):
        return whole
    training = {**_mapping(whole.get("training")), **joint.get("training", {})}
    return {**whole, "joint": {**joint, "training": training}}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def plan_problems(teachers: Sequence[TeacherSource], heads: Sequence[Head], pretrain: Pretrain | None) -> list[str]:
    """What the teachers name that is not in the heads that they learn, each as a sentence."""
    here = [teacher for teacher in teachers if isinstance(teacher, TrainedMember | TrainedGroup)]
    found = []
    for teacher in here:
        joint = teacher.joint if isinstance(teacher, TrainedGroup) else None
        told = [_sampling(plan.training, heads) for plan in (teacher, joint) if plan is not None]
        told += [_keeping(teacher, heads, pretrain), _sharing(teacher, here)]
        found += [f"teacher {teacher.name!r}: {problem}" for problem in dict.fromkeys(told) if problem]
    earlier = _sampling(pretrain.training, [item.head for item in pretrain.heads]) if pretrain else None
    return found + ([f"pretrain.training: {earlier}"] if earlier else [])


def live_problems(teachers: Sequence[TeacherSource], preprocess: PreprocessSpec) -> list[str]:
    """Teachers that cannot answer the student's films, because theirs differ from them in more than the size."""
    sized = {teacher.name: teacher.preprocess.model_copy(update={"size": preprocess.size}) for teacher in teachers}
    return [
        f"teacher {name!r}: its `preprocess` differs from the student's in more than `size`; let it be the same, or "
        "teach with `student.teaching: fixed`"
        for name, spec in sized.items()
        if spec != preprocess
    ]


def _sharing(teacher: _Trained, teachers: Sequence[_Trained]) -> str | None:
    if isinstance(teacher.pretrain, bool):
        return None
    alike = [
        other.name
        for other in teachers
        if isinstance(other, TrainedMember)
        and isinstance(teacher, TrainedMember)
        and other.pretrain is True
        and (other.architecture, other.pretrained, other.preprocess)
        == (teacher.architecture, teacher.pretrained, teacher.preprocess)
    ]
    if teacher.pretrain in alike:
        return None
    choices = ", ".join(alike) or "none is like it"
    return (
        f"pretrain: {teacher.pretrain!r} is no teacher of the same architecture and preprocess to share with: {choices}"
    )


def _sampling(training: TrainSettings, heads: Sequence[Head]) -> str | None:
    return sampling_problem(training.copies, training.films_per_class, heads)


def _keeping(teacher: _Trained, heads: Sequence[Head], pretrain: Pretrain | None) -> str | None:
    if not teacher.keep:
        return None
    if pretrain is None or not teacher.pretrain:
        return "keep wants output neurons of `pretrain`, in which it takes no part"
    later = class_names(heads)
    earlier = class_names(item.head for item in pretrain.heads)
    for named, classes, whose in ((teacher.keep, later, "the recipe"), (teacher.keep.values(), earlier, "pretrain")):
        for name in named:
            if classes.count(name) != 1:
                how = "does not name a class" if name not in classes else "names several classes"
                return f"keep: {name!r} {how} of {whose}; wanted one of {', '.join(classes)}"
    return None

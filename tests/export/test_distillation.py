"""Learning from teachers: the losses against their definitions, and a student that comes to agree."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.distillation import DistillLoss, DistillSettings, Taught, distill  # noqa: E402
from edgecxr.export.student import Student  # noqa: E402
from edgecxr.spec import Head  # noqa: E402
from edgecxr.teachers.training import Samples  # noqa: E402

pytestmark = pytest.mark.train
Images = NDArray[np.float32]
SOFTMAX = Head(name="kind", kind="softmax", classes=("a", "b", "c"))
SIGMOID = Head(name="signs", kind="sigmoid", classes=("x", "y"))
TARGETS = {"kind": np.arange(6) % 3, "signs": np.tile([[0.0, 1.0], [1.0, 0.0]], (3, 1)).astype(np.float32)}


def logits(seed: int, classes: int = 5) -> Tensor:
    return torch.randn(6, classes, generator=torch.Generator().manual_seed(seed))


def tensors() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in TARGETS.items()} | {"teacher logits": logits(1)}


def test_soft_loss_is_divergence_times_square_plus_cross_entropy_of_the_answers() -> None:
    settings = DistillSettings(hard_weight=0, temperature=4)
    got = DistillLoss((SOFTMAX, SIGMOID), TARGETS, settings)(logits(0), tensors())
    student, teacher = logits(0).double(), logits(1).double()
    p, q = (torch.softmax(part[:, :3] / 4, 1) for part in (teacher, student))
    t, s = (torch.sigmoid(part[:, 3:]) for part in (teacher, student))
    wanted = 16 * (p * (p / q).log()).sum(1).mean() - (t * s.log() + (1 - t) * (1 - s).log()).mean()
    assert float(got) == pytest.approx(float(wanted), rel=1e-5)


def test_hard_weight_one_is_the_loss_of_the_labels_alone() -> None:
    loss = DistillLoss((SOFTMAX, SIGMOID), TARGETS, DistillSettings(hard_weight=1))
    assert float(loss(logits(0), tensors())) == pytest.approx(float(loss.hard(logits(0), tensors())), rel=1e-6)


def test_a_student_that_says_the_same_has_no_divergence() -> None:
    loss = DistillLoss((SOFTMAX,), TARGETS, DistillSettings(hard_weight=0))
    assert float(loss(logits(1)[:, :3], {**tensors(), "teacher logits": logits(1)[:, :3]})) == pytest.approx(
        0, abs=1e-6
    )


def test_a_live_answer_replaces_the_fixed_one_and_a_map_loss_is_added() -> None:
    loss = DistillLoss((SOFTMAX,), TARGETS, DistillSettings(hard_weight=0, cam_weight=2.0))
    same = torch.cat([logits(0)[:, :3], logits(0)[:, :3], torch.full((6, 1), 0.25)], 1)
    assert float(loss(same, tensors())) == pytest.approx(0.5, rel=1e-5)


def agreement(student: Student, images: Images, teacher: NDArray[np.float32]) -> float:
    with torch.inference_mode():
        return float((student(torch.from_numpy(images)).argmax(1).numpy() == teacher.argmax(1)).mean())


@pytest.fixture(scope="module")
def taught(tiny: Callable[[int], Student], tiny_images: Images) -> tuple[Samples, NDArray[np.float32]]:
    """The tiny images, labelled at random, and what a teacher (another tiny student) says about them."""
    with torch.inference_mode():
        answers = tiny(5)(torch.from_numpy(tiny_images))
    answers = (answers - answers.mean(0)) * 4
    return Samples(tiny_images, {"kind": np.arange(24) % 3}), answers.numpy()


SETTINGS = DistillSettings(
    epochs=20, batch=12, learning_rate=1e-2, hard_weight=0, average=0, metric="loss", autocast="off"
)


def test_a_student_comes_to_agree_with_fixed_answers(
    tiny: Callable[[int], Student], tiny_images: Images, taught: tuple[Samples, NDArray[np.float32]], tmp_path: Path
) -> None:
    student, (films, answers) = tiny(0), taught
    result = distill(student, (films, films), (answers, answers), (SOFTMAX,), SETTINGS, folder=tmp_path)
    assert result.best < 0.5 * result.history[0]["score"]
    assert agreement(student, tiny_images, answers) >= 0.75
    assert not student.training


def test_a_live_teacher_sees_the_augmented_films_and_gives_maps(
    tiny: Callable[[int], Student], taught: tuple[Samples, NDArray[np.float32]], tmp_path: Path
) -> None:
    seen: list[Tensor] = []
    teacher = tiny(5)

    def live(images: Tensor) -> Taught:
        seen.append(images)
        full = teacher.forward_full(images)
        return Taught(full.logits, full.cam)

    films, answers = taught
    settings = SETTINGS.model_copy(update={"epochs": 3, "cam_weight": 1.0})
    student = tiny(0)
    distill(student, (films, films), (answers, answers), (SOFTMAX,), settings, folder=tmp_path, teacher=live)
    assert len(seen) == 3 * 2
    assert not any(torch.equal(seen[0], other) for other in seen[1:])
    assert "teacher" not in " ".join(name for name, _ in student.named_modules())


def test_what_does_not_fit_is_refused(
    tiny: Callable[[int], Student], taught: tuple[Samples, NDArray[np.float32]], tmp_path: Path
) -> None:
    films, answers = taught
    settings = DistillSettings(cam_weight=1)
    with pytest.raises(StageError, match="cam_weight needs a live teacher"):
        distill(tiny(0), (films, films), (answers, answers), (SOFTMAX,), settings, folder=tmp_path)
    wrong = answers[:, :2]
    with pytest.raises(StageError, match=r"teacher logits are \(24, 2\); wanted finite \(24, 3\)"):
        distill(tiny(0), (films, films), (wrong, wrong), (SOFTMAX,), SETTINGS, folder=tmp_path)


def test_a_teacher_without_maps_cannot_teach_maps(
    tiny: Callable[[int], Student], taught: tuple[Samples, NDArray[np.float32]], tmp_path: Path
) -> None:
    films, answers = taught
    settings = SETTINGS.model_copy(update={"cam_weight": 1.0})
    with pytest.raises(StageError, match="this teacher gives no maps"):
        distill(
            tiny(0),
            (films, films),
            (answers, answers),
            (SOFTMAX,),
            settings,
            folder=tmp_path,
            teacher=lambda images: Taught(torch.zeros(len(images), 3)),
        )

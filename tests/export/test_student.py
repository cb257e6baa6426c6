"""Students: shapes, the head's identity, strides and starting weights."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.student import Student, build_student  # noqa: E402

pytestmark = pytest.mark.train


def images(count: int = 2, size: int = 64) -> "torch.Tensor":
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002"])
def test_outputs_have_the_shapes_of_the_contract(name: str) -> None:
    student = build_student(name, 3).eval()
    with torch.inference_mode():
        logits, cam, embedding = student.forward_full(images())
    assert logits.shape == (2, 3)
    assert cam.shape == (2, 3, *student.cam_shape(64)) == (2, 3, 2, 2)
    assert embedding.shape == (2, student.embedding_size)


def test_the_mean_of_the_map_is_the_logit_of_both_paths() -> None:
    student = build_student("regnetx_002", 4, drop=0.5).eval()
    with torch.inference_mode():
        full, quick = student.forward_full(images()), student(images())
    torch.testing.assert_close(full.cam.mean((2, 3)), full.logits)
    torch.testing.assert_close(quick, full.logits)


def test_half_the_stride_doubles_the_map() -> None:
    assert build_student("resnet10t", 2, output_stride=16).cam_shape(64) == (4, 4)


def test_asking_for_the_map_shape_leaves_training_mode_and_statistics_alone() -> None:
    student = build_student("resnet10t", 2).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    student.cam_shape(64)
    assert student.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_unknown_backbones_and_impossible_strides_are_refused() -> None:
    with pytest.raises(StageError, match="timm has no backbone 'resnet11'; for example regnetx_002"):
        build_student("resnet11", 3)
    with pytest.raises(StageError, match=r"does not take .*output_stride"):
        build_student("vgg11_bn", 3, output_stride=16)
    with pytest.raises(StageError, match="at least 1 class, got 0"):
        build_student("resnet10t", 0)
    with pytest.raises(StageError, match="ReLU has no num_features"):
        Student(torch.nn.ReLU(), 2)


def test_a_student_starts_from_weights_of_the_same_architecture(tmp_path: Path) -> None:
    teacher = build_student("resnet10t", 5)
    torch.save(teacher.backbone.state_dict(), tmp_path / "weights.pt")
    student = build_student("resnet10t", 3, pretrained=tmp_path / "weights.pt")
    for name, value in teacher.backbone.state_dict().items():
        assert torch.equal(student.backbone.state_dict()[name], value), name


def test_options_reach_the_backbone() -> None:
    assert build_student("resnet10t", 3, options={"channels": (16, 32, 48, 64)}).embedding_size == 64
    with pytest.raises(StageError, match=r"does not take .*'chanels'"):
        build_student("resnet10t", 3, options={"chanels": (16, 32, 48, 64)})

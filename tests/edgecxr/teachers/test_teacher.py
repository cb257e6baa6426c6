import json

import numpy as np
import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.spec import PreprocessSpec
from edgecxr.teachers.architecture import build
from edgecxr.teachers.compute import forward
from edgecxr.teachers.teacher import MemberRecord, MemberTeacher, open_member, write_member

pytestmark = pytest.mark.train
SPEC = PreprocessSpec(size=32)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 1, 32, 32), dtype=np.float32)


@pytest.fixture
def member(heads):
    return MemberRecord(name="one", architecture="test_resnet", heads=heads, preprocess=SPEC)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build("test_resnet", 5)


def test_a_member_is_written_and_opened_with_the_same_logits(member, network, images, tmp_path):
    record = write_member(tmp_path, member, network)
    teacher = open_member(tmp_path, device="cpu")
    assert teacher.member == record
    assert teacher.classes == ("normal", "covid", "pneumonia", "effusion", "mass")
    logits = teacher.logits(images.astype(np.float16))
    assert logits.dtype == np.float32
    assert logits.shape == (5, 5)
    same = forward(network, images.astype(np.float16), 32).numpy()
    np.testing.assert_allclose(logits, same, atol=1e-6)  # channels last: the same sums in another order


def test_batches_do_not_show_in_the_logits(member, network, images):
    teacher = MemberTeacher(member, network, device="cpu")
    whole = teacher.logits(images)
    teacher.batch = 2
    np.testing.assert_allclose(teacher.logits(images), whole, atol=1e-5)
    teacher.fixed_batch = True
    np.testing.assert_allclose(teacher.logits(images), whole, atol=1e-5)
    assert teacher.logits(images[:0]).shape == (0, 5)


def test_zoomed_views_are_averaged(member, network, images):
    views = [
        MemberTeacher(member.model_copy(update={"zooms": zooms}), network, device="cpu").logits(images)
        for zooms in ((1.0,), (1.1,), (1.0, 1.1))
    ]
    assert not np.allclose(views[0], views[1])
    np.testing.assert_allclose(views[2], (views[0] + views[1]) / 2, atol=1e-5)


def test_films_of_another_shape_are_refused(member, network, images):
    with pytest.raises(StageError, match=r"got films \(5, 1, 32, 16\); wanted \(N, 1, 32, 32\)"):
        MemberTeacher(member, network, device="cpu").logits(images[:, :, :, :16])


def test_outputs_that_are_not_finite_are_refused(member, network, images):
    images[2] = np.nan
    with pytest.raises(StageError, match="'one' gave NaN or infinity for 1 of 5 films"):
        MemberTeacher(member, network, device="cpu").logits(images)


def test_a_range_of_its_own_is_refused(member, network):
    wide = member.model_copy(update={"preprocess": PreprocessSpec(size=32, range_high=255.0)})
    with pytest.raises(StageError, match=r"wants films in \[0, 1\]"):
        MemberTeacher(wide, network)


def test_absent_altered_and_damaged_members_are_refused(member, network, tmp_path):
    with pytest.raises(StageError, match=r"no teacher.json in"):
        open_member(tmp_path)
    write_member(tmp_path, member, network)
    other = build("test_resnet", 5)
    record = json.loads((tmp_path / "teacher.json").read_text())
    write_member(tmp_path, member, other)
    (tmp_path / "teacher.json").write_text(json.dumps(record))
    with pytest.raises(StageError, match="is not the file that teacher"):
        open_member(tmp_path)
    (tmp_path / "teacher.json").write_text(json.dumps(record | {"colour": "red"}))
    with pytest.raises(StageError, match="not the record of a trained teacher"):
        open_member(tmp_path)


def test_a_record_from_before_reading_was_told_means_in_full(member, network, tmp_path):
    write_member(tmp_path, member, network)
    record = json.loads((tmp_path / "teacher.json").read_text())
    assert record.pop("reading") == {"jpeg2000": "full"}
    (tmp_path / "teacher.json").write_text(json.dumps(record))
    assert open_member(tmp_path).member.reading.reduced_for(SPEC) is None

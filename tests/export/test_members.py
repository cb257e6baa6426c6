"""The files that a teacher is made of: found from the recipe's folder, and part of what its stage depends on."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.members import file_digests  # noqa: E402
from edgecxr.export.recipe import TrainedMember  # noqa: E402
from edgecxr.export.schooling import pretrained_file  # noqa: E402
from edgecxr.teachers.foreign import FactorySource  # noqa: E402


def test_the_source_of_a_factory_is_digested(tmp_path: Path) -> None:
    source = FactorySource(name="own", kind="factory", factory="members_own:make", classes=("a", "b"))
    with pytest.raises(StageError, match="no module 'members_own'; write 'module:function', beside the recipe"):
        file_digests(source, tmp_path)
    (tmp_path / "members_own.py").write_text("def make(): ...\n")
    before = file_digests(source, tmp_path)
    (tmp_path / "members_own.py").write_text("def make(): return 1\n")
    after = file_digests(source, tmp_path)
    assert list(before) == list(after) == ["members_own.py"]
    assert before != after


def test_pretrained_weights_lie_below_the_recipes_folder(tmp_path: Path) -> None:
    member = TrainedMember(name="a", architecture="resnet10t", pretrained="weights.pt")
    with pytest.raises(StageError, match=r"teacher 'a': no file .*weights\.pt; paths are taken from the recipe's"):
        pretrained_file(member, tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"x")
    assert pretrained_file(member, tmp_path) == tmp_path / "weights.pt"
    assert pretrained_file(member.model_copy(update={"pretrained": "imagenet"}), tmp_path) is None

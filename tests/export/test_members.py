"""The files that a teacher is made of: found from the recipe's folder, and part of what its stage depends on."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.train
pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgecxr.errors import StageError  # noqa: E402
from edgecxr.export.members import file_digests  # noqa: E402
from edgecxr.export.recipe import TrainedMember  # noqa: E402
from edgecxr.export.schooling import pretrained_file  # noqa: E402
from edgecxr.teachers.foreign import FactorySource, OnnxSource  # noqa: E402


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


def test_weights_beside_an_onnx_file_are_digested(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("image", "scores")]
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "weights")
    nodes = [helper.make_node("MatMul", ["image", "weights"], ["scores"])]
    graph = helper.make_graph(nodes, "d", ends[:1], ends[1:], [weights])
    (tmp_path / "models").mkdir()
    whole = tmp_path / "models" / "d.onnx"
    onnx.save(helper.make_model(graph), whole)
    source = OnnxSource(name="d", kind="onnx", onnx="models/d.onnx", classes=("a", "b"))
    assert file_digests(source, tmp_path) == {"models/d.onnx": hashlib.sha256(whole.read_bytes()).hexdigest()}
    onnx.save(helper.make_model(graph), whole, save_as_external_data=True, location="d.onnx.data", size_threshold=0)
    before = file_digests(source, tmp_path)
    assert sorted(before) == ["d.onnx.data", "models/d.onnx"]
    data = tmp_path / "models" / "d.onnx.data"
    data.write_bytes(bytes(data.stat().st_size))
    after = file_digests(source, tmp_path)
    assert [name for name in after if after[name] != before[name]] == ["d.onnx.data"]
    data.unlink()
    with pytest.raises(StageError, match=r"teacher 'd': no file .*models/d\.onnx\.data; paths are taken"):
        file_digests(source, tmp_path)
    whole.write_bytes(b"no model at all")  # told of where it is opened
    assert list(file_digests(source, tmp_path)) == ["models/d.onnx"]


def test_pretrained_weights_lie_below_the_recipes_folder(tmp_path: Path) -> None:
    member = TrainedMember(name="a", architecture="resnet10t", pretrained="weights.pt")
    with pytest.raises(StageError, match=r"teacher 'a': no file .*weights\.pt; paths are taken from the recipe's"):
        pretrained_file(member, tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"x")
    assert pretrained_file(member, tmp_path) == tmp_path / "weights.pt"
    assert pretrained_file(member.model_copy(update={"pretrained": "imagenet"}), tmp_path) is None

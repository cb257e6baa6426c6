import os
import pickle

import pytest
import torch
from torch import nn

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import build
from edgecxr.teachers.weights import read_weights, strip_prefixes, transfer_weights, write_weights

pytestmark = pytest.mark.train


class Exploit:
    def __reduce__(self):
        return os.system, ("touch exploited",)


def test_what_is_written_is_read_back(tmp_path):
    state = build("test_resnet", 3).state_dict()
    write_weights(tmp_path / "w.safetensors", state)
    back = read_weights(tmp_path / "w.safetensors")
    assert state.keys() == back.keys()
    assert all(torch.equal(state[name], back[name]) for name in state)


@pytest.mark.parametrize("container", ["state_dict", "model", "model_ema"])
def test_containers_and_prefixes_are_taken_off(tmp_path, container):
    torch.save(
        {container: {"module.model.a": torch.ones(2), "module.model.b": torch.ones(3)}, "epoch": 3}, tmp_path / "w.pt"
    )
    assert set(read_weights(tmp_path / "w.pt")) == {"a", "b"}


def test_a_prefix_that_one_name_lacks_stays():
    names = {"model.a": torch.ones(1), "b": torch.ones(1)}
    assert strip_prefixes(names) == names


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": Exploit()}, protocol=2))
    with pytest.raises(StageError, match="not a plain weight file"):
        read_weights(tmp_path / "w.pt")
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Exploit()}, tmp_path / "w.pt")
    with pytest.raises(StageError, match="not a plain weight file"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04 no zip", b"\x80\x02."])
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError, match="not a plain weight file"):
        read_weights(tmp_path / name)


def test_an_absent_file_and_one_without_tensors_are_refused(tmp_path):
    with pytest.raises(StageError, match="no weight file at"):
        read_weights(tmp_path / "w.pt")
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(StageError, match="holds no tensors by name"):
        read_weights(tmp_path / "w.pt")


def test_transfer_reports_what_did_not_fit():
    source, target = build("test_resnet", 14), build("test_resnet", 3)
    report = transfer_weights(source.state_dict(), target)
    assert report.skipped == {
        "body.fc.weight": "shape (14, 96) in the source, (3, 96) here",
        "body.fc.bias": "shape (14,) in the source, (3,) here",
    }
    assert set(report.copied) | set(report.skipped) == set(target.state_dict())


def test_transfer_sums_a_colour_convolution():
    source, target = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)
    transfer_weights(source.state_dict(), target)
    gray = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(target(gray), source(gray.expand(-1, 3, -1, -1)))


def test_transfer_between_strangers_is_refused():
    with pytest.raises(StageError, match="none of the 2 weights fits the network"):
        transfer_weights(nn.Linear(7, 7).state_dict(), build("test_resnet", 3))

"""ImageNet weights: found on the machine, fetched from a server that is there, asked for by path where none is."""

import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.teachers import imagenet
from edgecxr.teachers.architecture import build

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights on this machine, and no way out of it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use, for every later test


@pytest.mark.parametrize(
    ("name", "file", "source"),
    [
        ("resnet18", "resnet18.safetensors", "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model"),
        ("torchvision:alexnet", "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79"),
        ("covid_densenet", "covid_densenet.safetensors", "https://huggingface.co/timm/densenet121.ra_in1k"),
    ],
)
def test_offline_the_error_says_which_file_to_place_where(name, file, source, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "torch" / "hub" / "checkpoints" / file
    with pytest.raises(
        StageError, match=rf"cannot be fetched \(HF_HUB_OFFLINE is set\); place {source}.* at {place}, "
    ):
        build(name, 3, pretrained="imagenet")
    assert capsys.readouterr().err == ""  # nothing was tried


def test_without_a_network_the_error_says_the_same(tmp_path, capsys):
    place = tmp_path / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    with pytest.raises(StageError, match=rf"cannot be fetched \(.*refused.*\); place https://.* at {place}"):
        build("torchvision:alexnet", 3, pretrained="imagenet")
    assert not place.exists()


def test_a_hub_that_is_not_reached_is_one_sentence_too(tmp_path, capsys):
    with pytest.raises(StageError, match=r"weights of resnet18, which are not on this machine and cannot be fetched"):
        build("resnet18", 3, pretrained="imagenet")
    assert "fetching resnet18 from https://huggingface.co/timm/resnet18.a1_in1k" in capsys.readouterr().err


def test_a_network_without_imagenet_weights_says_so():
    with pytest.raises(StageError, match="timm has no ImageNet weights of densenet264d; leave pretrained out"):
        build("densenet264d", 3, pretrained="imagenet")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a server that gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once_with_a_line_that_says_what_from_where_and_how_much(served, tmp_path, capsys):
    folder, address = served
    torch.save({"weight": torch.ones(500_000)}, folder / "w.pth")
    name = f"net-{hashlib.sha256((folder / 'w.pth').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "w.pth").rename(folder / name)
    place = tmp_path / "kept" / name
    assert imagenet._from_url("net", f"{address}/{name}", place) == place
    assert place.read_bytes() == (folder / name).read_bytes()
    assert f"fetching net from {address}/{name} (2 MB) to {place}" in capsys.readouterr().err


def test_a_file_of_another_digest_is_not_kept(served, tmp_path):
    folder, address = served
    (folder / "net-00000000.pth").write_bytes(b"not these")
    with pytest.raises(StageError, match=r"cannot be fetched \(invalid hash value"):
        imagenet._from_url("net", f"{address}/net-00000000.pth", tmp_path / "kept" / "net-00000000.pth")
    assert list((tmp_path / "kept").iterdir()) == []

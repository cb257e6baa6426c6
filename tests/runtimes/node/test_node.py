"""The node as a whole: what it refuses to start with, and that nothing is left open when it does."""

import json
import os
import shutil
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from waiting import LONG_S, until

from edgecxr.bundle import Bundle, keys, signature
from edgecxr.errors import BundleError, ConfigError, ResultError
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import NodeConfig
from edgecxr.runtimes.node.deliveries import NewDelivery
from edgecxr.runtimes.node.images import Arrival, Outcome, State
from edgecxr.runtimes.node.node import Node


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Path) -> dict[str, Any]:
    return {
        "folder": str(tmp_path / "node"),
        "bundle": {"path": str(tiny_bundle), "allow_unsigned": True},
        "screening": {"threads": 1},
        "spool": {"refuse_below_mb": 0, "tidy_below_mb": 1},
        "dicom": None,
        "http": None,
    }


def made(settings: dict[str, Any]) -> Node:
    return Node(NodeConfig.model_validate(json.loads(json.dumps(settings)), strict=False))


def ours() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("worker-", "edgecxr", "dicom-"))}


def test_nothing_is_left_when_a_part_cannot_start(settings: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings["dicom"] = {"host": "127.0.0.1", "port": taken.getsockname()[1]}
        with pytest.raises(ConfigError, match="dicom: cannot listen"):
            made(settings).start()
    assert ours() == set()
    settings["dicom"] = None
    with made(settings) as node:  # the spool was given back
        until(lambda: node.ready()[0])
    assert ours() == set()


def test_stopping_twice_is_harmless(settings: dict[str, Any]) -> None:
    node = made(settings)
    node.start()
    node.stop(0)
    node.stop(0)
    assert ours() == set()


def test_a_node_that_stops_is_not_ready(settings: dict[str, Any]) -> None:
    node = made(settings)
    node.start()
    until(lambda: node.ready()[0])
    node.workers.stop(LONG_S)
    assert node.ready()[0] is False
    node.stop()


def test_too_little_disk_is_told(settings: dict[str, Any]) -> None:
    settings["spool"]["refuse_below_mb"] = 10**8
    with made(settings) as node:
        until(lambda: node.monitor.able())
        ready, problems = node.ready()
        assert not ready
        assert "under spool.refuse_below_mb: nothing is taken" in problems[0]


def test_what_waits_for_a_destination_that_is_not_configured_is_told(settings: dict[str, Any]) -> None:
    node = made(settings)
    with node.spool.part() as part:
        part.write(b"film")
        node.spool.commit(part, Arrival("1.2", "1.2.3", "", "dicom"))
    assert node.spool.claim() is not None
    node.spool.finish(1, Outcome("ok", {"findings": []}), [NewDelivery("old-pacs", "sr", "2.25.1")])
    told = [problem for problem in node.health().problems if "old-pacs" in problem]
    assert told == [
        "1 result(s) wait for the destination old-pacs, which is not in the configuration: name it there again, "
        "or give them up with edgecxr queue forget old-pacs"
    ]
    node.spool.give_up("old-pacs")
    assert not [problem for problem in node.health().problems if "old-pacs" in problem]
    node.stop(0)


def test_specs_of_the_bundles_that_are_here(settings: dict[str, Any], tiny_bundle: Path) -> None:
    with made(settings) as node:
        bundle = Bundle.open(tiny_bundle)
        assert node.spec(bundle.digest) == bundle.spec
        assert node.spec("f" * 64) is None
        copies = Path(settings["folder"]) / "bundles"
        copies.mkdir()
        (copies / "damaged.cxr").write_bytes(b"no bundle")
        assert node.spec("f" * 64) is None


def test_a_bundle_that_is_named_and_gone(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["bundle"]["path"] = str(tmp_path / "gone.cxr")
    with pytest.raises(BundleError, match=r"gone\.cxr"):
        made(settings)


def test_a_bundle_that_was_overwritten_decides_nothing_before_its_signature_is_checked(
    settings: dict[str, Any], tiny_build: Any, tmp_path: Path
) -> None:
    """Neither in a process that replaces one that died, nor later; the one that was checked goes on when it is back."""
    key = keys.generate(tmp_path / "maker")
    place, other = tiny_build.write(tmp_path / "model.cxr"), tiny_build.write(tmp_path / "other.cxr", card="# other\n")
    signature.sign(place, key)
    good, digests = place.read_bytes(), [Bundle.open(path).digest for path in (other, place)]
    settings["bundle"] = {"path": str(place), "trusted_keys": [str(tmp_path / "maker.pub")]}
    with made(settings) as node:
        until(lambda: node.ready()[0])
        place.write_bytes(other.read_bytes())
        os.kill(node.workers.states()[0].pid, signal.SIGKILL)
        with node.spool.part() as part:
            part.write(b"\x89PNG\r\n\x1a\n")
            image = node.spool.commit(part, Arrival("", "", "", "http")).image
        until(lambda: "holds bundle" in node.workers.states()[0].problem or node.spool.result(image))
        assert f"holds bundle {digests[0][:12]}, wanted {digests[1][:12]}" in node.workers.states()[0].problem
        until(lambda: "is not signed" in node.models.problem)
        assert node.spool.result(image) is None
        assert not node.ready()[0]
        place.write_bytes(good)
        until(lambda: node.spool.result(image))
        until(lambda: node.models.problem == "")
        signature.sign(other, key)
        place.write_bytes(other.read_bytes())
        until(lambda: node.health().bundle == digests[0])
    assert node.models.problem == ""


def test_objects_are_made_only_of_results(settings: dict[str, Any], tmp_path: Path) -> None:
    with made(settings) as node:
        with node.spool.part() as part:
            part.write(b"\x89PNG\r\n\x1a\n")
            image = node.spool.commit(part, Arrival("", "", "", "http")).image
        until(lambda: node.spool.get(image).state is State.DELIVERED)
        with pytest.raises(ResultError):
            node.result_object("sr", image)  # no study


def test_what_was_left_half_done_is_done_again(settings: dict[str, Any], tmp_path: Path) -> None:
    node = made(settings)
    film = write_dicom(chest(1, size=128), tmp_path / "film.dcm")
    with node.spool.part() as part:
        part.write(film.read_bytes())
        image = node.spool.commit(part, Arrival("", "2.25.1", "", "dicom")).image
    claimed = node.spool.claim()
    assert claimed is not None
    node.spool.close()
    outgoing = Path(settings["folder"]) / "outgoing"
    outgoing.mkdir()
    shutil.copy(film, outgoing / "1.dcm")
    with made(settings) as again:
        until(lambda: again.spool.result(image) is not None)
        assert os.listdir(outgoing) == []

"""Results in doubt: all that rest on a proof are marked together, said so wherever they go, and can be had again."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from spools import LIMITS, OK, claimed, put

from edgecxr.errors import SpoolError, SpoolFull
from edgecxr.runtimes.node.database import SCHEMA, SCHEMA_VERSION
from edgecxr.runtimes.node.deliveries import NewDelivery
from edgecxr.runtimes.node.doubts import Standing
from edgecxr.runtimes.node.images import Outcome, State
from edgecxr.runtimes.node.outcome import object_uid
from edgecxr.runtimes.node.owed import Owed
from edgecxr.runtimes.node.spool import Spool

TOLD = "the engine that gave it failed its next proof: logits differ"
RECORD = {"findings": [], "sop_instance": "1.2", "image": 1, "decided": 5.0}


def decide(spool: Spool, uid: str, proof: str, *kinds: Any) -> int:
    image = put(spool, uid, uid.encode()).image
    assert claimed(spool).id == image
    spool.finish(image, Outcome("ok", {**RECORD, "sop_instance": uid}, proof=proof), kinds)
    return image


def renamed(record: Mapping[str, Any], kind: str, doubt: str) -> str:
    return f"{record['sop_instance']}.{kind}.{len(doubt)}"


def doubt_of(spool: Spool, image: int) -> str:
    result = spool.result(image)
    assert result is not None
    return result.doubt


def test_what_rests_on_the_proof_and_nothing_else_is_marked(spool: Spool) -> None:
    images = [decide(spool, f"1.2.{number}", proof) for number, proof in enumerate(["a", "b", "b", ""])]
    assert spool.doubts.count() == 0
    assert spool.doubts.mark("b", TOLD, renamed) == 2
    assert [doubt_of(spool, image) for image in images] == ["", TOLD, TOLD, ""]
    assert [result.doubt for _, result in spool.listing() if result is not None] == ["", TOLD, TOLD, ""]
    assert spool.doubts.count() == 2
    assert spool.doubts.mark("b", "another reason", renamed) == 0
    assert doubt_of(spool, images[1]) == TOLD


def test_what_could_not_be_marked_before_the_node_ended_is_at_its_next_start(spool: Spool, folder: Path) -> None:
    image = decide(spool, "1.2.3", "a", NewDelivery("pacs", "sr", "2.25.1"))
    standing = Standing("worker-1", lambda proof, told: spool.doubts.mark(proof, told, object_uid), spool.doubts.owed)
    standing.proof = "a"
    spool.close()  # no mark can be made any more
    standing.failed("logits differ")
    again = Spool(folder, LIMITS)
    again.recover()
    assert doubt_of(again, image) == ""
    Standing("worker-1", lambda proof, told: again.doubts.mark(proof, told, object_uid), again.doubts.owed).settle()
    assert (doubt_of(again, image), again.doubts.count(), again.doubts.owed.first()) == (TOLD, 1, None)
    ((delivery, _),) = again.deliveries(image)
    assert delivery.sop_instance == object_uid({**RECORD, "sop_instance": "1.2.3"}, "sr", TOLD)
    again.close()


def test_what_is_not_delivered_becomes_another_object(spool: Spool) -> None:
    sent, waiting = NewDelivery("pacs", "sr", "2.25.1"), NewDelivery("pacs", "capture", "2.25.2")
    image = decide(spool, "1.2.3", "a", sent, waiting)
    spool.sent(next(one.id for one, _ in spool.deliveries(image) if one.kind == "sr"), "2.25.1")
    spool.doubts.mark("a", TOLD, renamed)
    assert {one.kind: one.sop_instance for one, _ in spool.deliveries(image)} == {
        "sr": "2.25.1",
        "capture": f"1.2.3.capture.{len(TOLD)}",
    }
    assert object_uid(RECORD, "sr") != object_uid(RECORD, "sr", TOLD) == object_uid(RECORD, "sr", TOLD)


def test_by_hand_it_is_screened_again(spool: Spool) -> None:
    image = decide(spool, "1.2.3", "a")
    with pytest.raises(SpoolError, match="is delivered and cannot become received"):
        spool.retry(image)
    spool.doubts.mark("a", TOLD, renamed)
    spool.retry(image)
    assert (spool.get(image).state, spool.result(image), spool.doubts.count()) == (State.RECEIVED, None, 0)
    spool.finish(claimed(spool).id, OK)
    undelivered = decide(spool, "1.2.4", "a", NewDelivery("pacs", "sr", "2.25.1"))
    spool.doubts.mark("a", TOLD, renamed)
    spool.retry(undelivered)
    assert spool.deliveries(undelivered) == []


def test_a_spool_of_the_first_schema_opens(folder: Path) -> None:
    folder.mkdir()
    connection = sqlite3.connect(folder / "node.db")
    connection.executescript(SCHEMA)
    connection.execute(
        "INSERT INTO images (file, sop_class, sop_instance, syntax, source, peer, calling_ae, priority, received, "
        "size, state, copy) VALUES ('1.dcm', '', '1.2', '', 'dicom', '', '', 0, 5, 4, 'delivered', 'new')"
    )
    connection.execute("INSERT INTO results VALUES (1, 'ok', '{\"findings\": []}', NULL, 6.0, 0.5)")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    for _ in range(2):
        spool = Spool(folder, LIMITS)
        result = spool.result(1)
        assert result is not None
        assert (result.status, result.decided, result.doubt, spool.doubts.count()) == ("ok", 6.0, "", 0)
        spool.finish(_screening(spool), OK)
        spool.close()
    connection = sqlite3.connect(folder / "node.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


def _screening(spool: Spool) -> int:
    put(spool, f"1.3.{len(spool.listing())}")
    return claimed(spool).id


def test_a_worker_marks_what_could_not_be_marked_before(tmp_path: Path) -> None:
    marked: list[tuple[str, str]] = []
    full = [True]

    def mark(proof: str, told: str) -> int:
        if full:
            raise SpoolFull(f"no room {full.pop()}")
        marked.append((proof, told))
        return 1

    standing = Standing("worker-1", mark, Owed(tmp_path / "doubts"))
    standing.passed()
    first = standing.proof
    standing.failed("logits differ")
    standing.settle()
    assert marked == []
    standing.passed()
    assert standing.proof != first
    standing.settle()
    standing.settle()
    assert marked == [(first, TOLD)]

"""Listings: filters, orders, pages, and text that means itself."""

from typing import Any

import pytest
from spools import CR, claimed, put

from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.listing import Selection
from edgecxr.runtimes.node.spool import (
    Arrival,
    Outcome,
    Spool,
    State,
)


def wanted(spool: Spool, **asked: Any) -> list[int]:
    return [image.id for image, _ in spool.rows(Selection(**asked))]


def test_listings_filter_and_page(spool: Spool) -> None:
    names = ["Doe^John", "50%_Off^A", "Иванов^Пётр", "Doe^Jane", "Back\\slash"]
    for index, name in enumerate(names):
        put(spool, f"1.{index}")
        findings = [{"name": "tb", "decision": "positive" if index % 2 else "negative"}]
        identity = {"patient_name": name, "patient_id": f"ID{index}", "accession": f"A-{index}"}
        spool.finish(claimed(spool).id, Outcome("ok", {"findings": findings}, None, identity, index % 3 / 2))
    put(spool, "1.9")

    def ids(**wanted: object) -> list[int]:
        return [image.id for image, _ in spool.listing(**wanted)]  # type: ignore[arg-type]

    assert ids() == ids(order="newest") == [6, 5, 4, 3, 2, 1]
    assert ids(limit=2) == [6, 5]
    assert ids(limit=2, before=5) == [4, 3]
    assert ids(order="urgent") == [3, 5, 2, 4, 1, 6]
    assert ids(order="urgent", limit=2, before=5) == [2, 4]
    assert ids(order="urgent", before=6) == []
    assert ids(states=[State.RECEIVED]) == [6]
    assert ids(states=[]) == []
    assert ids(finding="tb") == [4, 2]
    assert ids(finding="covid") == []
    assert ids(text="doe") == [4, 1]
    assert ids(text="иванов") == [3]
    assert ids(text="id3") == ids(text="a-3") == [4]
    assert ids(text="%") == ids(text="_") == ids(text="0%_o") == [2]
    assert ids(text="\\") == [5]
    assert ids(text="' OR 1=1 --") == []
    image, result = spool.listing(limit=1, before=6)[0]
    assert image.patient_name == names[4]
    assert result is not None
    assert (result.status, result.cam) == ("ok", None)
    assert spool.listing(limit=1)[0][1] is None
    received = spool.get(4).received
    assert wanted(spool, positive=True) == [4, 2]
    assert wanted(spool, status="ok", limit=2) == [5, 4]
    assert wanted(spool, status="refused") == []
    assert wanted(spool, since=received) == [6, 5, 4]
    spool.path(spool.get(4)).unlink()
    spool.recover()
    assert wanted(spool, positive=True) == ids(finding="tb") == [2]
    with pytest.raises(SpoolError, match="order 'oldest' of a listing"):
        spool.listing(order="oldest")  # type: ignore[arg-type]


def test_text_in_an_odd_encoding_is_kept_as_far_as_it_can_be(spool: Spool) -> None:
    """Lone surrogates come from file names and from names in an undeclared character set."""
    with spool.part() as part:
        part.write(b"film")
        spool.commit(part, Arrival(CR, "1.2.3", "", "folder", "caf\udce9.dcm"))
    spool.fail(claimed(spool).id, "cannot read \udce9")
    image = claimed(spool)
    assert (image.peer, image.error) == ("caf?.dcm", "cannot read ?")
    spool.finish(image.id, Outcome("ok", {"note": "\udce9\0"}, None, {"patient_name": "\udce9\0<script>"}))
    assert spool.get(image.id).patient_name == "?\0<script>"
    assert spool.result(image.id).record == {"note": "\udce9\0"}  # type: ignore[union-attr]

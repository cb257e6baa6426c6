from typing import ClassVar

from edgecxr.dataset import HeadColumns
from edgecxr.sparse import Sparse
from edgecxr.spec import Head


class Grown(Sparse):
    later: ClassVar[frozenset[str]] = frozenset({"added"})

    old: int = 1
    added: tuple[int, ...] = ()
    last: str = "z"


class GrownAgain(Grown):
    more: int = 2


def test_a_later_key_is_written_only_where_it_is_set():
    assert Grown().model_dump_json() == '{"old":1,"last":"z"}'
    assert Grown(added=(3,)).model_dump(mode="json") == {"old": 1, "added": [3], "last": "z"}
    assert Grown(added=(3,)).model_dump(exclude={"old"}) == {"added": (3,), "last": "z"}
    assert GrownAgain(added=(4,)).model_dump() == {"old": 1, "added": (4,), "last": "z", "more": 2}
    assert GrownAgain().model_dump() == {"old": 1, "last": "z", "more": 2}


def test_what_is_left_out_comes_back_as_its_default():
    for one in (Grown(), Grown(added=(1, 2))):
        assert Grown.model_validate_json(one.model_dump_json()) == one


def test_columns_of_a_head_are_written_as_they_were_before_they_could_map_values():
    head = Head(name="diagnosis", kind="softmax", classes=("normal", "covid"))
    assert list(HeadColumns(head=head).model_dump()) == ["head", "column", "columns"]

from edgecxr.repeats import repeated


def test_names_that_stand_more_than_once_are_told_once_and_sorted() -> None:
    assert repeated(["b", "a", "b", "c", "a", "b"]) == ["a", "b"]
    assert repeated(iter(["a", "a"])) == ["a"]
    assert repeated(["a", "A"]) == repeated([]) == []
